package engine

import (
	"runtime/debug"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/trace"
)

// A panic in the work on one frame, or on one reply, is a bug, and ends there: its request is answered INTERNAL unless it
// has its answer already, and the others go on. A panic in that answer ends the process.

const internalError = "internal error of the gateway"

// recovered logs and counts a panic.
func (l *loop) recovered(reason any, span *trace.Span) {
	l.counters.internalErrors.Add(1)
	l.logFor(span).Error("internal error: this is a bug", "error", reason, "stack", string(debug.Stack()))
}

// recoverFrame ends the frame that is being served, if that work panicked.
func (l *loop) recoverFrame(s *session, f *codec.Frame) {
	reason := recover()
	if reason == nil {
		return
	}
	l.recovered(reason, l.traced)
	l.cutAnswer()
	w := l.serving
	r := l.slots.Get(w.handle)
	if r != nil && r.session != nil {
		l.fail(w.handle, r, codec.CodeInternal, internalError, true)
		return
	}
	if r != nil {
		l.giveSlot(w.handle, r, s)
	}
	if !w.answered {
		l.refuseInternal(s, f, w)
	}
}

// refuseInternal ends a frame that is not in flight.
func (l *loop) refuseInternal(s *session, f *codec.Frame, w servedFrame) {
	if !w.sent {
		l.refusePublish(s, f, w.label, codec.CodeInternal, internalError)
		return
	}
	if f.Flags&codec.FlagNoReply != 0 {
		return
	}
	l.scratch = codec.AppendError(l.scratch[:0], codec.CodeInternal, internalError, true)
	l.answerFrame(s, f, w.label, outcomeOf(codec.CodeInternal), codec.TypeResponseError, l.scratch)
}

// recoverDelivery ends the request whose reply is being delivered, if that work panicked.
func (l *loop) recoverDelivery(h pool.Handle) {
	reason := recover()
	if reason == nil {
		return
	}
	r := l.slots.Get(h)
	var span *trace.Span
	if r != nil && r.watched&watchedByTrace != 0 {
		span = l.span(h)
	}
	l.recovered(reason, span)
	l.cutAnswer()
	switch {
	case r == nil: // it was over
	case r.state == waitsForTurn:
		l.settle(h, r) // it has its answer
	default:
		l.fail(h, r, codec.CodeInternal, internalError, true)
	}
}
