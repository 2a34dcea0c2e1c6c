package engine

// A session is paused while it makes no sense to take more from its client: what the client sent then waits
// in its socket, and the client itself waits once that is full. Nothing is refused, and nothing lost.

// pauseReasons says why a session is not read. There may be several reasons at a time.
type pauseReasons uint8

const (
	// pausedUntilServed is set while a session that may go on has frames left that were read before.
	pausedUntilServed pauseReasons = 1 << iota
)

// pause stops reading from s, and serving what was read, until resume has taken back every reason.
func (l *loop) pause(s *session, why pauseReasons) {
	s.paused |= why
	l.touch(s)
}

// resume takes back reasons to pause s. If none is left, s goes on in the next pass.
func (l *loop) resume(s *session, why pauseReasons) {
	if s.paused&why == 0 {
		return
	}
	if s.paused &^= why; s.paused != 0 {
		return
	}
	// The frames that were read already come first. Here it may be too early for them: callers of
	// this may be in the middle of a delivery.
	s.paused = pausedUntilServed
	l.resumed = append(l.resumed, s)
	l.Wake()
}

// serveResumed serves what sessions that were paused have left, and lets them be read again.
func (l *loop) serveResumed() {
	for i := 0; i < len(l.resumed); i++ {
		s := l.resumed[i]
		l.resumed[i] = nil
		if s.doomed || s.paused&pausedUntilServed == 0 {
			continue
		}
		s.paused &^= pausedUntilServed
		l.touch(s)
		if s.paused == 0 && s.in != nil {
			held := s.in
			s.in = nil
			l.serveAll(s, held.B)
			l.buffers.Release(held)
		}
	}
	l.resumed = l.resumed[:0]
}

// hold keeps bytes of s that were read and are not to be served now.
func (l *loop) hold(s *session, data []byte) {
	if s.in == nil {
		s.in = l.buffers.Acquire()
	}
	s.in.B = append(s.in.B, data...)
}
