package engine

import (
	"log/slog"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/upstream"
)

// A sampled request has a span: of the caller's trace, if its headers have a sampled traceparent, or of a new one, if it has none
// and Config.TraceSample picks it. The message for NATS says that the gateway's span is its parent. Spans are filled in the
// table below while their requests are in flight, and end in a queue that somebody else empties. All others are passed on as
// they came, and cost the branches that ask for policy.traces, loop.traced and request.watched.

const (
	// spansMax is how many sampled requests each loop can have in flight; those over it are passed on as if unsampled.
	spansMax = 1024
	// idHeaderBytes is at least what withMsgID makes headers longer by.
	idHeaderBytes = 128
	// outcomeAbandoned is the error of a span whose client has gone before the answer.
	outcomeAbandoned = "ABANDONED"
)

// tracer holds the spans of a loop's requests. A loop that never traced has none.
type tracer struct {
	ids       *trace.IDs
	queue     *trace.Queue
	spans     []trace.Span  // spansMax
	free      []uint16      // indexes of spans
	bySlot    []uint16      // of requests with watchedByTrace: by slot index, the index of the span
	unwritten []pendingSpan // spans whose messages wait to be written, in the order of their offsets
	serving   uint16        // the index of loop.traced
	headers   []byte        // of the message that is being published
}

// pendingSpan is a span in the order in which messages are written. The span may have ended, and another one have its place.
type pendingSpan struct {
	index uint16
	id    trace.SpanID
	end   uint64
}

func newTracer(sink *trace.Sink, slots int) *tracer {
	t := &tracer{
		ids: trace.NewIDs(), queue: sink.NewQueue(), spans: make([]trace.Span, spansMax), bySlot: make([]uint16, slots),
		free: make([]uint16, 0, spansMax),
	}
	for i := range uint16(spansMax) {
		t.free = append(t.free, spansMax-1-i)
	}
	return t
}

// followTracing makes a tracer if the policy wants requests to be traced.
func (l *loop) followTracing() {
	if l.policy.traces && l.tracer == nil {
		l.tracer = newTracer(l.policy.Tracer, l.gateway.cfg.MaxInflight)
	}
}

// startTrace gives the frame that is being served a span, in loop.traced, if it is one for NATS and is sampled.
func (l *loop) startTrace(s *session, f *codec.Frame, label uint8) {
	if !forNATS[f.Type] {
		return
	}
	t := l.tracer
	parent, goesOn := trace.Context{}, false
	if len(f.Headers) != 0 {
		parent, goesOn = trace.ParseHeaders(f.Headers)
	}
	if goesOn && !parent.Sampled() || !goesOn && (l.policy.traceThreshold == 0 || !t.ids.Picks(l.policy.traceThreshold)) {
		return
	}
	if len(t.free) == 0 {
		l.counters.traceDropped.Add(1)
		return
	}
	t.serving = t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	l.traced = &t.spans[t.serving]
	span, offset := l.traced, l.gateway.clock.Offset()
	*span = trace.Span{
		Context: trace.Context{Trace: parent.Trace, Span: t.ids.NewSpan(), Flags: trace.FlagSampled}, Parent: parent.Span,
		Offset: offset, Read: offset + l.readAt, Version: f.Version, Loop: uint16(l.index), UID: s.peer.uid, Client: s.id,
		CorrelationID: f.CorrelationID, PayloadBytes: uint32(len(f.Payload)), Type: TypeLabels[label], Server: l.link.Server(),
	}
	if !goesOn {
		span.Trace = t.ids.NewTrace()
		return
	}
	span.SetState(f.Headers)
}

// traceSubject notes in the span of the frame that is being served where it goes to.
func (l *loop) traceSubject(subject []byte, mode Mode) {
	l.traced.SetSubject(subject)
	switch mode {
	case ModePublish:
		l.traced.Operation = trace.OperationPublish
	case ModeJetStream:
		l.traced.Operation = trace.OperationStore
	}
}

// messageHeaders returns the headers of the message that f is published as: its own, or if it has a span these with that as
// parent. They are valid until the next call.
func (l *loop) messageHeaders(f *codec.Frame) []byte {
	if l.traced == nil {
		return f.Headers
	}
	return l.tracedHeaders(f)
}

