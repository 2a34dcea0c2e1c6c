package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

const (
	takeoverPath = "/v1/takeover"
	// takeoverProtocol names what is spoken on the connection after the answer: that of engine.Gateway.HandOver, in
	// its second version.
	takeoverProtocol = "ipc-gateway-takeover/2"
	// readyHeader tells whether the gateway that hands over can serve requests, so that the other one knows what it has to
	// match.
	readyHeader = "Gateway-Ready"
	// takeoverDial bounds the exchange up to the answer.
	takeoverDial = 5 * time.Second
)

// Takeover is the connection to a gateway that hands over.
type Takeover struct {
	Conn  *net.UnixConn // the caller's, for [engine.Inherit]
	Ready bool          // the other gateway serves requests
}

// TakeOver asks the gateway at the control socket path to hand over. The error is that of the dial if nobody is
// there.
func TakeOver(ctx context.Context, path string) (*Takeover, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverDial)
	defer cancel()
	dialed, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	conn := dialed.(*net.UnixConn) //nolint:forcetypeassert // what "unix" dials
	t, err := askTakeover(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

func askTakeover(ctx context.Context, conn *net.UnixConn) (*Takeover, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, "http://gateway"+takeoverPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", takeoverProtocol)
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	// Nothing follows the answer before we say something, so that the reader takes nothing of what does.
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errors.New("it does not answer in time: its process is stopped, or stuck")
	}
	if err != nil {
		return nil, fmt.Errorf("the gateway's answer cannot be read: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // of a connection that is closed or goes on
	if response.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(response.Body)
		var p problem
		if json.Unmarshal(body, &p) != nil || p.Error == "" {
			p.Error = response.Status
		}
		return nil, errors.New(p.Error)
	}
	ready, _ := strconv.ParseBool(response.Header.Get(readyHeader))
	return &Takeover{Conn: conn, Ready: ready}, conn.SetDeadline(time.Time{})
}

// takeover hands over to the caller, on its connection.
func (s *Server) takeover(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != takeoverProtocol {
		fail(w, http.StatusUpgradeRequired, "a takeover wants the protocol %s: use a program of the same release", takeoverProtocol)
		return
	}
	if s.HandOver == nil {
		fail(w, http.StatusConflict, "this gateway hands over to no other process")
		return
	}
	if !s.handingOver.TryLock() {
		fail(w, http.StatusConflict, "another process is taking over already")
		return
	}
	defer s.handingOver.Unlock()
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	defer hijacked.Close() //nolint:errcheck // all is said
	conn, ok := hijacked.(*net.UnixConn)
	if !ok {
		return
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %v\r\n\r\n",
		takeoverProtocol, readyHeader, s.Gateway.Ready() == nil)
	if err == nil {
		s.HandOver(conn)
	}
}
