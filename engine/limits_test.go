package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

func TestConnectionOverTheLimitIsToldAndClosed(t *testing.T) {
	s := runNATS(t, nil)
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxConnections = 2
	g := runGateway(t, cfg)
	waitReady(t, g)
	ping := func(p *peer) {
		t.Helper()
		p.send(v1(codec.TypePing, ""))
		if f := p.receive(); f.Type != codec.TypePong {
			t.Fatalf("got %v", f.Type)
		}
	}
	first, second := dial(t, g), dial(t, g)
	ping(first)
	ping(second)
	for range 20 {
		third := dial(t, g)
		third.sendBytes(make([]byte, 100)) // unread bytes must not turn the EOF into a reset
		third.expectError(1, 0, codec.CodeOverloaded, false)
		third.expectEOF()
		_ = third.Close()
	}
	if n := g.Stats().ConnectionsRefused; n != 20 {
		t.Errorf("%d connections counted as refused, want 20", n)
	}
	_ = second.Close()
	eventually(t, "the second connection is gone", func() bool { return g.Stats().Connections == 1 })
	ping(dial(t, g))
	ping(first)
}

func TestInflightLimitOfAConnection(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 3, 0
	g := runGateway(t, cfg)
	waitReady(t, g)
	p, other := dial(t, g), dial(t, g)
	for i := range uint64(4) {
		p.send(v2(codec.TypeRequest, i, "app.slow", "x"))
	}
	p.expectError(2, 3, codec.CodeOverloaded, false)
	other.send(v2(codec.TypeRequest, 3, "app.slow", "y"))
	for range 4 {
		m := <-asked
		_ = m.Respond(m.Data)
	}
	other.expectOK(2, 3, "y")
	for range 3 {
		p.receive()
	}
	if n := g.Stats().ConnInflightRefused; n != 1 {
		t.Errorf("%d refusals counted, want 1", n)
	}

	// In version 1 the refusal keeps its place.
	for range 4 {
		p.send(v1(codec.TypeTaskSubmit, "z"))
	}
	for range 3 {
		m := <-asked
		_ = m.Respond(m.Data)
	}
	for range 3 {
		p.expectOK(1, 0, "z")
	}
	p.expectError(1, 0, codec.CodeOverloaded, false)
}

// Goal: the limit on all requests is exact, whichever loops they are on, and comes free again.
func TestInflightLimitOfTheGateway(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops, cfg.MaxInflight, cfg.PauseMax = 3, 10, 0
	g := runGateway(t, cfg)
	waitReady(t, g)
	for round := range 5 {
		peers := make([]*peer, 3)
		for i := range peers {
			peers[i] = dial(t, g)
		}
		for i := range uint64(10) {
			peers[i%3].send(v2(codec.TypeRequest, i, "app.slow", "x"))
		}
		eventually(t, "10 requests are in flight", func() bool { return g.Stats().Inflight == 10 })
		for i, p := range peers {
			p.send(v2(codec.TypeRequest, 99, "app.slow", "x"))
			p.expectError(2, 99, codec.CodeOverloaded, false)
			if n := g.Stats().InflightRefused; n != uint64(3*round+i+1) {
				t.Errorf("%d refusals counted, want %d", n, 3*round+i+1)
			}
		}
		for range 10 {
			m := <-asked
			_ = m.Respond(m.Data)
		}
		for i := range 10 {
			if f := peers[i%3].receive(); f.Type != codec.TypeResponseOK {
				t.Fatalf("got %v %s", f.Type, f.Payload)
			}
		}
		for _, p := range peers {
			_ = p.Close()
		}
		eventually(t, "the connections are gone", func() bool { return g.Stats().Connections == 0 })
	}
}

