package engine

import (
	"errors"
	"strings"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/upstream"
)

// task serves TASK_SUBMIT, TASK_QUERY and TASK_CANCEL: the route says how, and where to unless a
// version 2 frame names a subject.
func (l *loop) task(s *session, f *codec.Frame, label uint8, route *compiledRoute) {
	// A route's subject was checked when it was configured.
	subject, checked := route.subject, true
	if len(f.Subject) != 0 {
		subject, checked = f.Subject, false
	}
	l.publish(s, f, label, subject, checked, route.mode)
}

// direct serves PUBLISH and REQUEST, which only version 2 has.
func (l *loop) direct(s *session, f *codec.Frame, label uint8) {
	if f.Version == codec.Version1 {
		l.refuse(s, f, label, codec.CodeInvalidType, "PUBLISH and REQUEST need version 2 of the protocol")
		return
	}
	mode := l.policy.routes[label].mode
	if f.Type == codec.TypePublish && f.Flags&codec.FlagNoReply == 0 && l.wantsAck(f) {
		mode = ModeJetStream
	}
	l.publish(s, f, label, f.Subject, false, mode)
}

// publish takes a frame into flight: it gets a slot, and its message is queued for NATS. A frame
// that cannot be taken is answered at once, and none of it reaches NATS.
func (l *loop) publish(s *session, f *codec.Frame, label uint8, subject []byte, checked bool, mode Mode) {
	if l.traced != nil {
		l.traceSubject(subject, mode)
	}
	if l.draining {
		l.refusePublish(s, f, label, codec.CodeShuttingDown, "the gateway is shutting down")
		return
	}
	if !checked {
		if err := codec.ValidateSubject(subject); err != nil {
			l.refusePublish(s, f, label, codec.CodeInvalidPayload, plain(err))
			return
		}
	}
	if !l.mayPublish(s, label, subject, checked) {
		l.refuseSubject(s, f, label, "this client may not publish to the subject")
		return
	}
	if err := codec.ValidateHeaders(f.Headers); err != nil {
		l.refusePublish(s, f, label, codec.CodeInvalidPayload, plain(err))
		return
	}
	if !l.mayReach(s, f.Headers) {
		l.refuseSubject(s, f, label, "this client may not reach the subjects that a header for NATS does")
		return
	}
	if l.isOverdue(f) {
		l.refuseOverdue(s, f, label)
		return
	}
	if l.audit != nil && !l.auditServes(f) {
		l.refusePublish(s, f, label, codec.CodeUnavailable, auditFull)
		return
	}
	if !s.rule.takeRate(l.now) {
		l.refusePublish(s, f, label, codec.CodeRateLimited, s.rule.overRate)
		return
	}
	if f.Flags&codec.FlagNoReply != 0 {
		l.publishOnly(s, f, subject)
		return
	}
	if l.breakerRefuses(s, f, label, subject, mode) {
		return
	}
	if s.inflight >= l.policy.MaxInflightPerConnection {
		l.counters.connInflightRefused.Add(1)
		l.refuse(s, f, label, codec.CodeOverloaded, "too many requests are in flight on this connection")
		return
	}
	if !l.takePeer(s) {
		l.refuse(s, f, label, codec.CodeOverloaded, s.rule.overInflight)
		return
	}
	if !l.budget.take() {
		s.rule.giveInflight()
		l.counters.inflightRefused.Add(1)
		l.refuse(s, f, label, codec.CodeOverloaded, "too many requests are in flight in the gateway")
		return
	}
	h, r := l.slots.Acquire()
	l.serving.handle, l.serving.sent = h, true
	end, err := l.queue(h, r, subject, f, mode)
	if err != nil {
		l.serving.sent = false
		l.giveSlot(h, r, s)
		l.refuseUpstream(s, f, label, err)
		return
	}
	l.begin(h, r, s, f, label)
	r.end = end
	l.watchOutcome(r, subject, mode)
	if l.audit != nil {
		l.auditTaken(h, r, s, f)
	}
	if l.traced != nil {
		l.tracePublished(h, r)
	}
	switch mode {
	case ModePublish:
		r.state = waitsForWrite
		l.unwritten = append(l.unwritten, pendingWrite{h, end})
	case ModeJetStream:
		r.state = waitsForAck
	}
}

