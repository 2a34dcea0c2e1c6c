package engine

import (
	"golang.org/x/sys/unix"
)

// run turns the loop until gnet has something to do. It does not return while there are only clients and replies to serve:
// that goes past gnet.
func (l *loop) run() {
	for l.visits.Load() == 0 {
		l.pass(len(l.resumed) == 0)
	}
	l.pass(false)
}

// pass serves everything that is ready, and then writes what came of it, once for each socket. With block it waits until
// there is something.
func (l *loop) pass(block bool) {
	events := l.watch.wait(block)
	l.readClock()
	l.turnTick()
	woken := false
	for i := range events {
		e := &events[i]
		switch e.Pad {
		case wakeKind:
			woken = true
		case wireKind:
			l.serveWire(int(e.Fd), e.Events)
		default:
			l.serveClient(l.watch.sessions[e.Fd], e.Events)
		}
	}
	if woken {
		l.onWake()
	}
	l.resumeWaiting()
	l.serveResumed()
	l.sendHeldAgain()
	if l.link.Pending() {
		l.link.Flush()
	}
	l.endPass()
	l.reap()
}

// onWake does what the loop was woken for: a deadline is due, nats.go has written something, or another goroutine wants
// something.
func (l *loop) onWake() {
	l.watch.waking.Store(false) // before looking, so that no later wake is missed
	if l.mailbox.waiting.Swap(false) {
		l.runMailbox()
	}
	if l.budget.shared.starving.Load() > 0 {
		l.budget.giveAll()
	}
	l.link.Service()
	l.fireDeadlines()
}

// serveClient reads once from a client that sent something, and goes on writing to one whose socket
// was full. Reading once keeps one client from holding up the others.
func (l *loop) serveClient(s *session, events uint32) {
	if s == nil || s.doomed {
		return
	}
	if events&unix.EPOLLOUT != 0 {
		s.blocked = false
		l.touch(s)
	}
	if s.paused != 0 {
		if events&unix.EPOLLHUP != 0 && s.paused&pausedAnswers != 0 {
			s.blocked = false // nobody will read what waits for it: the next write says so
			l.touch(s)
		}
		l.endPeeking(s) // so that the event comes again
		return
	}
	if events&unix.EPOLLIN == 0 || s.eof {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			l.doom(s)
		}
		return
	}
	if s.peeks {
		l.peekClient(s, events)
		return
	}
	n, err := unix.Read(s.fd, l.readBuffer)
	switch {
	case n > 0:
		atRest, since := s.inflight == 0 && s.in == nil, s.usage.activeAt
		l.read(s, l.readBuffer[:n])
		l.noteRhythm(s, atRest && n < peekBytesMax, since)
		if s.out != nil && s.inflight == 0 && !s.blocked {
			// All is answered: at once, the client is often still awake. Reading has woken it, see peek.go.
			l.writeOut(s)
		}
	case err == unix.EAGAIN || err == unix.EINTR:
	case err == nil && events&unix.EPOLLHUP == 0 && !s.lingers && s.waitsForAnswers():
		// Only the writing side is shut down: the answers are still wanted.
		s.eof = true
		s.finish()
	default:
		l.doom(s)
	}
}

// endPass writes to every client what was queued for it since the last time.
func (l *loop) endPass() {
	for i := 0; i < len(l.dirty); i++ {
		s := l.dirty[i]
		s.dirty = false
		l.flushSession(s)
		if l.handover != nil {
			l.passOn(s)
		}
		l.dirty[i] = nil
	}
	l.dirty = l.dirty[:0]
	l.counters.clientBytesBuffered.Store(uint64(l.buffered))
	l.link.CountBuffered()
	if l.audit != nil {
		l.audit.Flush()
	}
	if l.rearm {
		l.rearm = false
		l.armTicker()
	}
}
