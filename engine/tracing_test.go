package engine

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/internal/wallclock"
	"github.com/aigroup/ipc-gateway/trace"
)

const (
	callersTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan   = "00f067aa0ba902b7"
	sampledParent = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// tracedGateway starts a gateway whose spans stay in the queue, and a responder that echoes on app.echo, keeps what it got in
// got, and never answers on app.never.
func tracedGateway(t *testing.T, change func(*Config)) (g *Gateway, got chan *nats.Msg) {
	t.Helper()
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	got = make(chan *nats.Msg, 2000)
	for _, subject := range []string{"app.echo", "app.sink", "app.never", DefaultSubject} {
		answerWith(t, nc, subject, func(m *nats.Msg) {
			got <- m
			if m.Reply != "" && m.Subject != "app.never" {
				echo(m)
			}
		})
	}
	cfg := testConfig(t, s.ClientURL())
	cfg.Tracer, cfg.TraceClients = new(trace.Sink), true
	if change != nil {
		change(&cfg)
	}
	g = runGateway(t, cfg)
	waitReady(t, g)
	return g, got
}

// nextSpan waits for the next span that ended.
func nextSpan(t *testing.T, g *Gateway) (s trace.Span) {
	t.Helper()
	eventually(t, "a span ends", func() bool {
		queues := g.cfg.Tracer.Queues()
		return len(queues) > 0 && queues[0].Pop(&s)
	})
	return s
}

// checkStages checks that the stages that were reached are in order.
func checkStages(t *testing.T, s *trace.Span) {
	t.Helper()
	last := int64(1)
	for _, at := range []int64{s.Read, s.Published, s.Written, s.Delivered, s.Ended} {
		if at != 0 && at < last {
			t.Errorf("stages out of order: %d %d %d %d %d", s.Read, s.Published, s.Written, s.Delivered, s.Ended)
		}
		last = max(last, at)
	}
	if s.Read == 0 || s.Ended == 0 {
		t.Error("the span has no beginning or no end")
	}
}

func parentOf(t *testing.T, m *nats.Msg) trace.Context {
	t.Helper()
	values := m.Header["traceparent"]
	if len(values) != 1 {
		t.Fatalf("the headers are %v, want one traceparent", m.Header)
	}
	c, ok := trace.ParseParent([]byte(values[0]))
	if !ok {
		t.Fatalf("traceparent is %q", values[0])
	}
	return c
}

// Goal: a client's sampled trace goes on, with the gateway's span between the client's and the service's, and all its stages.
func TestTraceOfClientGoesOn(t *testing.T) {
	g, got := tracedGateway(t, nil)
	p := dial(t, g)
	f := v2(codec.TypeRequest, 7, "app.echo", "hello")
	f.Headers = []byte("X-A: b\r\nTraceParent: " + sampledParent + "\r\ntracestate: vendor=1\r\n")
	p.send(f)
	p.expectOK(codec.Version2, 7, "hello")
	s, m := nextSpan(t, g), <-got
	c := parentOf(t, m)
	if c.Trace.String() != callersTrace || c.Span != s.Span || !c.Sampled() || s.Trace != c.Trace || s.Parent.String() != callersSpan {
		t.Errorf("the service's parent is %v, the span %v of %v", c, s.Span, s.Parent)
	}
	if len(m.Header) != 3 || m.Header["X-A"][0] != "b" || m.Header["tracestate"][0] != "vendor=1" {
		t.Errorf("the headers are %v", m.Header)
	}
	if string(s.Subject()) != "app.echo" || string(s.State()) != "vendor=1" || s.Operation != trace.OperationRequest || s.CorrelationID != 7 ||
		s.Error != "" || s.PayloadBytes != 5 || s.Server == "" || s.Type != "request" || s.AnswerBytes == 0 {
		t.Errorf("the span is %+v", s)
	}
	checkStages(t, &s)
	if s.Published == 0 || s.Written == 0 || s.Delivered == 0 {
		t.Errorf("a stage is missing: %+v", s)
	}
}

// Goal: what is not sampled reaches NATS byte by byte as it came, and leaves no span.
func TestUnsampledIsUntouched(t *testing.T) {
	g, got := tracedGateway(t, nil)
	p := dial(t, g)
	for i, headers := range []string{
		"", "TraceParent: " + sampledParent[:53] + "00\r\nTRACESTATE: a=b\r\n", "traceparent: nonsense\r\ntracestate: a=b\r\n",
	} {
		f := v2(codec.TypeRequest, uint64(i), "app.echo", "x")
		f.Headers = []byte(headers)
		p.send(f)
		p.expectOK(codec.Version2, uint64(i), "x")
		var have bytes.Buffer
		m := <-got
		for name, values := range m.Header {
			for _, value := range values {
				have.WriteString(name + ": " + value + "\r\n")
			}
		}
		for line := range strings.Lines(headers) {
			if !strings.Contains(have.String(), line) {
				t.Errorf("%q is not in %q", line, have.String())
			}
		}
		if have.Len() != len(headers) {
			t.Errorf("%q became %q", headers, have.String())
		}
	}
	p.send(v1(codec.TypeTaskSubmit, "y"))
	p.expectOK(codec.Version1, 0, "y")
	if m := <-got; len(m.Header) != 0 {
		t.Errorf("a version 1 request got the headers %v", m.Header)
	}
	if s := g.Stats(); s.TraceSpans != 0 || s.TraceDropped != 0 {
		t.Errorf("%d spans, %d dropped", s.TraceSpans, s.TraceDropped)
	}
}

// Goal: requests without a trace begin one when they are picked, of version 1 too, and in every mode; a malformed parent is
// replaced, and the state that went with it is left out.
func TestTraceBegins(t *testing.T) {
	g, got := tracedGateway(t, func(cfg *Config) { cfg.TraceSample, cfg.TraceClients = 1, false })
	p := dial(t, g)
	noReply := v2(codec.TypePublish, 0, "app.sink", "n")
	noReply.Flags = codec.FlagNoReply
	malformed := v2(codec.TypeRequest, 3, "app.echo", "m")
	malformed.Headers = []byte("traceparent: 00-x\r\ntracestate: a=b\r\nA: b\r\n")
	for _, c := range []struct {
		frame     codec.Frame
		operation trace.Operation
		answered  bool
	}{
		{v1(codec.TypeTaskSubmit, "a"), trace.OperationRequest, true},
		{v2(codec.TypePublish, 2, "app.sink", "p"), trace.OperationPublish, true},
		{malformed, trace.OperationRequest, true},
		{noReply, trace.OperationPublish, false},
	} {
		p.send(c.frame)
		if c.answered {
			p.receive()
		}
		s, m := nextSpan(t, g), <-got
		parent := parentOf(t, m)
		if parent != s.Context || s.Parent != (trace.SpanID{}) || s.Operation != c.operation || s.Version != c.frame.Version || s.Error != "" || s.Published == 0 {
			t.Errorf("%v: the service's parent is %v, the span %+v", c.frame.Type, parent, s)
		}
		if m.Header["tracestate"] != nil {
			t.Errorf("the state of a trace that did not go on was passed on: %v", m.Header)
		}
		checkStages(t, &s)
	}
}

// Goal: every error that a sampled request is answered with names the trace, and its span the error; nothing else does.
func TestTraceInErrors(t *testing.T) {
	g, _ := tracedGateway(t, nil)
	p := dial(t, g)
	for id, c := range []struct {
		subject string
		code    codec.ErrorCode
		sent    bool
	}{{"app.never", codec.CodeTimeout, true}, {"app.nobody", codec.CodeNoResponders, true}, {"app..bad", codec.CodeInvalidPayload, false}} {
		f := v2(codec.TypeRequest, uint64(id), c.subject, "x")
		f.TimeoutMs = 50
		p.send(f)
		if info := p.expectError(codec.Version2, uint64(id), c.code, c.sent); info.TraceID != "" || info.SpanID != "" {
			t.Errorf("unsampled: %+v", info)
		}
		f.Headers = []byte("traceparent: " + sampledParent + "\r\n")
		p.send(f)
		info := p.expectError(codec.Version2, uint64(id), c.code, c.sent)
		s := nextSpan(t, g)
		if info.TraceID != callersTrace || info.SpanID != s.Span.String() || s.Error != c.code.Name() || string(s.Subject()) != c.subject {
			t.Errorf("the answer says %+v, the span is %+v", info, s)
		}
		checkStages(t, &s)
	}
}

// Goal: the span of a request whose client goes away says so.
func TestTraceOfAbandonedRequest(t *testing.T) {
	g, got := tracedGateway(t, func(cfg *Config) { cfg.TraceSample = 1 })
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.never", "x"))
	<-got
	_ = p.Close()
	if s := nextSpan(t, g); s.Error != outcomeAbandoned || s.Written == 0 || s.Delivered != 0 {
		t.Errorf("the span is %+v", s)
	}
}

// Goal: sampled requests over the bound are served as if they were not sampled, and counted.
func TestTracesInFlightAreBounded(t *testing.T) {
	const over = 76
	g, got := tracedGateway(t, func(cfg *Config) { cfg.TraceSample, cfg.MaxInflightPerConnection = 1, 2*spansMax })
	p := dial(t, g)
	var frames []codec.Frame
	for id := range uint64(spansMax + over) {
		frames = append(frames, v2(codec.TypeRequest, id, "app.never", "x"))
	}
	p.send(frames...)
	traced := 0
	for range frames {
		if m := <-got; m.Header != nil {
			traced++
		}
	}
	if s := g.Stats(); traced != spansMax || s.TraceDropped != over {
		t.Errorf("%d are traced, %d dropped; want %d and %d", traced, s.TraceDropped, spansMax, over)
	}
	_ = p.Close()
	eventually(t, "all spans end", func() bool { return g.Stats().TraceSpans == spansMax })
	p = dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.echo", "x"))
	p.expectOK(codec.Version2, 1, "x")
	if m := <-got; m.Header == nil {
		t.Error("there is no room again")
	}
}

// Goal: no request fails because it is sampled: a message that just fits goes without the header.
func TestTraceLeavesRoom(t *testing.T) {
	g, got := tracedGateway(t, func(cfg *Config) { cfg.TraceSample = 1 })
	p := dial(t, g)
	payload := strings.Repeat("x", 1<<20)
	p.send(v2(codec.TypeRequest, 1, "app.echo", payload))
	p.expectOK(codec.Version2, 1, payload)
	if m := <-got; m.Header != nil {
		t.Errorf("the headers are %v", m.Header)
	}
	if s := nextSpan(t, g); s.PayloadBytes != 1<<20 || s.Error != "" {
		t.Errorf("the span is %+v", s)
	}
}

// Goal: a message for JetStream is traced until its acknowledgement, and still has an id.
func TestTraceOfJetStream(t *testing.T) {
	s, js := runJetStream(t)
	cfg := testConfig(t, s.ClientURL())
	cfg.Tracer, cfg.TraceSample, cfg.Routes.JetStream = new(trace.Sink), 1, []string{"orders.>"}
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypePublish, 1, "orders.new", "x"))
	if f := p.receive(); f.Type != codec.TypeResponseOK {
		t.Fatalf("answer: %s", f.Payload)
	}
	span := nextSpan(t, g)
	m := stored(t, js, "ORDERS")[0]
	if c, ok := trace.ParseParent([]byte(m.Header["traceparent"][0])); !ok || c != span.Context || m.Header.Get("Nats-Msg-Id") == "" {
		t.Errorf("the headers are %v", m.Header)
	}
	if span.Operation != trace.OperationStore || span.Delivered == 0 || span.Error != "" {
		t.Errorf("the span is %+v", span)
	}
	checkStages(t, &span)
}

