package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/internal/wallclock"
)

const (
	// readBufferBytes is what a loop reads from one socket at a time.
	readBufferBytes = 64 << 10
	// gnetBufferBytes is what gnet reads at a time, where it does.
	gnetBufferBytes = 4 << 10
)

// Gateway is the data plane: its loops, their links to NATS, and the socket that clients connect to.
type Gateway struct {
	// Set once before the loops run.
	cfg     Config // as at the start; see policy for what counts now
	log     *slog.Logger
	started time.Time
	loops   []*loop
	budget  budget
	ticker  *ticker
	client  *gnet.Client
	// auditLog is nil if there is none.
	auditLog *audit.Log
	clock    *wallclock.Clock // counts from started
	// reserved is what nobody may publish to who is not told that he may.
	reserved *reservedSubjects

	// Owned by whoever calls Start, Drain and Close, one after another.
	lifecycle sync.Mutex
	socket    *SocketFile
	acceptor  *acceptor
	accepting sync.WaitGroup
	running   bool
	closed    bool

	peerStates peerStates // of New, and of Reload, which holds lifecycle

	// Of HandOver, which holds lifecycle for as long as the other process takes.
	handoverEnd     chan struct{} // closed by EndHandover
	handoverEndOnce sync.Once
	handingOver     atomic.Bool

	// Atomic.
	policy                  atomic.Pointer[policy] // the newest; each loop has its own copy of the pointer
	connections             atomic.Int64
	connectionsTotal        atomic.Uint64
	clientsTakenOver        atomic.Uint64
	lastClientID            atomic.Uint64
	connectionsRefused      atomic.Uint64
	peerConnectionsRefused  atomic.Uint64
	connectionsUnauthorized atomic.Uint64
	acceptErrors            atomic.Uint64
	draining                atomic.Bool
	stopped                 atomic.Bool // the loops turn no more
}

// New returns a gateway for cfg, or every problem that cfg has. It opens nothing.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, log: cfg.Logger, started: time.Now(), peerStates: peerStates{}, handoverEnd: make(chan struct{})}
	g.clock = wallclock.New(g.started)
	if g.log == nil {
		g.log = slog.Default()
	}
	g.policy.Store(newPolicy(&cfg, g.peerStates))
	g.budget.setUp(cfg.MaxInflight, cfg.Loops)
	g.ticker = newTicker(g)
	for i := range cfg.Loops {
		g.loops = append(g.loops, newLoop(g, i))
	}
	g.reserved = newReservedSubjects(g.inboxes())
	return g, nil
}

// inboxes returns the prefix of each link's reply subjects.
func (g *Gateway) inboxes() (prefixes [][]byte) {
	for _, l := range g.loops {
		prefixes = append(prefixes, l.link.Inbox())
	}
	return prefixes
}

// Start runs the loops, begins to connect to NATS, and opens the socket, in this order. It does
// not wait for NATS. After an error the gateway is closed.
func (g *Gateway) Start() error {
	return g.starting(func() error {
		if err := g.prepare(); err != nil {
			return err
		}
		if err := g.openSocket(); err != nil {
			return err
		}
		g.startLinks()
		g.accept()
		return nil
	})
}

// Prepare is the part of Start that comes before the socket: Listen is still to be called. A gateway that takes over from
// another one connects to NATS before it accepts clients.
func (g *Gateway) Prepare() error {
	return g.starting(func() error {
		if err := g.prepare(); err != nil {
			return err
		}
		g.startLinks()
		return nil
	})
}

// Listen accepts clients on socket, which the gateway owns from now on.
func (g *Gateway) Listen(socket *SocketFile) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if !g.running || g.closed || g.socket != nil {
		return errors.New("engine: the gateway is not ready for a socket")
	}
	g.socket = socket
	g.accept()
	return nil
}

// starting runs one of the ways to start, and closes the gateway if that fails.
func (g *Gateway) starting(start func() error) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if g.running || g.closed {
		return errors.New("engine: a gateway is started once")
	}
	g.running = true
	err := start()
	if err != nil {
		err = errors.Join(err, g.close())
	}
	return err
}

func (g *Gateway) prepare() error {
	g.socket = g.cfg.Socket
	g.clock.Follow()
	if err := g.openAudit(); err != nil {
		return err
	}
	if err := g.startLoops(); err != nil {
		return err
	}
	g.ticker.start()
	return nil
}

func (g *Gateway) openSocket() (err error) {
	if g.socket == nil {
		g.socket, err = ListenAt(g.cfg.SocketPath, g.cfg.SocketMode)
	}
	return err
}

func (g *Gateway) startLinks() {
	for _, l := range g.loops {
		var started sync.WaitGroup
		started.Go(func() {
			// The goroutines of the control, and nats.go's, inherit the labels of this one.
			labelGoroutine(partLabel, "nats", loopLabel, strconv.Itoa(l.index))
			l.control.Start()
		})
		started.Wait()
	}
}

func (g *Gateway) accept() {
	g.acceptor = newAcceptor(g, g.socket)
	g.accepting.Go(g.acceptor.run)
}

// pauseAccepting accepts nobody until resumeAccepting: who connects waits.
func (g *Gateway) pauseAccepting() {
	g.acceptor.leaveRest.Store(true)
	_ = g.socket.SetDeadline(time.Now())
	g.accepting.Wait()
}

func (g *Gateway) resumeAccepting() {
	g.acceptor.leaveRest.Store(false)
	_ = g.socket.SetDeadline(time.Time{})
	g.accepting.Go(g.acceptor.run)
}

