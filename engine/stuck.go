package engine

// A client that takes nothing holds answers, and, once it is paused, nothing makes more of them that would go over its
// bound. So there is a bound in time as well. Sessions whose socket was full are looked at now and then: often enough that none
// whose client takes nothing stays for more than Config.ClientWriteTimeout and a quarter of it.

// noteStuck begins the time that the client of s, whose socket is full, has to take something.
func (l *loop) noteStuck(s *session) {
	s.tookAt = l.now
	if s.inStuck || l.policy.ClientWriteTimeout == 0 {
		return
	}
	if len(l.stuck) == 0 {
		l.stuckLook = l.now + l.stuckLookEvery()
		l.rearm = true
	}
	s.inStuck = true
	l.stuck = append(l.stuck, s)
}

func (l *loop) stuckLookEvery() int64 {
	return max(int64(l.policy.ClientWriteTimeout)/4, wheelTickNanos)
}

// closeStuck closes the clients that have taken nothing for too long.
func (l *loop) closeStuck() {
	if len(l.stuck) == 0 || l.now < l.stuckLook {
		return
	}
	timeout := int64(l.policy.ClientWriteTimeout)
	kept := l.stuck[:0]
	for _, s := range l.stuck {
		l.writeOut(s) // a client that takes little makes room long before the socket says that there is some
		if s.blocked && !s.doomed && timeout != 0 && l.now-s.tookAt >= timeout {
			l.closeSlow(s)
		}
		if s.blocked && !s.doomed && timeout != 0 {
			kept = append(kept, s)
			continue
		}
		s.inStuck = false
		l.touch(s)
	}
	clear(l.stuck[len(kept):])
	l.stuck = kept
	l.stuckLook = l.now + l.stuckLookEvery()
	l.rearm = true
}

// followWriteTimeout makes a new policy count for clients that take nothing already.
func (l *loop) followWriteTimeout() {
	for _, s := range l.watch.sessions {
		if s != nil && s.blocked && !s.doomed {
			l.noteStuck(s)
		}
	}
	l.stuckLook = min(l.stuckLook, l.now+l.stuckLookEvery())
	l.rearm = true
}