// tracedHeaders is messageHeaders for a frame with a span. A message that max_payload has no room for otherwise, or whose
// server takes no headers, keeps those of the frame.
func (l *loop) tracedHeaders(f *codec.Frame) []byte {
	if !l.link.TakesHeaders() {
		return f.Headers
	}
	t, span := l.tracer, l.traced
	t.headers = trace.AppendHeaders(t.headers[:0], f.Headers, &span.Context, span.Parent != trace.SpanID{})
	if upstream.MessageBytes(t.headers, f.Payload)+idHeaderBytes > l.link.MaxPayload() {
		return f.Headers
	}
	return t.headers
}

// tracePublished hands the span of the frame that is being served over to its request, which is in flight now.
func (l *loop) tracePublished(h pool.Handle, r *request) {
	t, span := l.tracer, l.traced
	span.Published = l.clock(span)
	t.bySlot[h.Index()] = t.serving
	t.unwritten = append(t.unwritten, pendingSpan{t.serving, span.Span, r.end})
	r.watched |= watchedByTrace
	l.traced = nil
}

// traceRefused notes that the frame that is being served, which has a span, is answered with an error.
func (l *loop) traceRefused(outcome uint8) { l.traced.Error = errorLabel(outcome) }

// endFrameTrace ends the span of the frame that was served, which got no request to go on with.
func (l *loop) endFrameTrace() {
	l.traced = nil
	l.endSpan(l.tracer.serving)
}

// span returns the span of a request that is watchedByTrace. It is valid until the request is answered, and names the trace for
// whoever records the request.
func (l *loop) span(h pool.Handle) *trace.Span { return &l.tracer.spans[l.tracer.bySlot[h.Index()]] }

// traceWritten notes for which spans the message is written: from now on NATS is waited for.
func (l *loop) traceWritten(written uint64) {
	t, done, now := l.tracer, 0, int64(0)
	for done < len(t.unwritten) && t.unwritten[done].end <= written {
		p := &t.unwritten[done]
		done++
		span := &t.spans[p.index]
		if span.Span != p.id || span.Ended != 0 {
			continue // its client is gone, or its deadline passed
		}
		if now == 0 {
			now = l.sinceStarted()
		}
		span.Written = span.Offset + now
	}
	t.unwritten = t.unwritten[:copy(t.unwritten, t.unwritten[done:])]
}

// endTrace ends the span of a request with what its client was answered.
func (l *loop) endTrace(h pool.Handle, r *request, failure string, answerBytes int) {
	r.watched &^= watchedByTrace
	index := l.tracer.bySlot[h.Index()]
	span := &l.tracer.spans[index]
	span.Error, span.AnswerBytes = failure, uint32(answerBytes)
	l.endSpan(index)
}

// endSpan queues a span for its export, or drops it if too many wait, and frees its place.
func (l *loop) endSpan(index uint16) {
	t := l.tracer
	span := &t.spans[index]
	span.Ended = l.clock(span)
	if t.queue.Push(span) {
		l.counters.traceSpans.Add(1)
	} else {
		l.counters.traceDropped.Add(1)
	}
	t.free = append(t.free, index)
}

// clock returns the time of a stage of span. The loop's clock is read for it, which only sampled requests may be worth.
func (l *loop) clock(span *trace.Span) int64 { return span.Offset + l.sinceStarted() }

func (l *loop) sinceStarted() int64 { return int64(time.Since(l.gateway.started)) }

// withTrace adds the ids of span to an error object, in the same buffer, if a frame has room for them.
func withTrace(object []byte, span *trace.Span) []byte {
	if len(object)+codec.TraceBytesMax+codec.HeadersBytesMax+codec.HeaderBytesV2 > codec.FrameBytesMax {
		return object
	}
	return codec.AppendTrace(object, span.Trace[:], span.Span[:])
}

// errorLabel names an outcome; success has no name.
func errorLabel(outcome uint8) string {
	if outcome == outcomeOK {
		return ""
	}
	return CodeLabels[outcome]
}

// logFor returns the log for what is said about a request: with the ids of its span, if it is not nil.
func (l *loop) logFor(span *trace.Span) *slog.Logger {
	if span == nil {
		return l.log
	}
	return l.log.With("trace_id", span.Trace.String(), "span_id", span.Span.String())
}
