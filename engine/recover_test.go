package engine

import (
	"math"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/trace"
)

// breakable starts a gateway with everything on that work on a frame can trip over, and a responder on app.work that hands out
// what it is asked. At the end of the test it checks that panics were counted, and that nothing was lost by them.
func breakable(t *testing.T) (g *Gateway, work chan *nats.Msg) {
	t.Helper()
	s, _ := runJetStream(t)
	work = make(chan *nats.Msg, 10)
	answerWith(t, responder(t, s.ClientURL()), "app.work", func(m *nats.Msg) { work <- m })
	cfg := auditConfig(t, s.ClientURL())
	cfg.Tracer, cfg.TraceClients = new(trace.Sink), true
	cfg.Peers = []PeerRule{{ID: ownID(), Inflight: 100}}
	cfg.Routes.Submit.Subject = "app.work"
	cfg.Routes.JetStream = []string{"orders.>"}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if g.Stats().InternalErrors == 0 {
			t.Error("nothing panicked: the test does not test what it says")
		}
		g.loops[0].counters.internalErrors.Store(0)
		checkBalanced(t, g)
	})
	waitReady(t, g)
	return g, work
}

// onLoop runs f on the gateway's loop.
func onLoop(t *testing.T, g *Gateway, f func(l *loop)) {
	t.Helper()
	done := make(chan struct{})
	g.loops[0].post(func() {
		defer close(done)
		f(g.loops[0])
	})
	<-done
}

// Goal: wherever the work on a frame panics, it has one answer, INTERNAL, which says truly whether the message may have been
// sent, all that was taken for it is given back, and its connection goes on. Method: something that the work needs is taken
// away, and put back afterwards.
func TestPanicInTheWorkOnAFrame(t *testing.T) {
	request := v2(codec.TypeRequest, 5, "app.work", "x")
	for _, test := range []struct {
		name  string
		frame codec.Frame
		sent  bool
		ran   bool // its message went out
		take  func(l *loop) (putBack func(l *loop))
	}{
		{"room is looked for", request, false, false, withoutRule},
		{"a breaker is looked up", request, false, false, withoutBreakers},
		{"the id is looked up", request, false, false, func(l *loop) func(*loop) {
			ids := l.ids
			l.ids = idSet{}
			return func(l *loop) { l.ids = ids }
		}},
		{"the message is made", v2(codec.TypePublish, 5, "orders.a", "x"), true, false, func(l *loop) func(*loop) {
			messages := l.durable.messages
			l.durable.messages = nil
			return func(l *loop) { l.durable.messages = messages }
		}},
		{"it is recorded", request, true, true, withoutTimeOfDay},
		{"version 1 is recorded", v1(codec.TypeTaskSubmit, "x"), true, true, withoutTimeOfDay},
		{"a publish is recorded", v2(codec.TypePublish, 5, "app.work", "x"), true, true, withoutTimeOfDay},
		{"a message for JetStream is recorded", v2(codec.TypePublish, 5, "orders.a", "x"), true, false, withoutTimeOfDay},
		{"its span is kept", sampled(request), true, true, func(l *loop) func(*loop) {
			bySlot := l.tracer.bySlot
			l.tracer.bySlot = nil
			return func(l *loop) { l.tracer.bySlot = bySlot }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, work := breakable(t)
			p := dial(t, g)
			p.send(v1(codec.TypePing, ""))
			p.receive()
			var putBack func(*loop)
			onLoop(t, g, func(l *loop) { putBack = test.take(l) })
			p.send(test.frame)
			p.expectError(test.frame.Version, test.frame.CorrelationID, codec.CodeInternal, test.sent)
			onLoop(t, g, putBack)
			p.send(v2(codec.TypeRequest, 5, "app.work", "marker"))
			m := <-work
			if ran := string(m.Data) == "x"; ran != test.ran {
				t.Errorf("%q was executed first", m.Data)
			} else if ran {
				_ = m.Respond([]byte("the client has its answer"))
				m = <-work
			}
			_ = m.Respond(m.Data)
			p.expectOK(2, 5, "marker")
			p.expectNothingMore()
		})
	}
}

