package engine

import (
	"golang.org/x/sys/unix"
)

// pass serves everything that is ready, and then writes what came of it, once for each socket.
func (l *loop) pass() {
	events, err := l.watch.ready()
	if err != nil {
		panic(err) // the set is ours alone: only a bug can spoil it
	}
	l.readClock()
	l.turnTick()
	woken := false
	for i := range events {
		switch key := events[i].Fd; key {
		case wakeKey:
			woken = true
		case linkKey:
			l.link.Flush()
		default:
			l.serveClient(l.watch.sessions[key], events[i].Events)
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

// onWake does what the loop was woken for: a deadline is due, nats.go has written something, another
// goroutine wants something, or a connection is to be closed at the end of the pass.
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
		return
	}
	if events&unix.EPOLLIN == 0 || s.eof {
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			l.doom(s)
		}
		return
	}
	n, err := unix.Read(s.fd, l.readBuffer)
	switch {
	case n > 0:
		l.read(s, l.readBuffer[:n])
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
