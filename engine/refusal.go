package engine

import (
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

const (
	// refusalsMax bounds the refused connections that are given refusalTime to read their refusal.
	refusalsMax = 256
	refusalTime = time.Second
	// strangerPause is the time between two messages about clients of one uid that may not connect.
	strangerPause = time.Minute
	// strangersMax bounds the uids that are remembered for that: a user namespace has thousands.
	strangersMax = 1024
)

// admit counts a connection, for the gateway and its rule, or refuses it.
func (a *acceptor) admit(fd int, peer peerCredentials, rule *peerRule, connectionsMax int64) bool {
	g := a.gateway
	switch {
	case rule.refused:
		reason := rule.whyRefused(peer)
		g.connectionsUnauthorized.Add(1)
		a.strangers.tell(peer, reason)
		a.refuse(fd, codec.CodeUnauthorized, reason)
		return false
	case g.connections.Add(1) > connectionsMax:
		g.connections.Add(-1)
		g.connectionsRefused.Add(1)
		a.refuse(fd, codec.CodeOverloaded, "too many connections to the gateway")
		return false
	case !rule.state.takeConnection(rule.connectionsMax):
		g.connections.Add(-1)
		g.peerConnectionsRefused.Add(1)
		a.refuse(fd, codec.CodeOverloaded, rule.overConnections)
		return false
	}
	return true
}

// refuse tells a client why it is not taken, and closes its connection. It gets a moment to
// close first: closing with bytes of the client unread would reset the connection after the frame.
func (a *acceptor) refuse(fd int, code codec.ErrorCode, message string) {
	_, _ = unix.Write(fd, refusalFrame(code, message)) // fits into the empty socket buffer
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	conn := os.NewFile(uintptr(fd), "refused client")
	select {
	case a.refusals <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	a.done.Go(func() {
		defer func() { <-a.refusals }()
		defer conn.Close() //nolint:errcheck // there is nobody left to tell
		_ = conn.SetDeadline(time.Now().Add(refusalTime))
		_, _ = io.Copy(io.Discard, conn)
	})
}

// refusalFrame is what a client hears that has said nothing yet, so it is in version 1.
func refusalFrame(code codec.ErrorCode, message string) []byte {
	object := codec.AppendError(nil, code, message, false)
	return codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypeResponseError, Payload: object})
}

// strangersLog logs clients that may not connect, and lets none of them fill the log. It belongs to the
// accept loop.
type strangersLog struct {
	log   *slog.Logger
	byUID map[uint32]*stranger
}

type stranger struct {
	silentUntil time.Time
	untold      int // refusals since the last message
}

// tell logs a refusal, unless one of the same uid was logged less than strangerPause ago.
func (s *strangersLog) tell(peer peerCredentials, reason string) {
	now := time.Now()
	who := s.byUID[peer.uid]
	if who == nil {
		if len(s.byUID) >= strangersMax {
			s.forget(now)
		}
		if len(s.byUID) >= strangersMax {
			return
		}
		who = &stranger{}
		s.byUID[peer.uid] = who
	}
	if now.Before(who.silentUntil) {
		who.untold++
		return
	}
	s.log.Warn("client is refused", "reason", reason, "peer", peer, "untold_before", who.untold)
	*who = stranger{silentUntil: now.Add(strangerPause)}
}

// forget makes room for uids that were not seen lately.
func (s *strangersLog) forget(now time.Time) {
	for uid, who := range s.byUID {
		if now.After(who.silentUntil) {
			delete(s.byUID, uid)
		}
	}
}
