package engine

import (
	"golang.org/x/sys/unix"
)

// flushSession writes what waits for s, and ends s if that was the last of it.
func (l *loop) flushSession(s *session) {
	if s.doomed || s.gone {
		return
	}
	if !s.blocked {
		l.writeOut(s)
	}
	if s.doomed {
		return
	}
	if s.finishing && !s.waitsForAnswers() {
		l.end(s)
		return
	}
	if s.conn == nil && !s.blocked {
		// gnet no longer watches the socket: the client may close it before it is answered.
		l.await(s, false)
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
			s.bufferedBytes -= n
			l.buffered -= n
			l.counters.clientBytesOut.Add(uint64(n))
			continue
		}
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			l.keepRest(s)
			s.blocked = true
			l.await(s, true)
			return
		}
		l.doom(s) // EPIPE: the client is gone
		return
	}
	s.blocked = false
	l.buffers.Release(s.out)
	s.out, s.outAt = nil, 0
}

// keepRest moves the unwritten bytes of s to the front of its buffer once they are the smaller part.
func (l *loop) keepRest(s *session) {
	if s.outAt > len(s.out.B)/2 {
		s.out.B = s.out.B[:copy(s.out.B, s.out.B[s.outAt:])]
		s.outAt = 0
	}
}

// await asks for a writable event for s. Without output, it only asks to be told of a hang-up.
func (l *loop) await(s *session, output bool) {
	if err := l.gateway.writability.await(l.index, s.id, s.fd, output); err != nil {
		l.log.Error("client is closed: cannot watch its socket", "client", s.id, "error", err)
		l.doom(s)
	}
}

// flushUpstream writes the batch for NATS, at once or at the end of the pass with what other
// clients add. At once serves a client that is alone best: nothing else is in flight, and the last
// batch was not shared either. Where the last one was shared, requests come in waves, and the
// first of a wave does better to wait for the others: it costs them 0.9x the CPU at 16 clients.
func (l *loop) flushUpstream(inflightBefore int) {
	if !l.link.Pending() {
		return
	}
	alone := inflightBefore == 0 && l.link.LastBatch() <= 1
	if alone || l.link.PendingBytes() >= flushBytes {
		l.link.Flush()
		return
	}
	l.Wake()
}
