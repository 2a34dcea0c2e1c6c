package engine

import (
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// Answers go to one of three places. Version 2, and version 1 if it is the session's turn: into
// the session's out buffer. Version 1 before its turn: into a buffer of its slot. Version 1 that
// needed no slot (PONG, a refusal) behind ones that did: behind the answer of the last of them.

// unfinishedAnswer is where an answer is being appended, should that work panic.
type unfinishedAnswer struct {
	buffer *pool.Buffer // nil: there is none
	before int          // the buffer's length without it
}

// answerBuffer returns where the answer of r goes; answered must follow.
func (l *loop) answerBuffer(h pool.Handle, r *request) *pool.Buffer {
	if r.version != codec.Version1 || r.session.orderFirst == h.Index()+1 {
		return l.beginAnswer(l.outBuffer(r.session))
	}
	if r.answer == nil {
		r.answer = l.buffers.Acquire()
	}
	return l.beginAnswer(r.answer)
}

// immediateBuffer returns where the answer to a frame without a slot goes; appended must follow.
func (l *loop) immediateBuffer(s *session, version byte) *pool.Buffer {
	if version != codec.Version1 || s.orderLast == 0 {
		return l.beginAnswer(l.outBuffer(s))
	}
	_, last := l.slots.At(s.orderLast - 1)
	if last.trailing == nil {
		last.trailing = l.buffers.Acquire()
	}
	return l.beginAnswer(last.trailing)
}

func (l *loop) outBuffer(s *session) *pool.Buffer {
	if s.out == nil {
		s.out = l.buffers.Acquire()
	}
	return s.out
}

func (l *loop) beginAnswer(b *pool.Buffer) *pool.Buffer {
	l.unfinished = unfinishedAnswer{b, len(b.B)}
	return b
}

// appended accounts for the answer that was appended to a buffer of s, and returns its length. From now on it is the
// one that the client gets, whatever happens.
func (l *loop) appended(s *session) (bytes int) {
	b := l.unfinished.buffer
	bytes = len(b.B) - l.unfinished.before
	l.unfinished.buffer = nil
	s.bufferedBytes += bytes
	l.buffered += bytes
	if b != s.out {
		s.orderBytes += bytes
	}
	return bytes
}

// cutAnswer takes back what was appended of an answer that is not whole.
func (l *loop) cutAnswer() {
	if b := l.unfinished.buffer; b != nil {
		b.B = b.B[:l.unfinished.before]
		l.unfinished.buffer = nil
	}
}

// queued counts an answer of s that was appended. A client that lets too many bytes wait is closed, after one more
// try to write them; what had to wait for its turn is not its fault.
func (l *loop) queued(s *session, label uint8, outcome uint8) {
	l.counters.responses[outcome].Add(1)
	if outcome != outcomeOK {
		l.recentErrors.note(l.now, s, label, outcome)
	}
	l.touch(s)
	l.noteBuffered(s)
	if s.bufferedBytes-s.orderBytes > l.policy.MaxClientBufferBytes {
		l.writeOut(s)
		if s.bufferedBytes-s.orderBytes > l.policy.MaxClientBufferBytes && !s.doomed {
			l.closeSlow(s)
		}
	}
}

// closeSlow closes a client that does not take its answers.
func (l *loop) closeSlow(s *session) {
	l.counters.slowClientsClosed.Add(1)
	l.log.Warn("client is closed: it does not read its answers", "client", s.id, "peer", s.peer, "bytes_waiting", s.bufferedBytes)
	l.doom(s)
}

// answered ends r, whose answer was appended to the buffer that answerBuffer gave.
func (l *loop) answered(h pool.Handle, r *request, outcome uint8) {
	s := r.session
	if r.watched&watchedByAudit != 0 {
		l.auditOver(h, r, auditCodes[outcome], len(l.unfinished.buffer.B)-l.unfinished.before)
	}
	bytes := l.appended(s)
	r.state = waitsForTurn
	l.counters.observe(r.label, l.now-r.readAt)
	l.queued(s, r.label, outcome)
	l.judge(r, outcome)
	if r.watched&watchedByTrace != 0 {
		l.endTrace(h, r, errorLabel(outcome), bytes)
	}
	l.settle(h, r)
}

// settle lets go of r, which is answered, unless its answer has to wait for its turn.
func (l *loop) settle(h pool.Handle, r *request) {
	switch {
	case r.version != codec.Version1:
		l.releaseRequest(h, r)
	case r.session.orderFirst == h.Index()+1:
		l.nextTurn(r.session)
	default:
		if r.held.bytes != nil {
			l.dropMessage(r)
		}
		l.deadlines.remove(h.Index())
	}
}

// fail answers r with an error.
func (l *loop) fail(h pool.Handle, r *request, code codec.ErrorCode, message string, sent bool) {
	l.scratch = codec.AppendError(l.scratch[:0], code, message, sent)
	l.answerScratch(h, r, code, nil)
}

// answerScratch answers r with the error object in scratch.
func (l *loop) answerScratch(h pool.Handle, r *request, code codec.ErrorCode, headers []byte) {
	if r.watched&watchedByTrace != 0 {
		l.scratch = withTrace(l.scratch, l.span(h))
	}
	b := l.answerBuffer(h, r)
	b.B = codec.AppendFrame(b.B, &codec.Frame{
		Version: r.version, Type: codec.TypeResponseError, CorrelationID: r.correlationID,
		Headers: headers, Payload: l.scratch,
	})
	l.answered(h, r, outcomeOf(code))
}

// refuse answers a frame that got no slot with an error. Nothing of it reached NATS.
func (l *loop) refuse(s *session, f *codec.Frame, label uint8, code codec.ErrorCode, message string) {
	l.scratch = codec.AppendError(l.scratch[:0], code, message, false)
	l.answerFrame(s, f, label, outcomeOf(code), codec.TypeResponseError, l.scratch)
}

// answerFrame answers a frame that got no slot.
func (l *loop) answerFrame(s *session, f *codec.Frame, label, outcome uint8, t codec.Type, payload []byte) {
	if l.traced != nil && t == codec.TypeResponseError {
		l.traceRefused(outcome)
		payload = withTrace(payload, l.traced)
	}
	b := l.immediateBuffer(s, f.Version)
	before := len(b.B)
	b.B = codec.AppendFrame(b.B, &codec.Frame{
		Version: f.Version, Type: t, CorrelationID: f.CorrelationID, Payload: payload,
	})
	if l.audit != nil {
		l.auditAnswered(s, f, outcome, len(b.B)-before)
	}
	l.appended(s)
	l.serving.answered = true
	l.queued(s, label, outcome)
}
