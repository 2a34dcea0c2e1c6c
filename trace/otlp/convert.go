package otlp

import (
	"net"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/aigroup/ipc-gateway/trace"
)

// operations names the operations of package trace, as messaging.operation.name.
var operations = [...]string{trace.OperationRequest: "request", trace.OperationPublish: "publish", trace.OperationStore: "publish"}

// kinds are the kinds of their spans: who asks is a client, who publishes is a producer.
var kinds = [...]oteltrace.SpanKind{
	trace.OperationRequest: oteltrace.SpanKindClient,
	trace.OperationPublish: oteltrace.SpanKindProducer,
	trace.OperationStore:   oteltrace.SpanKindProducer,
}

// converter turns spans into those of the SDK. These have been sampled and have ended, with ids and times of their own, so
// there is nothing that a tracer of the SDK could do for them.
type converter struct {
	about *resource.Resource
	scope instrumentation.Scope
}

func newConverter(about *resource.Resource, version string) converter {
	return converter{about, instrumentation.Scope{Name: "github.com/aigroup/ipc-gateway", Version: version}}
}

// span returns what the SDK exports for s. It keeps nothing of s.
func (c *converter) span(s *trace.Span) sdktrace.ReadOnlySpan {
	subject := strings.ToValidUTF8(string(s.Subject()), "\uFFFD")
	state, _ := oteltrace.ParseTraceState(string(s.State())) // a malformed one is none
	own := oteltrace.SpanContextConfig{
		TraceID: oteltrace.TraceID(s.Trace), SpanID: oteltrace.SpanID(s.Span), TraceFlags: oteltrace.FlagsSampled, TraceState: state,
	}
	stub := tracetest.SpanStub{
		Name:                 strings.TrimSpace(operations[s.Operation] + " " + subject),
		SpanContext:          oteltrace.NewSpanContext(own),
		SpanKind:             kinds[s.Operation],
		StartTime:            time.Unix(0, s.Read),
		EndTime:              time.Unix(0, s.Ended),
		Attributes:           attributes(s, subject),
		Events:               events(s),
		Resource:             c.about,
		InstrumentationScope: c.scope,
	}
	if s.Parent != (trace.SpanID{}) {
		parent := own
		parent.SpanID, parent.Remote = oteltrace.SpanID(s.Parent), true
		stub.Parent = oteltrace.NewSpanContext(parent)
	}
	if s.Error != "" {
		stub.Status = sdktrace.Status{Code: codes.Error, Description: s.Error}
	}
	return stub.Snapshot()
}

// attributes says what the span is about, by the semantic conventions for messaging as far as these go.
func attributes(s *trace.Span, subject string) []attribute.KeyValue {
	list := []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.name", operations[s.Operation]),
		attribute.String("messaging.operation.type", "send"),
		attribute.String("messaging.destination.name", subject),
		attribute.Int64("messaging.message.body.size", int64(s.PayloadBytes)),
		attribute.String("ipc.type", s.Type),
		attribute.Int("ipc.version", int(s.Version)),
		attribute.Int("ipc.loop", int(s.Loop)),
		attribute.Int64("ipc.client", int64(s.Client)),
		attribute.Int64("ipc.uid", int64(s.UID)),
		attribute.Int64("ipc.answer.size", int64(s.AnswerBytes)),
	}
	if s.Version != 1 {
		list = append(list, attribute.String("messaging.message.conversation_id", strconv.FormatUint(s.CorrelationID, 10)))
	}
	if host, port, err := net.SplitHostPort(s.Server); err == nil {
		list = append(list, attribute.String("server.address", host))
		if number, err := strconv.Atoi(port); err == nil {
			list = append(list, attribute.Int("server.port", number))
		}
	}
	if s.Error != "" {
		list = append(list, attribute.String("error.type", s.Error))
	}
	return list
}

// events are the stages that the request has reached, each at its beginning.
func events(s *trace.Span) (list []sdktrace.Event) {
	for _, stage := range []struct {
		name string
		at   int64
	}{{"read", s.Read}, {"publish", s.Published}, {"nats.wait", s.Written}, {"deliver", s.Delivered}} {
		if stage.at != 0 {
			list = append(list, sdktrace.Event{Name: stage.name, Time: time.Unix(0, stage.at)})
		}
	}
	return list
}
