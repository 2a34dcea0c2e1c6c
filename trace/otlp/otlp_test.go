package otlp_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/trace/otlp"
)

// testTimeout bounds every wait of the tests. It is never slept through.
const testTimeout = 20 * time.Second

// receiver is an OTLP receiver: an HTTP server that keeps the spans that are posted to it.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	resource map[string]string
}

// runReceiver starts a receiver and points the exporters that are started from now on to it. Before it takes a request it
// waits for open to be closed, if that is not nil.
func runReceiver(t *testing.T, open <-chan struct{}) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if open != nil {
			<-open
		}
		body, err := io.ReadAll(request.Body)
		var export collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &export)
		}
		if err != nil || request.URL.Path != "/v1/traces" || request.Header.Get("Content-Type") != "application/x-protobuf" {
			http.Error(w, fmt.Sprint(request.URL, request.Header, err), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, of := range export.ResourceSpans {
			r.resource = attributes(of.Resource.Attributes)
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	return r
}

// await waits until n spans have come, and returns them.
func (r *receiver) await(t *testing.T, n int) (spans []*tracepb.Span) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d spans have come", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		spans = slices.Clone(r.spans)
		return len(spans) >= n
	})
	return spans
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[a.Key] = fmt.Sprint(v.IntValue)
		}
	}
	return all
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// runGateway starts a NATS server with an echo on app.echo, and a gateway that traces all requests, of which it returns a client.
func runGateway(t *testing.T) (*engine.Gateway, *trace.Sink, *client.Conn) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(testTimeout) {
		t.Fatal("nats-server does not come up")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Subscribe("app.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ipcgw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	sink := new(trace.Sink)
	cfg := engine.DefaultConfig()
	cfg.SocketPath, cfg.Loops, cfg.NATS.URLs = filepath.Join(dir, "gw.sock"), 1, []string{s.ClientURL()}
	cfg.Tracer, cfg.TraceSample, cfg.Logger = sink, 1, slog.New(slog.DiscardHandler)
	g, err := engine.New(cfg)
	if err == nil {
		err = g.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	eventually(t, "the gateway is ready", func() bool { return g.Ready() == nil })
	c, err := client.Dial(t.Context(), cfg.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * testTimeout)); err != nil {
		t.Fatal(err)
	}
	return g, sink, c
}

// export starts an exporter, and stops it at the end of the test.
func export(t *testing.T, sink *trace.Sink) *otlp.Exporter {
	t.Helper()
	e, err := otlp.Start(sink, "v1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		_ = e.Stop(ctx)
	})
	return e
}

func request(id uint64, subject, headers string) *codec.Frame {
	return &codec.Frame{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: id, Subject: []byte(subject), Headers: []byte(headers), Payload: []byte("hello")}
}

// Goal: a receiver gets the span of a request as the gateway saw it: ids, parent, stages in order, what it was about, and who we are.
func TestReceiverGetsSpans(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "our-gateway")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	r := runReceiver(t, nil)
	_, sink, c := runGateway(t)
	export(t, sink)
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if _, err := c.Do(request(7, "app.echo", "traceparent: "+parent+"\r\ntracestate: vendor=1\r\n")); err != nil {
		t.Fatal(err)
	}
	span := r.await(t, 1)[0]
	if hex.EncodeToString(span.TraceId) != parent[3:35] || hex.EncodeToString(span.ParentSpanId) != parent[36:52] || len(span.SpanId) != 8 ||
		span.TraceState != "vendor=1" || span.Name != "request app.echo" || span.Kind != tracepb.Span_SPAN_KIND_CLIENT || span.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("the span is %v", span)
	}
	got := attributes(span.Attributes)
	for key, want := range map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "request", "messaging.operation.type": "send", "messaging.destination.name": "app.echo",
		"messaging.message.body.size": "5", "messaging.message.conversation_id": "7", "server.address": "127.0.0.1", "ipc.type": "request", "ipc.version": "2",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if got["server.port"] == "" || got["error.type"] != "" {
		t.Errorf("the attributes are %v", got)
	}
	var stages []string
	at := span.StartTimeUnixNano
	for _, e := range span.Events {
		stages = append(stages, e.Name)
		if e.TimeUnixNano < at {
			t.Errorf("%s is too early", e.Name)
		}
		at = e.TimeUnixNano
	}
	if strings.Join(stages, " ") != "read publish nats.wait deliver" || span.EndTimeUnixNano < at {
		t.Errorf("the stages are %v", stages)
	}
	if r.resource["service.name"] != "our-gateway" || r.resource["service.version"] != "v1.2.3" || r.resource["deployment.environment"] != "test" {
		t.Errorf("the resource is %v", r.resource)
	}
}

// Goal: the span of an error says which one, and that of a version 1 request begins a trace.
func TestReceiverGetsErrors(t *testing.T) {
	r := runReceiver(t, nil)
	_, sink, c := runGateway(t)
	export(t, sink)
	if _, err := c.Do(&codec.Frame{Version: codec.Version1, Type: codec.TypeTaskQuery, Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	span := r.await(t, 1)[0]
	if len(span.ParentSpanId) != 0 || len(span.TraceId) != 16 || span.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR ||
		attributes(span.Attributes)["error.type"] != "NO_RESPONDERS" || r.resource["service.name"] != "ipc-gateway" {
		t.Errorf("the span is %v", span)
	}
}

// Goal: nobody waits for a receiver that takes nothing. Method: it holds the first export back while far more requests are
// traced than there is room for. All of them are answered, what has no room is counted, and once the receiver goes on the rest comes.
func TestSlowReceiverHoldsUpNobody(t *testing.T) {
	open := make(chan struct{})
	r := runReceiver(t, open)
	t.Cleanup(sync.OnceFunc(func() {
		select {
		case <-open:
		default:
			close(open)
		}
	}))
	g, sink, c := runGateway(t)
	export(t, sink)
	const windows, window = 100, 100
	for w := range windows {
		for i := range window {
			if err := c.Send(request(uint64(w*window+i), "app.echo", "")); err != nil {
				t.Fatal(err)
			}
		}
		for range window {
			if f, err := c.Receive(); err != nil || f.Type != codec.TypeResponseOK {
				t.Fatalf("%v, %s", err, f.Payload)
			}
		}
	}
	s := g.Stats()
	if s.TraceDropped == 0 || s.TraceDropped+s.TraceSpans-sink.Lost() != windows*window {
		t.Errorf("%d spans, %d dropped, %d lost", s.TraceSpans, s.TraceDropped, sink.Lost())
	}
	close(open)
	r.await(t, int(s.TraceSpans-sink.Lost()))
}

// Goal: spans for a receiver that is not there are counted as dropped, and the end of the exporter is bounded.
func TestReceiverIsDown(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+nobody.Addr().String())
	_ = nobody.Close()
	g, sink, c := runGateway(t)
	e := export(t, sink)
	const requests = 20
	for i := range uint64(requests) {
		if f, err := c.Do(request(i, "app.echo", "")); err != nil || f.Type != codec.TypeResponseOK {
			t.Fatalf("%v, %s", err, f.Payload)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = e.Stop(ctx)
	if s := g.Stats(); s.TraceSpans != requests || s.TraceDropped != requests || sink.Lost() != requests {
		t.Errorf("%d spans, %d dropped, %d lost", s.TraceSpans, s.TraceDropped, sink.Lost())
	}
}
