package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spanReceiver is an OTLP receiver that keeps the names of the spans that it gets, with that of their service.
type spanReceiver struct {
	*httptest.Server
	mu    sync.Mutex
	names []string
}

func receiveSpans(t *testing.T) *spanReceiver {
	t.Helper()
	r := &spanReceiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var export collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &export)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, of := range export.ResourceSpans {
			service := ""
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					service = a.Value.GetStringValue()
				}
			}
			for _, scope := range of.ScopeSpans {
				for _, span := range scope.Spans {
					r.names = append(r.names, service+": "+span.Name)
				}
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *spanReceiver) got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.names, "; ")
}

// Goal: the real program traces what the flag, the variables of OpenTelemetry and a reload tell it to, and its last spans have
// left when it has ended.
func TestTracing(t *testing.T) {
	c := natsServer(t)
	parents := make(chan string, 1)
	respond(t, c, "app.echo", func(m *nats.Msg) {
		parents <- strings.Join(m.Header["traceparent"], ",")
		echo(m)
	})
	const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, k := range map[string]struct {
		env     []string
		args    []string
		headers []string
		spans   string
		changed bool // the service has another parent than the client said
	}{
		"the flag":            {nil, []string{"--trace-sample", "1"}, nil, "edge: request app.echo", true},
		"OTEL_TRACES_SAMPLER": {[]string{"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=1.0"}, nil, nil, "edge: request app.echo", true},
		"a sampled client":    {nil, nil, []string{"-H", "Traceparent: " + sampled}, "edge: request app.echo", true},
		"nobody":              {nil, nil, nil, "", false},
		"OTEL_SDK_DISABLED":   {[]string{"OTEL_SDK_DISABLED=true"}, []string{"--trace-sample", "1"}, []string{"-H", "traceparent: " + sampled}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiveSpans(t)
			g := serve(t, append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL, "OTEL_SERVICE_NAME=edge"}, k.env...),
				append([]string{"--nats-url", c.ConnectedUrl()}, k.args...)...)
			g.waitReady(http.StatusOK, "")
			args := append([]string{"send", "--socket", g.socket, "--type", "request", "--subject", "app.echo"}, k.headers...)
			if code, _, stderr := run(t, nil, append(args, "hello")...); code != 0 {
				t.Fatalf("send: %s", stderr)
			}
			given := ""
			if len(k.headers) > 0 {
				_, given, _ = strings.Cut(k.headers[1], ": ")
			}
			if parent := <-parents; (parent != "" && parent != given) != k.changed {
				t.Errorf("the service's parent is %q, the client's %q", parent, given)
			}
			g.signal(syscall.SIGTERM)
			if code := g.wait(); code != 0 || r.got() != k.spans {
				t.Errorf("exit code %d, spans %q, want %q: %s", code, r.got(), k.spans, g.stderr.String())
			}
		})
	}
}

// Goal: tracing can be switched on while the gateway runs.
func TestTracingIsReloaded(t *testing.T) {
	c, r := natsServer(t), receiveSpans(t)
	respond(t, c, "app.echo", echo)
	config := configFileWith(t, "trace_sample: 0\n")
	g := serve(t, []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + r.URL + "/v1/traces", "OTEL_TRACES_SAMPLER="}, "--nats-url", c.ConnectedUrl(), "--config", config)
	g.waitReady(http.StatusOK, "")
	if err := os.WriteFile(config, []byte("trace_sample: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGHUP)
	g.waitLog("configuration reloaded")
	if code, _, stderr := run(t, nil, "send", "--socket", g.socket, "--type", "request", "--subject", "app.echo", "x"); code != 0 {
		t.Fatalf("send: %s", stderr)
	}
	waitFor(t, func() error {
		if r.got() != "ipc-gateway: request app.echo" {
			return fmt.Errorf("got %q", r.got())
		}
		return nil
	})
}

// Goal: the share comes from the first source that has one, and what is none is named.
func TestTraceSample(t *testing.T) {
	for _, k := range []struct {
		flags, env map[string]string
		want       float64
		problem    string
	}{
		{nil, nil, 0, ""},
		{map[string]string{"trace-sample": "0.01"}, map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, 0.01, ""},
		{nil, map[string]string{"IPC_TRACE_SAMPLE": "0.5", "OTEL_TRACES_SAMPLER": "always_on"}, 0.5, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER": "always_on"}, 1, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, 0, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio"}, 1, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0, ""},
		{nil, map[string]string{"OTEL_TRACES_SAMPLER": "jaeger_remote"}, 0, "variable OTEL_TRACES_SAMPLER: \"jaeger_remote\""},
		{nil, map[string]string{"OTEL_TRACES_EXPORTER": "console"}, 0, "variable OTEL_TRACES_EXPORTER: \"console\" is an exporter that the gateway does not have: want otlp or none"},
		{nil, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, 0, "variable OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is a protocol that the gateway does not have: want http/protobuf"},
		{nil, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, 0, "\"http/json\""},
		{nil, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "otlp"}, 0, ""},
		{nil, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "none"}, 0, ""},
		{nil, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_SDK_DISABLED": "true"}, 0, ""},
		{map[string]string{"trace-sample": "some"}, nil, 0, "flag --trace-sample: \"some\" is not a share"},
		{map[string]string{"trace-sample": "1.5"}, nil, 0, "flag --trace-sample: trace sample is 1.5: want 0 to 1"},
		{map[string]string{"trace-sample": "NaN"}, nil, 0, "trace sample is NaN"},
	} {
		o, problems := (&app{lookupEnv: lookup(k.env)}).configure(k.flags)
		switch {
		case k.problem != "":
			if len(problems) != 1 || !strings.Contains(problems[0], k.problem) {
				t.Errorf("%v %v: problems are %q, want %q", k.flags, k.env, problems, k.problem)
			}
		case len(problems) > 0 || o.engine.TraceSample != k.want:
			t.Errorf("%v %v: got %v, want %v: %q", k.flags, k.env, o.engine.TraceSample, k.want, problems)
		}
	}
}