// publishOnly publishes a frame that wants no answer.
func (l *loop) publishOnly(s *session, f *codec.Frame, subject []byte) {
	l.serving.sent = true
	_, err := l.link.Publish(subject, l.messageHeaders(f), f.Payload, 0, false)
	if err != nil {
		l.serving.sent = false
		l.counters.noReplyRefused.Add(1)
		if errors.Is(err, upstream.ErrFull) {
			l.counters.upstreamFullRefused.Add(1)
		}
	}
	if l.audit != nil {
		l.auditAnswered(s, f, outcomeOfPublish(err), 0)
	}
	if l.traced != nil {
		l.traced.Published, l.traced.Error = l.clock(l.traced), errorLabel(outcomeOfPublish(err))
	}
}

// queue queues the message of a fresh slot for NATS.
func (l *loop) queue(h pool.Handle, r *request, subject []byte, f *codec.Frame, mode Mode) (end uint64, err error) {
	if mode == ModeJetStream {
		return l.holdMessage(h, r, subject, f)
	}
	return l.link.Publish(subject, l.messageHeaders(f), f.Payload, uint64(h), mode == ModeRequest)
}

// plain is err's message for people and clients, who know nothing of our packages.
func plain(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "codec: "), "engine: ")
}

// refusePublish answers a frame that is not published, or counts it if it wants no answer.
func (l *loop) refusePublish(s *session, f *codec.Frame, label uint8, code codec.ErrorCode, message string) {
	if f.Type == codec.TypePublish && f.Flags == codec.FlagNoReply {
		if l.traced != nil {
			l.traceRefused(outcomeOf(code))
		}
		l.counters.noReplyRefused.Add(1)
		if l.audit != nil {
			l.auditAnswered(s, f, outcomeOf(code), 0)
		}
		return
	}
	l.refuse(s, f, label, code, message)
}

// refuseOverdue answers a frame whose deadline has passed while it waited.
func (l *loop) refuseOverdue(s *session, f *codec.Frame, label uint8) {
	l.text = append(l.text[:0], "not sent to NATS within "...)
	l.text = appendMillis(l.text, l.timeoutOf(f))
	l.scratch = codec.AppendError(l.scratch[:0], codec.CodeTimeout, l.text, false)
	l.answerFrame(s, f, label, outcomeOf(codec.CodeTimeout), codec.TypeResponseError, l.scratch)
}

// refuseUpstream answers a frame that the link did not take.
func (l *loop) refuseUpstream(s *session, f *codec.Frame, label uint8, err error) {
	switch {
	case errors.Is(err, upstream.ErrTooLarge):
		l.text = append(l.text[:0], "headers and payload exceed the NATS server's max_payload of "...)
		l.text = appendDecimal(l.text, uint64(l.link.MaxPayload()))
		l.text = append(l.text, " bytes"...)
		l.scratch = codec.AppendError(l.scratch[:0], codec.CodeFrameTooLarge, l.text, false)
		l.answerFrame(s, f, label, outcomeOf(codec.CodeFrameTooLarge), codec.TypeResponseError, l.scratch)
	case errors.Is(err, upstream.ErrNoHeaders):
		l.refuse(s, f, label, codec.CodeInvalidPayload, "the NATS server takes no headers, which every message for JetStream has, too")
	case errors.Is(err, errHeldFull):
		l.counters.jetStreamRefused.Add(1)
		l.refuse(s, f, label, codec.CodeOverloaded, "too many bytes wait for acknowledgements of JetStream")
	case errors.Is(err, errMsgID):
		l.refuse(s, f, label, codec.CodeInvalidPayload, plain(err))
	case errors.Is(err, upstream.ErrFull):
		l.counters.upstreamFullRefused.Add(1)
		l.refuse(s, f, label, codec.CodeOverloaded, "too many bytes wait for NATS")
	default:
		l.refuse(s, f, label, codec.CodeUnavailable, "NATS is not connected")
	}
}