// startLoops starts gnet without a listener of its own, and gives each of our loops one of gnet's:
// gnet puts a new connection on the loop that has the fewest, so the bells, enrolled one after the
// other before anything else, end up on one loop each.
func (g *Gateway) startLoops() error {
	client, err := gnet.NewClient(&handler{},
		gnet.WithNumEventLoop(g.cfg.Loops),
		gnet.WithReadBufferCap(gnetBufferBytes),
		gnet.WithLockOSThread(len(g.cfg.CPUs) > 0),
		gnet.WithLogger(gnetLogger{g.log.With("component", "gnet")}),
	)
	if err != nil {
		return fmt.Errorf("engine: setting up gnet: %w", err)
	}
	if err := client.Start(); err != nil {
		return fmt.Errorf("engine: starting gnet: %w", err)
	}
	g.client = client
	for _, l := range g.loops {
		if err := g.startLoop(l); err != nil {
			return fmt.Errorf("engine: starting loop %d: %w", l.index, err)
		}
	}
	return nil
}

func (g *Gateway) startLoop(l *loop) (err error) {
	if l.watch, err = newWatchSet(); err != nil {
		return err
	}
	b, conn, err := newBell(l)
	if err != nil {
		return err
	}
	if _, err := g.client.EnrollContext(conn, b); err != nil {
		return err
	}
	select {
	case err := <-b.opened:
		return err
	default:
		return errors.New("gnet did not open the loop's connection")
	}
}

// stopAccepting removes the socket, accepts who connected before that, and closes the listener.
func (g *Gateway) stopAccepting() error {
	if g.socket == nil {
		return nil
	}
	err := g.socket.Remove()
	if g.acceptor != nil {
		_ = g.socket.SetDeadline(time.Now().Add(acceptLeftovers))
		g.accepting.Wait()
	}
	err = errors.Join(err, g.socket.Close())
	g.socket = nil
	return err
}

// Close ends everything at once: the socket is removed if it is still ours, NATS is disconnected,
// clients see EOF. It may be called again.
func (g *Gateway) Close() error {
	g.EndHandover()
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	return g.close()
}

func (g *Gateway) close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	err := g.stopAccepting()
	for _, l := range g.loops {
		l.control.Close() // needs the loops to turn
	}
	g.stopped.Store(true)
	if g.client != nil {
		for _, l := range g.loops {
			if l.bell != nil {
				l.visit() // for good
			}
		}
		err = errors.Join(err, g.client.Stop())
		for _, l := range g.loops {
			l.releaseAll()
		}
	}
	err = errors.Join(err, g.closeAudit())
	if g.acceptor != nil {
		g.acceptor.done.Wait()
	}
	g.ticker.close()
	g.clock.Close()
	for _, l := range g.loops {
		if l.watch != nil {
			l.watch.close()
		}
		if l.bell != nil {
			l.bell.close()
		}
	}
	return err
}

// releaseAll ends all sessions. REQUIRES: the loop is stopped.
func (l *loop) releaseAll() {
	if l.watch == nil {
		return
	}
	l.runMailbox() // there may be clients that were accepted last
	for _, s := range l.watch.sessions {
		if s != nil {
			l.doom(s)
		}
	}
	l.reap()
}

// Alive returns nil once every loop has turned since the call, or an error that names the first
// that has not when ctx ends.
func (g *Gateway) Alive(ctx context.Context) error {
	for _, l := range g.loops {
		if l.watch == nil {
			return errors.New("the event loops are not started")
		}
		if g.stopped.Load() {
			return errors.New("the event loops are stopped")
		}
		turned := make(chan struct{})
		l.post(func() { close(turned) })
		select {
		case <-turned:
		case <-ctx.Done():
			return fmt.Errorf("event loop %d does not turn", l.index)
		}
	}
	return nil
}

// Ready returns nil if requests are served by every loop, else the reason.
func (g *Gateway) Ready() error {
	if g.draining.Load() {
		return errors.New("draining")
	}
	for _, l := range g.loops {
		if !l.link.Ready() {
			return fmt.Errorf("NATS is not connected: %s", l.link.Reason())
		}
	}
	return nil
}

// Stats returns the sums over all loops. It does not stop them.
func (g *Gateway) Stats() Stats {
	s := Stats{
		Loops:              len(g.loops),
		Connections:        uint64(max(g.connections.Load(), 0)),
		ConnectionsTotal:   g.connectionsTotal.Load(),
		ClientsTakenOver:   g.clientsTakenOver.Load(),
		ConnectionsRefused: g.connectionsRefused.Load(),
		AcceptErrors:       g.acceptErrors.Load(),
		Draining:           g.draining.Load(),

		PeerConnectionsRefused:  g.peerConnectionsRefused.Load(),
		ConnectionsUnauthorized: g.connectionsUnauthorized.Load(),
	}
	s.Peers, s.OtherPeers = g.policy.Load().peers.stats()
	for _, l := range g.loops {
		l.addTo(&s)
	}
	if g.auditLog != nil {
		s.Audit = g.auditLog.Stats()
	}
	if tracer := g.cfg.Tracer; tracer != nil {
		s.TraceDropped += tracer.Lost()
	}
	switch {
	case s.BreakersOpen > 0:
		s.CircuitBreakerState = uint64(BreakerOpen)
	case s.BreakersHalfOpen > 0:
		s.CircuitBreakerState = uint64(BreakerHalfOpen)
	}
	s.SlotsAvailable = uint64(g.cfg.MaxInflight) - min(s.Inflight, uint64(g.cfg.MaxInflight))
	return s
}
