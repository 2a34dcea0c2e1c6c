package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A handover passes the listening socket, and then each client's connection, to another process, which goes on with
// them where this one stopped; handoverwire.go says how, and who has what if either of them ends, freezes or is told to stop. A
// client is passed at a moment when nothing of it is in flight, with what was read of it and not served, and what waits to be
// written to it. It notices nothing.
//
// Such a moment is made by not reading from clients. One whose requests take long is read again after a short while,
// so that its next ones do not wait for them, and passed when it comes to rest by itself, or at the end of the drain.

const (
	// handoverRest is how long clients are not read at first: most are at rest long before. It also is how often what is
	// left is brought to rest when the handover has taken too long.
	handoverRest = 100 * time.Millisecond
	// handoverPatience is how long the other process may take with something until this one serves what it still has.
	handoverPatience = time.Second
)

// Legacy is what a process passes on beside its socket and its clients.
type Legacy struct {
	// Probe is the probe's listener, and ProbeAddress the setting by which it was made. Nil: there is none.
	Probe        *os.File
	ProbeAddress string
	// Control is the socket of the operator; nil: none is passed on.
	Control *SocketFile
	// NotifySocket is where systemd listens, and Watchdog how often it wants to be told that all is well. It tells only the
	// process that it has started. Empty and 0: it has told nothing.
	NotifySocket string
	Watchdog     time.Duration
}

// handover is one that goes on, in the process that ends. Loops queue clients, and one goroutine passes them on.
type handover struct {
	gateway *Gateway
	conn    *net.UnixConn
	timeout time.Duration // for what is in flight
	paused  bool          // this process accepts nobody, and reads from clients only while they are not at rest
	late    bool          // what is in flight is not waited for any more
	rested  *time.Timer   // since begin
	overdue *time.Timer   // likewise, or since the last look at what is left when it is late

	answers chan error // of awaitTaken, called all the time, so that the end of the other process is noticed in any case

	mu      sync.Mutex
	queue   []*passing
	arrived chan struct{} // has room for one notice that queue has grown
}

// passing is a client on its way: out of its loop, with its descriptor still open here.
type passing struct {
	session *session
	in, out []byte
}

// errHandoverEnded says that EndHandover was called.
var errHandoverEnded = errors.New("this process was told to stop")

// HandOver passes the socket, the legacy and the clients to the process that takes over on conn: see [Gateway.TakeClients]. When
// the other process is about to accept clients, accepting is called. Requests that are not answered within timeout are answered
// SHUTTING_DOWN. It waits for the other process as long as that lives, and serves what is left meanwhile.
//
// over says who has the service in the end. If it is the other process, this one has no socket any more, and is to be
// drained and closed; an error then says why there may be clients left. Otherwise the other one has given up or died, and this one
// serves on all clients that were not taken. conn stays the caller's, and is of no more use.
func (g *Gateway) HandOver(conn *net.UnixConn, legacy Legacy, accepting func(), timeout time.Duration) (over bool, err error) {
	g.handingOver.Store(true)
	defer g.handingOver.Store(false)
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if !g.running || g.closed || g.socket == nil || g.draining.Load() {
		return false, errors.New("engine: the gateway does not serve")
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return false, err
	}
	defer cutOff(conn)
	returned := make(chan struct{})
	defer close(returned)
	h := &handover{
		gateway: g, conn: conn, timeout: timeout, answers: make(chan error), arrived: make(chan struct{}, 1),
		rested: time.NewTimer(handoverRest), overdue: time.NewTimer(timeout),
	}
	go h.cutOffAtEnd(returned)
	go h.readAnswers(returned)
	defer h.rested.Stop()
	defer h.overdue.Stop()
	if err := h.passSockets(&legacy); err != nil {
		return false, fmt.Errorf("engine: passing the socket on: %w", err)
	}
	if legacy.Control != nil {
		legacy.Control.borrowed.Store(true)
	}
	accepting()
	if err = h.run(); err != nil {
		cutOff(conn)
		// Without a word from us the other process ends the connection only by its own end.
		over = g.handoverIsToEnd() || !isEnd(err)
		h.takeBack(!over)
		err = fmt.Errorf("engine: passing the clients on: %w", err)
		if !over {
			if legacy.Control != nil {
				legacy.Control.borrowed.Store(false)
			}
			return false, err
		}
	}
	// The paths of the sockets are the other one's from now on.
	closeErr := g.socket.Close()
	g.socket = nil
	return true, errors.Join(err, closeErr)
}

