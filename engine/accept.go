package engine

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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
	socket   *socketFile
	log      *slog.Logger
	nextID   uint64
	overload []byte // the frame for the connection over the limit
	refusals chan struct{}
	done     sync.WaitGroup
}

func newAcceptor(g *Gateway, socket *socketFile) *acceptor {
	object := codec.AppendError(nil, codec.CodeOverloaded, "too many connections to the gateway", false)
	return &acceptor{
		gateway:  g,
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
		fd, err := a.socket.accept()
		if err == nil {
			backoff = acceptBackoffMin
			a.take(fd)
			idleSince = time.Now()
			continue
		}
		if errors.Is(err, os.ErrClosed) {
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

// take gives a connection to the loop that has the fewest, or refuses it.
func (a *acceptor) take(fd int) {
	g := a.gateway
	if g.connections.Add(1) > int64(g.policy.Load().MaxConnections) {
		g.connections.Add(-1)
		g.connectionsRefused.Add(1)
		a.refuse(fd)
		return
	}
	g.connectionsTotal.Add(1)
	peer := credentialsOf(fd)
	l := g.loops[0]
	for _, other := range g.loops[1:] {
		if other.clients.Load() < l.clients.Load() {
			l = other
		}
	}
	l.clients.Add(1)
	a.nextID++
	id := a.nextID
	l.post(func() { l.open(fd, id, peer) })
}

// refuse tells a client that there are too many, and closes its connection. It gets a moment to
// close first: closing with bytes of the client unread would reset the connection after the frame.
func (a *acceptor) refuse(fd int) {
	_, _ = unix.Write(fd, a.overload) // fits into the empty socket buffer
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
