package engine

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// acceptBackoffMin and Max bound the pause after a failed accept, as with too many open files.
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
	// acceptLeftovers is how long the accept loop has to wait in vain, once the path is gone, to
	// believe that nobody is left who connected before; after leftoversMax it believes so anyway.
	acceptLeftovers = 20 * time.Millisecond
	leftoversMax    = time.Second
)

// acceptor accepts clients and spreads them over the loops.
type acceptor struct {
	gateway   *Gateway
	socket    *SocketFile
	log       *slog.Logger
	strangers strangersLog
	leaveRest atomic.Bool // at the deadline: who has connected is accepted by another process
	refusals  chan struct{}
	done      sync.WaitGroup
}

func newAcceptor(g *Gateway, socket *SocketFile) *acceptor {
	return &acceptor{
		gateway:   g,
		socket:    socket,
		log:       g.log,
		strangers: strangersLog{log: g.log, byUID: map[uint32]*stranger{}},
		refusals:  make(chan struct{}, refusalsMax),
	}
}

// run accepts until it is told to stop by a deadline of the listener, and has accepted who had
// connected until then, or until the listener is closed.
func (a *acceptor) run() {
	labelGoroutine(partLabel, "accept")
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
			if !a.socket.looksAfterPath() || a.leaveRest.Load() {
				return // who waits is accepted by the next one who is passed the socket
			}
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
	p := g.policy.Load()
	peer := credentialsOf(fd)
	rule := p.peers.ruleFor(peer, fd)
	if !a.admit(fd, peer, rule, int64(p.MaxConnections)) {
		return
	}
	g.connectionsTotal.Add(1)
	l, id := g.assign()
	a.log.Debug("client connected", "client", id, "loop", l.index, "peer", peer, "rule", rule.name)
	l.post(func() { l.open(fd, id, peer, rule) })
}

// assign gives a new client an id, and the loop that has the fewest, which it is counted for.
func (g *Gateway) assign() (l *loop, id uint64) {
	l = g.loops[0]
	for _, other := range g.loops[1:] {
		if other.clients.Load() < l.clients.Load() {
			l = other
		}
	}
	l.clients.Add(1)
	return l, g.lastClientID.Add(1)
}