// Goal: what is in flight when a client stops to read may be answered with more than may wait for it: the client
// is closed then, and others do not notice.
func TestClientThatDoesNotReadIsClosedAtTheLimit(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	asked := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.large", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxClientBufferBytes = 1 << 20
	g := runGateway(t, cfg)
	waitReady(t, g)
	good, p := dial(t, g), dial(t, g)
	for id := range uint64(50) {
		p.send(v2(codec.TypeRequest, id, "app.large", ""))
	}
	large := make([]byte, 100_000)
	for range 50 {
		_ = (<-asked).Respond(large)
	}
	eventually(t, "the client is counted as slow", func() bool { return g.Stats().SlowClientsClosed == 1 })
	eventually(t, "nothing of it is left", func() bool {
		s := g.Stats()
		return s.Connections == 1 && s.Inflight == 0 && s.ClientBytesBuffered == 0 && s.PausedConnections == 0
	})
	good.send(v1(codec.TypeTaskSubmit, "good"))
	good.expectOK(1, 0, "good")
}

// Goal: a client that reads slowly, but reads, gets every byte of more than its socket holds. What it asks for before it
// reads is less than half of MaxClientBufferBytes: from there on it would be paused, and wait for itself.
func TestSlowReaderGetsEverything(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	payload := strings.Repeat("x", 350_000)
	for range 10 {
		p.send(v1(codec.TypeTaskSubmit, payload))
	}
	eventually(t, "all answers wait", func() bool { st := g.Stats(); return st.Inflight == 0 && st.ClientBytesBuffered > 2_500_000 })
	for range 10 {
		p.expectOK(1, 0, payload)
	}
	eventually(t, "nothing waits", func() bool { return g.Stats().ClientBytesBuffered == 0 })
}

// Goal: what waits for a NATS connection that takes nothing is bounded, and the refusals are
// truthful: what was refused is not published when NATS takes bytes again.
func TestBytesWaitingForNATSAreBounded(t *testing.T) {
	s := runNATS(t, nil)
	published := make(chan *nats.Msg, 1000)
	answerWith(t, responder(t, s.ClientURL()), "app.sink", func(m *nats.Msg) { published <- m })
	dam := newProxy(t, s.Addr().String())
	cfg := testConfig(t, "nats://"+dam.address())
	cfg.MaxUpstreamBufferBytes, cfg.PauseMax = 1<<20, 0
	cfg.NATS.PingInterval = time.Minute
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	dam.hold()
	payload := strings.Repeat("x", 100_000)
	accepted, refused := 0, 0
	for id := uint64(0); refused == 0; id++ {
		if id > 1000 {
			t.Fatal("100 MB were taken for a NATS that takes nothing")
		}
		p.send(v2(codec.TypePublish, id, "app.sink", payload))
		// Each is answered OVERLOADED at once, OK once it is written, or waits.
		p.send(v2(codec.TypePing, 1<<40, "", ""))
		for f := p.receive(); f.Type != codec.TypePong; f = p.receive() {
			if f.Type == codec.TypeResponseOK {
				accepted++
				continue
			}
			info, err := codec.ParseError(f.Payload)
			if err != nil || info.Code != int(codec.CodeOverloaded) || info.Sent {
				t.Fatalf("answer: %s", f.Payload)
			}
			refused++
		}
	}
	st := g.Stats()
	waiting := int(st.Inflight)
	if st.UpstreamFullRefused != 1 || st.UpstreamBuffered > 1<<20 || st.UpstreamBuffered < 800_000 || waiting == 0 {
		t.Errorf("refused %d, buffered %d, in flight %d", st.UpstreamFullRefused, st.UpstreamBuffered, waiting)
	}
	dam.release()
	for range waiting {
		if f := p.receive(); f.Type != codec.TypeResponseOK {
			t.Fatalf("after the dam opened: %v %s", f.Type, f.Payload)
		}
	}
	for range accepted + waiting {
		<-published
	}
	select {
	case m := <-published:
		t.Errorf("a refused message was published: %d bytes", len(m.Data))
	default:
	}
}