// Goal: a reload switches sampling on and off.
func TestTraceSampleReloads(t *testing.T) {
	g, got := tracedGateway(t, func(cfg *Config) { cfg.TraceClients = false })
	p := dial(t, g)
	for i, share := range []float64{0, 1, 0} {
		cfg := g.Config()
		cfg.TraceSample, cfg.Tracer = share, nil
		if _, err := g.Reload(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		f := v2(codec.TypeRequest, uint64(i), "app.echo", "x")
		p.send(f)
		p.expectOK(codec.Version2, uint64(i), "x")
		if m := <-got; (m.Header != nil) != (share == 1) {
			t.Errorf("share %v: the headers are %v", share, m.Header)
		}
	}
	for _, share := range []float64{-0.1, 1.1} {
		cfg := g.Config()
		cfg.TraceSample = share
		if _, err := g.Reload(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "trace sample is") {
			t.Errorf("share %v: %v", share, err)
		}
	}
}

// Goal: the audit log names the gateway's own span of a request that is sampled, and its trace.
func TestAuditNamesTheSpan(t *testing.T) {
	var path string
	g, _ := tracedGateway(t, func(c *Config) {
		path = filepath.Join(shortTempDir(t), "audit")
		c.Audit.Path, c.TraceSample = path, 1
	})
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 7, "app.echo", "hello"))
	p.expectOK(codec.Version2, 7, "hello")
	s := nextSpan(t, g)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, _ := readAudit(t, path)
	if len(entries) != 1 || entries[0].request.TraceID != s.Trace || entries[0].request.SpanID != s.Span {
		t.Errorf("%+v, want trace %v, span %v", entries, s.Trace, s.Span)
	}
}

