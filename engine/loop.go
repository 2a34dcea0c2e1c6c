package engine

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/upstream"
)

const (
	// Released buffers that a loop keeps: room for one for each of thousands of clients that are
	// answered in the same pass, but no more than 32 MiB in all.
	buffersKept      = 8192
	bufferBytesMax   = 256 << 10
	bufferBytesTotal = 32 << 20

	// flushBytes is the size of a batch for NATS that is worth a write of its own.
	flushBytes = 64 << 10
)

// loop is one event loop: its clients, their requests and its connection to NATS. Methods run on
// the loop's goroutine, except where their comment says otherwise.
type loop struct {
	// Set once before the loop runs.
	gateway *Gateway
	index   int
	log     *slog.Logger
	events  gnet.EventLoop
	link    *upstream.Link
	control *upstream.Control
	bell    *bell
	watch   *watchSet   // nil before Start
	audit   *audit.Ring // nil: there is no audit log

	// Loop-owned.
	policy      *policy // what it works by; another one after a reload
	now         int64   // nanoseconds since Gateway.started, read once an event
	slots       *pool.Table[request]
	buffers     *pool.Buffers
	ids         idSet
	budget      localBudget
	deadlines   *wheel
	unwritten   []pendingWrite // publish-mode requests in the order of their offsets, from unwrittenAt on
	unwrittenAt int
	dirty       []*session // have bytes to be written at the end of the pass
	doomed      []*session // are closed at the end of the pass
	resumed     []*session // were paused, and go on in the next pass
	lingering   []lingerer // sessions that were answered for the last time, the earliest first
	handover    *handover  // that sessions at rest are passed to; nil: none goes on

	// Sessions whose next frame waits for room, in the order in which they came, and others whose wait has ended since
	// waitingLook was set.
	waiting     []*session
	waitingLook int64        // when to look at them next, in nanoseconds since Gateway.started
	gates       pauseReasons // what there is no room for: frames wait

	peerReserved bool // for the frame that is being served; see reservePeer

	fair fairness // who takes how much

	partials     []*session // that hold a part of a frame, and others that did
	partialsLook int64      // likewise

	stuck     []*session // whose socket is full, and others whose was
	stuckLook int64      // likewise

	pausedCounted int64 // until when the time of paused sessions is added up

	durable      durable // what is kept for JetStream
	breakers     *breakerTable
	recentErrors errorRing
	rearm        bool // the ticker may have to be told of an earlier deadline
	buffered     int  // bytes that wait for clients
	draining     bool
	readBuffer   []byte // what one client sent, until it is served
	peeker       *peeker
	wireBuffer   []byte  // what came from NATS, until it is delivered
	wires        []*wire // connections to NATS: one, but for a moment
	scratch      []byte  // error objects, status headers
	text         []byte  // messages of error objects
	auditScratch audit.Request
	capabilities cachedCapabilities
	readAt       int64            // when what is being served was read, in nanoseconds since Gateway.started
	serving      servedFrame      // what is being worked on, should it panic
	unfinished   unfinishedAnswer // likewise
	tracer       *tracer          // nil: nothing was ever traced
	traced       *trace.Span      // of the frame that is being served; nil: it is not sampled

	// Atomic, written by the loop, read by anybody.
	counters counters

	// The doors in from other goroutines; see post.
	mailbox mailbox
	clients atomic.Int64 // open connections, counted by the accept loop when it gives them
	wakeAt  atomic.Int64 // when the ticker has to wake the loop; 0: never
	visits  atomic.Int64 // wishes that the loop be with gnet; see visit
}

// mailbox holds what other goroutines want done on the loop.
type mailbox struct {
	waiting atomic.Bool
	mu      sync.Mutex
	tasks   []func()
}

func newLoop(g *Gateway, index int) *loop {
	cfg := &g.cfg
	l := &loop{
		gateway:    g,
		index:      index,
		log:        g.log.With("loop", index),
		policy:     g.policy.Load(),
		slots:      pool.NewTable[request](cfg.MaxInflight),
		buffers:    pool.NewBuffers(buffersKept, bufferBytesMax, bufferBytesTotal),
		deadlines:  newWheel(cfg.MaxInflight),
		readBuffer: make([]byte, readBufferBytes),
		wireBuffer: make([]byte, readBufferBytes),
		budget:     localBudget{shared: &g.budget},
		fair:       fairness{share: shareMin},
	}
	l.peeker = newPeeker(l.readBuffer)
	l.ids = newIDSet(cfg.MaxInflight)
	l.durable = newDurable()
	l.breakers = newBreakerTable()
	l.followTracing()
	l.link, l.control = upstream.NewLink(cfg.NATS, l, l.enrollWire, cfg.MaxUpstreamBufferBytes, l.log)
	return l
}

// post runs task on the loop soon. It may be called from any goroutine, and is the only way for
// one to touch what the loop owns.
func (l *loop) post(task func()) {
	l.mailbox.mu.Lock()
	l.mailbox.tasks = append(l.mailbox.tasks, task)
	l.mailbox.mu.Unlock()
	l.mailbox.waiting.Store(true)
	l.Wake()
}

// Wake implements upstream.Handler: onWake will run soon. It may be called from any goroutine.
func (l *loop) Wake() { l.watch.wake() }

func (l *loop) readClock() { l.now = int64(time.Since(l.gateway.started)) }

func (l *loop) runMailbox() {
	l.mailbox.mu.Lock()
	tasks := l.mailbox.tasks
	l.mailbox.tasks = nil
	l.mailbox.mu.Unlock()
	for _, task := range tasks {
		task()
	}
}
