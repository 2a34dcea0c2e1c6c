package engine

import (
	"golang.org/x/sys/unix"
)

// flushSession writes what waits for s, and ends s if that was the last of it.
func (l *loop) flushSession(s *session) {
	if s.doomed {
		return
	}
	if !s.blocked {
		l.writeOut(s)
	}
	if s.doomed {
		return
	}
	l.watchFor(s)
	if s.finishing && !s.waitsForAnswers() {
		l.end(s)
	}
}

// writeOut writes what waits for s, as far as its socket takes it.
func (l *loop) writeOut(s *session) {
	if s.out == nil || s.doomed {
		return
	}
	for s.outAt < len(s.out.B) {
		n, err := unix.Write(s.fd, s.out.B[s.outAt:])
		if n > 0 {
			s.outAt += n
			s.tookAt = l.now
			s.bufferedBytes -= n
			s.orderBytes = min(s.orderBytes, s.bufferedBytes)
			l.buffered -= n
			l.noteBuffered(s)
			l.counters.clientBytesOut.Add(uint64(n))
			s.usage.wrote(l.now, n)
			continue
		}
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			l.keepRest(s)
			if !s.blocked {
				s.blocked = true
				l.noteStuck(s)
			}
			l.takeSomePeeked(s)
			return
		}
		l.doom(s) // EPIPE: the client is gone
		return
	}
	s.blocked = false
	l.buffers.Release(s.out)
	s.out, s.outAt = nil, 0
	l.takeSomePeeked(s)
}

// keepRest moves the unwritten bytes of s to the front of its buffer once they are the smaller part.
func (l *loop) keepRest(s *session) {
	if s.outAt > len(s.out.B)/2 {
		s.out.B = s.out.B[:copy(s.out.B, s.out.B[s.outAt:])]
		s.outAt = 0
	}
}

// watchFor sets what the socket of s is watched for. A hang-up is told in any case, of a paused client
// only once: it may have left frames behind that are served when it goes on.
func (l *loop) watchFor(s *session) {
	var events uint32
	switch {
	case s.paused&^pausedUntilServed != 0:
		events |= unix.EPOLLET
	case s.peeks:
		events |= unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	case !s.eof:
		events |= unix.EPOLLIN
	}
	if s.blocked {
		events |= unix.EPOLLOUT
	}
	if events == s.watched {
		return
	}
	s.watched = events
	if err := l.watch.control(unix.EPOLL_CTL_MOD, s.fd, events, clientKind); err != nil {
		l.log.Error("client is closed: cannot watch its socket", "client", s.id, "error", err)
		l.doom(s)
	}
}
