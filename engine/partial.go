package engine

import (
	"github.com/aigroup/ipc-gateway/codec"
)

// A client that sends a part of a frame and no more holds a buffer. Sessions with such a part are looked at now
// and then: often enough that none stays for more than Config.FrameTimeout and a quarter of it.

// hold keeps bytes of s that were read and are not to be served now.
func (l *loop) hold(s *session, data []byte) {
	if s.in == nil {
		s.in, s.inAt, s.inReadAt = l.buffers.Acquire(), 0, l.now
		l.notePartial(s)
	}
	s.in.B = append(s.in.B, data...)
}

// notePartial begins the time that the client of s has to complete its frame.
func (l *loop) notePartial(s *session) {
	s.partialSince = l.now
	if s.inPartials || l.policy.FrameTimeout == 0 {
		return
	}
	if len(l.partials) == 0 {
		l.partialsLook = l.now + l.partialsLookEvery()
		l.rearm = true
	}
	s.inPartials = true
	l.partials = append(l.partials, s)
}

func (l *loop) partialsLookEvery() int64 { return max(int64(l.policy.FrameTimeout)/4, wheelTickNanos) }

// followFrameTimeout makes a new policy count for clients that have begun a frame already. Where there was no bound before their
// time begins now.
func (l *loop) followFrameTimeout() {
	for _, s := range l.watch.sessions {
		if s != nil && s.in != nil && !s.inPartials && !s.doomed {
			l.notePartial(s)
		}
	}
	l.partialsLook = min(l.partialsLook, l.now+l.partialsLookEvery())
	l.rearm = true
}

// timeOutPartials ends the connections whose clients have not completed a frame in time.
func (l *loop) timeOutPartials() {
	if len(l.partials) == 0 || l.now < l.partialsLook {
		return
	}
	timeout := int64(l.policy.FrameTimeout)
	kept := l.partials[:0]
	for _, s := range l.partials {
		if s.paused != 0 {
			s.partialSince = l.now // it is we who do not read
		}
		if s.in != nil && !s.doomed && timeout != 0 && l.now-s.partialSince >= timeout {
			l.rejectPartial(s)
		}
		if s.in == nil || s.doomed || timeout == 0 {
			s.inPartials = false
			continue
		}
		kept = append(kept, s)
	}
	clear(l.partials[len(kept):])
	l.partials = kept
	l.partialsLook = l.now + l.partialsLookEvery()
	l.rearm = true
}

// rejectPartial answers a frame that was not completed in time, and ends the connection.
func (l *loop) rejectPartial(s *session) {
	f := codec.PartialHeader(s.in.B)
	l.counters.frameTimeouts.Add(1)
	l.counters.requests[labelInvalid].Add(1)
	l.readAt = l.now
	l.text = append(l.text[:0], "the frame was not complete after "...)
	l.text = appendMillis(l.text, uint32(l.policy.FrameTimeout.Milliseconds()))
	l.scratch = codec.AppendError(l.scratch[:0], codec.CodeInvalidPayload, l.text, false)
	l.answerFrame(s, &f, labelInvalid, outcomeOf(codec.CodeInvalidPayload), codec.TypeResponseError, l.scratch)
	s.finish()
}
