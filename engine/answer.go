package engine

import (
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// Answers go to one of three places. Version 2, and version 1 if it is the session's turn: into
// the session's out buffer. Version 1 before its turn: into a buffer of its slot. Version 1 that
// needed no slot (PONG, a refusal) behind ones that did: behind the answer of the last of them.

// answerBuffer returns where the answer of r goes; answered must follow.
func (l *loop) answerBuffer(h pool.Handle, r *request) *pool.Buffer {
	if r.version == codec.Version1 && r.session.orderFirst != h.Index()+1 {
		r.answer = l.buffers.Acquire()
		return r.answer
	}
	return l.outBuffer(r.session)
}

// immediateBuffer returns where the answer to a frame without a slot goes; queued must follow.
func (l *loop) immediateBuffer(s *session, version byte) *pool.Buffer {
	if version != codec.Version1 || s.orderLast == 0 {
		return l.outBuffer(s)
	}
	_, last := l.slots.At(s.orderLast - 1)
	if last.trailing == nil {
		last.trailing = l.buffers.Acquire()
	}
	return last.trailing
}

func (l *loop) outBuffer(s *session) *pool.Buffer {
	if s.out == nil {
		s.out = l.buffers.Acquire()
	}
	return s.out
}

// queued accounts for the bytes of an answer that were appended to one of s's buffers. A client
// that lets too many of them wait is closed, after one more try to write them.
func (l *loop) queued(s *session, label uint8, outcome uint8, bytes int, took int64) {
	l.counters.responses[outcome].Add(1)
	l.counters.observe(label, took)
	if outcome != outcomeOK {
		l.recentErrors.note(l.now, s, label, outcome)
	}
	s.bufferedBytes += bytes
	l.buffered += bytes
	l.touch(s)
	l.noteBuffered(s)
	if s.bufferedBytes > l.policy.MaxClientBufferBytes {
		l.writeOut(s)
		if s.bufferedBytes > l.policy.MaxClientBufferBytes && !s.doomed {
			l.counters.slowClientsClosed.Add(1)
			l.log.Warn("client is closed: it does not read its answers", "client", s.id, "bytes_waiting", s.bufferedBytes)
			l.doom(s)
		}
	}
}

// answered ends r, whose answer was appended to the buffer that answerBuffer gave.
func (l *loop) answered(h pool.Handle, r *request, outcome uint8, bytes int) {
	s := r.session
	if r.watched&watchedByAudit != 0 {
		l.auditOver(h, r, auditCodes[outcome], bytes)
	}
	l.queued(s, r.label, outcome, bytes, l.now-r.startedAt)
	l.judge(r, outcome)
	if r.watched&watchedByTrace != 0 {
		l.endTrace(h, r, errorLabel(outcome), bytes)
	}
	if r.version != codec.Version1 {
		l.releaseRequest(h, r)
		return
	}
	if r.answer != nil {
		r.state = waitsForTurn
		if r.held.bytes != nil {
			l.dropMessage(r)
		}
		l.deadlines.remove(h.Index())
		return
	}
	l.nextTurn(s)
}

// nextTurn ends the first version 1 request in order, whose answer is in out, and every one behind
// it that is answered already.
func (l *loop) nextTurn(s *session) {
	for {
		h, r := l.slots.At(s.orderFirst - 1)
		if r.answer != nil {
			out := l.outBuffer(s)
			out.B = append(out.B, r.answer.B...)
		}
		if r.trailing != nil {
			out := l.outBuffer(s)
			out.B = append(out.B, r.trailing.B...)
		}
		s.orderFirst = r.orderNext
		l.releaseRequest(h, r)
		if s.orderFirst == 0 {
			s.orderLast = 0
			return
		}
		if _, r = l.slots.At(s.orderFirst - 1); r.state != waitsForTurn {
			return
		}
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
	before := len(b.B)
	b.B = codec.AppendFrame(b.B, &codec.Frame{
		Version: r.version, Type: codec.TypeResponseError, CorrelationID: r.correlationID,
		Headers: headers, Payload: l.scratch,
	})
	l.answered(h, r, outcomeOf(code), len(b.B)-before)
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
	l.queued(s, label, outcome, len(b.B)-before, 0)
}
