package engine

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/aigroup/ipc-gateway/codec"
)

const (
	// acceptBackoffMin and Max bound the pause after a failed accept, as with too many open files.
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
	// acceptLeftovers is how long the accept loop has to wait in vain, once the path is gone, to
	// believe that nobody is left who connected before; after leftoversMax it believes so anyway.
	acceptLeftovers = 20 * time.Millisecond
	leftoversMax    = time.Second
	// refusalsMax bounds the refused connections that are given refusalTime to read their refusal.
	refusalsMax = 256
	refusalTime = time.Second
)

// acceptor accepts clients and spreads them over the loops.
type acceptor struct {
	gateway  *Gateway
	client   *gnet.Client
	socket   *socketFile
	log      *slog.Logger
	nextID   uint64
	overload []byte // the frame for the connection over the limit
	refusals chan struct{}
	done     sync.WaitGroup
}

func newAcceptor(g *Gateway, client *gnet.Client, socket *socketFile) *acceptor {
	object := codec.AppendError(nil, codec.CodeOverloaded, "too many connections to the gateway", false)
	return &acceptor{
		gateway:  g,
		client:   client,
		socket:   socket,
		log:      g.log,
		overload: codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypeResponseError, Payload: object}),
		refusals: make(chan struct{}, refusalsMax),
	}
}

// run accepts until it is told to stop by a deadline of the listener, and has accepted who had
// connected until then, or until the listener is closed.
func (a *acceptor) run() {
	backoff := acceptBackoffMin
	var idleSince, giveUp time.Time
	for {
		conn, err := a.socket.AcceptUnix()
		if err == nil {
			backoff = acceptBackoffMin
			a.take(conn)
			idleSince = time.Now()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The deadline may have passed while a client was taken, or in a backoff: accepting
			// fails then without a look at those who wait.
			now := time.Now()
			if giveUp.IsZero() {
				giveUp = now.Add(leftoversMax)
			}
			if now.Sub(idleSince) >= acceptLeftovers || now.After(giveUp) {
				return
			}
			_ = a.socket.SetDeadline(now.Add(acceptLeftovers))
			continue
		}
		// Out of descriptors or memory: the connect waits in the backlog until some are free.
		a.gateway.acceptErrors.Add(1)
		if backoff == acceptBackoffMin {
			a.log.Error("accepting a client failed; trying again", "error", err)
		}
		time.Sleep(backoff)
		backoff = min(2*backoff, acceptBackoffMax)
		idleSince = time.Now()
	}
}

// take gives a connection to a loop, or refuses it.
func (a *acceptor) take(conn *net.UnixConn) {
	g := a.gateway
	if g.connections.Add(1) > int64(g.cfg.MaxConnections) {
		g.connections.Add(-1)
		g.connectionsRefused.Add(1)
		a.refuse(conn)
		return
	}
	g.connectionsTotal.Add(1)
	a.nextID++
	s := &session{id: a.nextID}
	// gnet takes the loop with the fewest connections, and works on a duplicate of the descriptor.
	_, err := a.client.EnrollContext(conn, s)
	if err == nil && s.loop == nil {
		err = errors.New("the event loop did not take it")
	}
	if err != nil {
		g.connections.Add(-1)
		g.acceptErrors.Add(1)
		a.log.Error("client is closed: it cannot be given to an event loop", "error", err)
	}
}

// refuse tells a client that there are too many, and closes its connection. It gets a moment to
// close first: closing with bytes of the client unread would reset the connection after the frame.
func (a *acceptor) refuse(conn *net.UnixConn) {
	_ = conn.SetDeadline(time.Now().Add(refusalTime))
	_, _ = conn.Write(a.overload) // fits into the empty socket buffer: does not block
	_ = conn.CloseWrite()
	select {
	case a.refusals <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	a.done.Go(func() {
		defer func() { <-a.refusals }()
		defer conn.Close() //nolint:errcheck // there is nobody left to tell
		discard := make([]byte, 512)
		for {
			if _, err := conn.Read(discard); err != nil {
				return
			}
		}
	})
}