// Goal: a publish that wants no answer gets none when the work on it panics.
func TestPanicIsNotAnsweredWithNoReply(t *testing.T) {
	g, work := breakable(t)
	p := dial(t, g)
	p.send(v1(codec.TypePing, ""))
	p.receive()
	var putBack func(*loop)
	onLoop(t, g, func(l *loop) { putBack = withoutRule(l) })
	quiet := v2(codec.TypePublish, 5, "app.work", "x")
	quiet.Flags = codec.FlagNoReply
	p.send(quiet, v1(codec.TypePing, ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Errorf("got %v %s", f.Type, f.Payload)
	}
	onLoop(t, g, putBack)
	if n := g.Stats().NoReplyRefused; n != 1 {
		t.Errorf("%d counted as refused, want 1", n)
	}
	if len(work) != 0 {
		t.Errorf("%q was executed", (<-work).Data)
	}
}

// Goal: a panic in the work on a reply leaves nothing of the answer that was being made, and its request is answered INTERNAL,
// unless it has its answer already. In version 1 the order stays. Method: as above, while the request is in flight.
func TestPanicInTheWorkOnAReply(t *testing.T) {
	for _, test := range []struct {
		name     string
		answered bool
		take     func(l *loop) (putBack func(l *loop))
	}{
		{"the answer is recorded", false, func(l *loop) func(*loop) {
			ring := l.audit
			l.audit = nil
			return func(l *loop) { l.audit = ring }
		}},
		{"the outcome is judged", true, withoutBreakers},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, work := breakable(t)
			p := dial(t, g)
			expect := func(version byte, id uint64) {
				t.Helper()
				if test.answered {
					p.expectOK(version, id, "reply")
				} else {
					p.expectError(version, id, codec.CodeInternal, true)
				}
			}
			reply := func(m *nats.Msg) {
				t.Helper()
				before := g.Stats().InternalErrors
				var putBack func(*loop)
				onLoop(t, g, func(l *loop) { putBack = test.take(l) })
				_ = m.Respond([]byte("reply"))
				// What was taken away must not be looked at meanwhile: Stats would.
				eventually(t, "the reply is delivered", func() bool { return g.loops[0].counters.internalErrors.Load() > before })
				onLoop(t, g, putBack)
			}
			p.send(v2(codec.TypeRequest, 5, "app.work", ""))
			reply(<-work)
			expect(2, 5)
			p.send(v1(codec.TypeTaskSubmit, "first"), v1(codec.TypeTaskSubmit, "second"))
			first := <-work
			reply(<-work)
			_ = first.Respond([]byte("first"))
			p.expectOK(1, 0, "first")
			expect(1, 0)
			p.send(v1(codec.TypeTaskSubmit, "third"))
			reply(<-work)
			expect(1, 0)
			p.expectNothingMore()
		})
	}
}

// withoutRule takes the rule of the loop's only session away.
func withoutRule(l *loop) (putBack func(l *loop)) {
	s := firstSession(l)
	rule := s.rule
	s.rule = nil
	return func(*loop) { s.rule = rule }
}

// withoutBreakers makes the table of circuit breakers one that cannot be searched.
func withoutBreakers(l *loop) (putBack func(l *loop)) {
	buckets := l.breakers.buckets
	for i := range l.breakers.buckets {
		l.breakers.buckets[i] = math.MaxUint16
	}
	l.breakers.tracked++
	return func(l *loop) {
		l.breakers.buckets = buckets
		l.breakers.tracked--
	}
}

// withoutTimeOfDay takes away what a record needs; the ring that it goes to stays.
func withoutTimeOfDay(l *loop) (putBack func(l *loop)) {
	clock := l.gateway.clock
	l.gateway.clock = nil // a record has the time of day
	return func(l *loop) { l.gateway.clock = clock }
}

func sampled(f codec.Frame) codec.Frame {
	f.Headers = []byte("traceparent: " + sampledParent + "\r\n")
	return f
}

// firstSession returns the loop's only session.
func firstSession(l *loop) *session {
	for _, s := range l.watch.sessions {
		if s != nil {
			return s
		}
	}
	return nil
}
