package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A handover passes the listening socket, and then each client's connection, to another process, which goes on with
// them where this one stopped; handoverwire.go says how. A client is passed at a moment when nothing of it is in flight, with what
// was read of it and not served, and what waits to be written to it. It notices nothing.
//
// Such a moment is made by not reading from clients. One whose requests take long is read again after a short while,
// so that its next ones do not wait for them, and passed when it comes to rest by itself, or at the end of the drain.

const (
	// handoverRest is how long clients are not read at first: most are at rest long before.
	handoverRest = 100 * time.Millisecond
	// handoverWait bounds the wait for the other process to take something.
	handoverWait = 10 * time.Second
)

// handover is one that goes on, in the process that ends. Loops queue clients, and one goroutine passes them on.
type handover struct {
	gateway *Gateway
	conn    *net.UnixConn

	mu      sync.Mutex
	queue   []*passing
	arrived chan struct{} // has room for one notice that queue has grown
}

// passing is a client on its way: out of its loop, with its descriptor still open here.
type passing struct {
	session *session
	in, out []byte
}

// HandOver passes the socket and the clients to the process that takes over on conn: see [Gateway.TakeClients]. The probe's
// listener goes with them if it is not nil; probeAddress is the setting that it was made by. When the other process accepts
// clients, accepting is called. Requests that are not answered within timeout are answered SHUTTING_DOWN. After an error
// the gateway serves on, all clients that the other process has not taken. After success it has no clients and no
// socket, and is to be drained and closed. conn stays the caller's.
func (g *Gateway) HandOver(conn *net.UnixConn, probe *os.File, probeAddress string, accepting func(), timeout time.Duration) error {
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if !g.running || g.closed || g.socket == nil || g.draining.Load() {
		return errors.New("engine: the gateway does not serve")
	}
	if err := g.handOverSockets(conn, probe, probeAddress); err != nil {
		return fmt.Errorf("engine: passing the socket on: %w", err)
	}
	// Both accept now. What this one has accepted is passed on like all others.
	accepting()
	g.acceptor.leaveRest.Store(true)
	_ = g.socket.SetDeadline(time.Now())
	g.accepting.Wait()
	h := &handover{gateway: g, conn: conn, arrived: make(chan struct{}, 1)}
	if err := h.run(timeout); err != nil {
		g.acceptor.leaveRest.Store(false)
		_ = g.socket.SetDeadline(time.Time{})
		g.accepting.Go(g.acceptor.run)
		return fmt.Errorf("engine: passing the clients on: %w", err)
	}
	err := g.socket.Close()
	g.socket = nil // its path is not ours to remove any more
	return err
}

// handOverSockets passes the listening socket on, and the probe's if there is one.
func (g *Gateway) handOverSockets(conn *net.UnixConn, probe *os.File, probeAddress string) error {
	s := g.socket
	meta, err := json.Marshal(passedSocket{Path: s.path, Device: s.device, Inode: s.inode, Adopted: s.adopted, Probe: probeAddress})
	if err != nil {
		return err
	}
	files := []*os.File{s.File}
	if probe != nil {
		files = append(files, probe)
	}
	return pass(conn, message{kind: messageSockets, in: meta}, files...)
}

// run passes on every client, and says that this was all. After an error those that are left are served on.
func (h *handover) run(timeout time.Duration) error {
	err := h.passAll(timeout)
	if err == nil {
		err = pass(h.conn, message{kind: messageDone})
	}
	if err != nil {
		h.each((*loop).endHandover)
		h.putBack()
	}
	return err
}

// each has every loop do something soon.
func (h *handover) each(do func(l *loop)) {
	for _, l := range h.gateway.loops {
		l.post(func() { do(l) })
	}
}

func (h *handover) passAll(timeout time.Duration) error {
	g := h.gateway
	h.each(func(l *loop) { l.beginHandover(h) })
	rested, late := time.NewTimer(handoverRest), time.NewTimer(timeout)
	defer rested.Stop()
	defer late.Stop()
	poll := time.NewTicker(drainPoll) // for clients that end by themselves
	defer poll.Stop()
	for g.connections.Load() > 0 {
		if err := h.passQueued(); err != nil {
			return err
		}
		select {
		case <-h.arrived:
		case <-poll.C:
		case <-rested.C:
			h.each((*loop).restlessGoOn)
		case <-late.C:
			h.each((*loop).restAtOnce)
		}
	}
	return nil
}

// passQueued passes on the clients that are queued. After an error queue holds those that were not taken.
func (h *handover) passQueued() error {
	for {
		h.mu.Lock()
		if len(h.queue) == 0 {
			h.mu.Unlock()
			return nil
		}
		p := h.queue[0]
		h.mu.Unlock()
		if err := h.pass(p); err != nil {
			return err
		}
		h.mu.Lock()
		h.queue = h.queue[1:]
		h.mu.Unlock()
		s := p.session
		_ = unix.Close(s.fd) // the other process has it now
		s.loop.leave(s)
	}
}

func (h *handover) pass(p *passing) error {
	return passDescriptors(h.conn, message{kind: messageClient, in: p.in, out: p.out}, p.session.fd)
}

// putBack gives the clients that were not taken back to their loops.
func (h *handover) putBack() {
	for _, l := range h.gateway.loops {
		done := make(chan struct{})
		l.post(func() { close(done) }) // endHandover has run: nobody is queued any more
		<-done
	}
	h.mu.Lock()
	queue := h.queue
	h.queue = nil
	h.mu.Unlock()
	for _, p := range queue {
		s := p.session
		s.loop.post(func() { s.loop.putBack(s, p.in, p.out) })
	}
}

// beginHandover queues every client for h, at once or as soon as it is at rest.
func (l *loop) beginHandover(h *handover) {
	l.handover = h
	l.eachSession(func(s *session) {
		l.pause(s, pausedHandover)
	})
}

// restlessGoOn lets clients go on that could not be passed yet.
func (l *loop) restlessGoOn() {
	l.eachSession(func(s *session) {
		if l.handover != nil {
			l.resume(s, pausedHandover)
		}
	})
}

// restAtOnce brings every client to rest: the handover has taken too long.
func (l *loop) restAtOnce() {
	if l.handover == nil {
		return
	}
	l.eachSession(func(s *session) { l.pause(s, pausedHandover) })
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
		if s != nil && !s.doomed && !s.finishing {
			f(s)
		}
	}
}

// passOn queues s for the handover if it is at rest. REQUIRES: at the end of a pass.
func (l *loop) passOn(s *session) {
	if s.doomed || s.finishing || s.inflight > 0 {
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
	h.mu.Lock()
	h.queue = append(h.queue, p)
	h.mu.Unlock()
	select {
	case h.arrived <- struct{}{}:
	default:
	}
}

// putBack takes a session that was not passed on back into its loop.
func (l *loop) putBack(s *session, in, out []byte) {
	again := &session{loop: l, id: s.id, peer: s.peer, rule: s.rule, fd: s.fd, usage: s.usage, watched: unix.EPOLLIN}
	l.enter(again, in, out)
}