// EndHandover ends a handover that goes on, and forbids others: this process is about to be drained and closed. What the other
// one has taken by then stays there.
func (g *Gateway) EndHandover() { g.handoverEndOnce.Do(func() { close(g.handoverEnd) }) }

func (g *Gateway) handoverIsToEnd() bool {
	select {
	case <-g.handoverEnd:
		return true
	default:
		return false
	}
}

// cutOffAtEnd cuts the connection off when the handover is to end, unless HandOver has returned.
func (h *handover) cutOffAtEnd(returned <-chan struct{}) {
	select {
	case <-h.gateway.handoverEnd:
		cutOff(h.conn)
	case <-returned:
	}
}

// readAnswers reads what the other process says until that ends, or HandOver has returned.
func (h *handover) readAnswers(returned <-chan struct{}) {
	for {
		err := awaitTaken(h.conn)
		select {
		case h.answers <- err:
		case <-returned:
			return
		}
		if err != nil {
			return
		}
	}
}

// cutOff ends the connection of a handover in both directions. What the other process has acknowledged before can still be read.
func cutOff(conn *net.UnixConn) {
	_ = conn.CloseRead()
	_ = conn.CloseWrite()
}

// isEnd reports whether err is that of a connection whose other end is gone.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// passSockets passes the listening socket and the legacy on. This process goes on as before until they are taken.
func (h *handover) passSockets(legacy *Legacy) error {
	meta := passedSockets{
		Main: h.gateway.socket.described(), HasProbe: legacy.Probe != nil, ProbeAddress: legacy.ProbeAddress,
		NotifySocket: legacy.NotifySocket, Watchdog: legacy.Watchdog,
	}
	files := []*os.File{h.gateway.socket.File}
	if legacy.Probe != nil {
		files = append(files, legacy.Probe)
	}
	if legacy.Control != nil {
		control := legacy.Control.described()
		meta.Control = &control
		files = append(files, legacy.Control.File)
	}
	in, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	return h.send(func() error { return sendFiles(h.conn, message{kind: messageSockets, in: in}, files...) }, nil)
}

// send calls send for a message, and waits until it is taken. If that takes long it says so, and calls meanwhile if it is not
// nil.
func (h *handover) send(send func() error, meanwhile func()) error {
	sent := make(chan error, 1)
	go func() { sent <- send() }()
	patience := time.NewTimer(handoverPatience)
	defer patience.Stop()
	for {
		select {
		case err := <-h.answers:
			return err
		case err := <-sent:
			if err != nil {
				return err
			}
			sent = nil
		case <-patience.C:
			h.gateway.log.Warn("the process that takes over takes nothing at the moment: this one waits for it, and serves what it has left", "peer", credentialsOfConn(h.conn))
			if meanwhile != nil {
				meanwhile()
			}
		}
	}
}

// run passes on every client, and says that this was all.
func (h *handover) run() error {
	if err := h.passAll(); err != nil {
		return err
	}
	// What connects from now on waits for the other process, also if that takes its time.
	return h.send(func() error { return sendMessage(h.conn, message{kind: messageDone}) }, nil)
}

// begin has this process accept nobody, and bring its clients to rest.
func (h *handover) begin() {
	h.paused, h.late = true, false
	h.gateway.pauseAccepting()
	h.each(func(l *loop) { l.beginHandover(h) })
	h.rested.Reset(handoverRest)
	h.overdue.Reset(h.timeout)
}

// takeBack has all that is left here served again, or, without accept, only who is connected.
func (h *handover) takeBack(accept bool) {
	if h.paused {
		h.each((*loop).endHandover)
		h.awaitLoops() // nobody is queued any more
		if accept {
			h.gateway.resumeAccepting()
		}
	} else if !accept {
		h.gateway.pauseAccepting()
	}
	h.paused = false
	for p := h.next(); p != nil; p = h.next() {
		s := p.session
		s.loop.post(func() { s.loop.putBack(s, p.in, p.out) })
	}
}

// awaitLoops returns when every loop has done what it was asked for.
func (h *handover) awaitLoops() {
	for _, l := range h.gateway.loops {
		done := make(chan struct{})
		l.post(func() { close(done) })
		<-done
	}
}

// each has every loop do something soon.
func (h *handover) each(do func(l *loop)) {
	for _, l := range h.gateway.loops {
		l.post(func() { do(l) })
	}
}