// Goal: spans and the audit log have the time of day, and have it right after the clock was set (which package wallclock notices). Method: the
// gateway's clock is an hour ahead, the loop's own is not.
func TestTimesFollowTheClockOfTheDay(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "app.echo", echo)
	cfg := auditConfig(t, s.ClientURL())
	cfg.Tracer, cfg.TraceSample = new(trace.Sink), 1
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.clock = wallclock.New(g.started.Add(time.Hour))
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 7, "app.echo", "hello"))
	p.expectOK(codec.Version2, 7, "hello")
	span := nextSpan(t, g)
	checkStages(t, &span)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, _ := readAudit(t, cfg.Audit.Path)
	for what, at := range map[string]int64{"the span": span.Read, "its end": span.Ended, "the audit log": entries[0].request.Time} {
		if ahead := time.Until(time.Unix(0, at)); ahead < 59*time.Minute || ahead > time.Hour {
			t.Errorf("%s is %v ahead, want an hour", what, ahead)
		}
	}
}

// BenchmarkTracing measures what tracing adds to a request in its loop, with a traceparent of its client: without tracing, with tracing when the
// request is not sampled, and when it is, with all stages of its span and the headers for NATS. Slots and headers are there in each.
func BenchmarkTracing(b *testing.B) {
	for _, c := range []struct {
		name, flags string
		on          bool
	}{{"off", "01", false}, {"unsampled", "00", true}, {"sampled", "01", true}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			cfg := testConfig(b, "nats://127.0.0.1:1")
			if c.on {
				cfg.Tracer, cfg.TraceClients = new(trace.Sink), true
			}
			g, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			l := g.loops[0]
			l.followTracing()
			s := &session{loop: l, id: 1, rule: l.policy.peers.others}
			f := v2(codec.TypeRequest, 1, "app.echo", strings.Repeat("x", 512))
			f.Headers = []byte("traceparent: " + sampledParent[:len(sampledParent)-2] + c.flags + "\r\n")
			var span trace.Span
			n := 0
			for b.Loop() {
				benchmarkTraced(l, s, &f)
				if n++; n%1024 == 0 && c.on { // the exporter is not what is measured
					b.StopTimer()
					for l.tracer.queue.Pop(&span) {
					}
					b.StartTimer()
				}
			}
			if dropped := l.counters.traceDropped.Load(); dropped != 0 || (l.counters.traceSpans.Load() != 0) != (c.name == "sampled") {
				b.Errorf("%d spans, %d dropped", l.counters.traceSpans.Load(), dropped)
			}
		})
	}
}

// benchmarkTraced is what a request does about tracing on its way, in the order of the data path.
func benchmarkTraced(l *loop, s *session, f *codec.Frame) {
	if l.policy.traces {
		l.startTrace(s, f, labels[f.Type])
	}
	h, r := l.slots.Acquire()
	r.session, r.startedAt = s, l.now
	if l.traced != nil {
		l.traceSubject(f.Subject, ModeRequest)
	}
	_ = l.messageHeaders(f)
	if l.traced != nil {
		l.tracePublished(h, r)
	}
	if l.tracer != nil && len(l.tracer.unwritten) > 0 {
		l.traceWritten(r.end)
	}
	if r.watched&watchedByTrace != 0 {
		span := l.span(h)
		span.Delivered = l.clock(span)
		l.endTrace(h, r, "", 100)
	}
	l.slots.Release(h)
}