func (h *handover) passAll() error {
	g := h.gateway
	poll := time.NewTicker(drainPoll) // for clients that end by themselves
	defer poll.Stop()
	h.begin()
	for g.connections.Load() > 0 {
		if err := h.passQueued(); err != nil {
			return err
		}
		select {
		case <-h.arrived:
		case <-poll.C:
		case <-h.rested.C:
			if !h.late {
				h.each((*loop).restlessGoOn)
			}
		case <-h.overdue.C:
			h.late = true
			h.each((*loop).restAtOnce)
			h.overdue.Reset(handoverRest)
		case err := <-h.answers:
			if err == nil {
				err = errors.New("the other process has taken what was not sent")
			}
			return err
		case <-g.handoverEnd:
			return errHandoverEnded
		}
	}
	return nil
}

// passQueued passes on the clients that are queued. After an error queue holds those that were not taken.
func (h *handover) passQueued() error {
	for {
		p := h.next()
		if p == nil {
			return nil
		}
		if err := h.pass(p); err != nil {
			h.enqueue(p)
			return err
		}
		s := p.session
		_ = unix.Close(s.fd) // the other process has it now
		s.loop.leave(s)
	}
}

func (h *handover) enqueue(p *passing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.queue = append(h.queue, p)
}

// next takes a client from the queue, which it returns; nil: there is none.
func (h *handover) next() *passing {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return nil
	}
	p := h.queue[0]
	h.queue[0] = nil
	h.queue = h.queue[1:]
	return p
}

// pass passes a client on. While the other process does not take it, nobody serves it: it may take it at any moment.
func (h *handover) pass(p *passing) error {
	s := p.session
	m := message{kind: messageClient, in: p.in, out: p.out}
	if s.finishing {
		m.flags |= flagFinishing
	}
	if s.eof {
		m.flags |= flagEOF
	}
	err := h.send(func() error { return sendMessage(h.conn, m, s.fd) }, func() { h.takeBack(true) })
	if err == nil && !h.paused {
		h.begin()
	}
	return err
}

// beginHandover queues every client for h, at once or as soon as it is at rest.
func (l *loop) beginHandover(h *handover) {
	l.handover = h
	l.eachSession(l.rest)
}

// rest stops reading from s, and has it looked at in the end of the pass.
func (l *loop) rest(s *session) {
	if s.finishing {
		l.touch(s)
		return
	}
	l.pause(s, pausedHandover)
}

// restlessGoOn lets clients go on that could not be passed yet.
func (l *loop) restlessGoOn() {
	if l.handover != nil {
		l.eachSession(func(s *session) { l.resume(s, pausedHandover) })
	}
}

// restAtOnce brings every client to rest: the handover has taken too long.
func (l *loop) restAtOnce() {
	if l.handover == nil {
		return
	}
	l.eachSession(l.rest)
	l.refuseInflight()
}

// endHandover has everybody served on.
func (l *loop) endHandover() {
	l.handover = nil
	l.eachSession(func(s *session) { l.resume(s, pausedHandover) })
}

// eachSession calls f for every session that is not on its way out.
func (l *loop) eachSession(f func(s *session)) {
	for _, s := range l.watch.sessions {
		if s != nil && !s.doomed {
			f(s)
		}
	}
}

// passOn queues s for the handover if it is at rest. One that lingers ends here: it has nothing left to be written, and a moment
// to live. REQUIRES: at the end of a pass.
func (l *loop) passOn(s *session) {
	if s.doomed || s.lingers || s.inflight > 0 {
		return
	}
	l.endPeeking(s)
	if s.doomed {
		return
	}
	p := &passing{session: s}
	if s.in != nil {
		p.in = slices.Clone(s.in.B[s.inAt:])
	}
	if s.out != nil {
		p.out = slices.Clone(s.out.B[s.outAt:])
	}
	l.watch.remove(s.fd)
	l.giveBuffers(s)
	s.doomed = true // to this loop
	h := l.handover
	h.enqueue(p)
	select {
	case h.arrived <- struct{}{}:
	default:
	}
}

// putBack takes a session that was not passed on back into its loop.
func (l *loop) putBack(s *session, in, out []byte) {
	again := &session{loop: l, id: s.id, peer: s.peer, rule: s.rule, fd: s.fd, usage: s.usage, watched: unix.EPOLLIN, finishing: s.finishing, eof: s.eof}
	l.enter(again, in, out)
}
