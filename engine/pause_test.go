package engine

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

// sendAside sends frames from a goroutine, since a paused client cannot send on.
func (p *peer) sendAside(frames ...codec.Frame) {
	p.t.Helper()
	var b []byte
	for i := range frames {
		b = codec.AppendFrame(b, &frames[i])
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = p.Write(b)
	}()
	p.t.Cleanup(func() {
		_ = p.Close()
		<-sent
	})
}

// repeat returns n frames, of which make makes each.
func repeat(n int, makeFrame func(i int) codec.Frame) (frames []codec.Frame) {
	for i := range n {
		frames = append(frames, makeFrame(i))
	}
	return frames
}

// pauses returns how often clients were paused for a reason.
func pauses(g *Gateway, why pauseReasons) uint64 {
	s := g.Stats()
	for i := range s.Pauses {
		if why == 1<<i {
			return s.Pauses[i]
		}
	}
	return 0
}

// refusals returns how many frames were answered with OVERLOADED.
func refusals(g *Gateway) uint64 { return g.Stats().Responses[outcomeOf(codec.CodeOverloaded)] }

// Goal: whatever limit on requests in flight is reached, the client waits, and in the end every request is answered in
// order as if there were none.
func TestTooManyRequestsInFlightWait(t *testing.T) {
	for _, test := range []struct {
		name   string
		why    pauseReasons
		change func(*Config)
	}{
		{"connection", pausedInflight, func(c *Config) { c.MaxInflightPerConnection = 4 }},
		{"connection, one", pausedInflight, func(c *Config) { c.MaxInflightPerConnection = 1 }},
		{"gateway", pausedGateway, func(c *Config) { c.MaxInflight = 64 }},
		{"gateway, one", pausedGateway, func(c *Config) { c.Loops, c.MaxInflight = 1, 1 }},
		{"peer", pausedPeer, func(c *Config) { c.Peers = []PeerRule{{ID: uint32(os.Getuid()), Inflight: 4}} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := runNATS(t, nil)
			nc := responder(t, s.ClientURL())
			asked := make(chan *nats.Msg, 1000)
			answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
			cfg := testConfig(t, s.ClientURL())
			cfg.Loops, cfg.PauseMax = 2, time.Hour
			test.change(&cfg)
			g := runGateway(t, cfg)
			waitReady(t, g)
			const n = 300
			peers := []*peer{dial(t, g), dial(t, g), dial(t, g)}
			for c, p := range peers {
				p.sendAside(repeat(n, func(i int) codec.Frame { return v1(codec.TypeTaskSubmit, fmt.Sprint(c, i)) })...)
			}
			eventually(t, "a client is paused", func() bool { return g.Stats().PausedConnections > 0 })
			go func() {
				for range n * len(peers) {
					_ = (<-asked).Respond([]byte("ok"))
				}
			}()
			for _, p := range peers {
				for range n {
					p.expectOK(1, 0, "ok")
				}
			}
			eventually(t, "nobody is paused", func() bool { return g.Stats().PausedConnections == 0 })
			if n := refusals(g); n != 0 {
				t.Errorf("%d requests were refused", n)
			}
			if pauses(g, test.why) == 0 {
				t.Errorf("pauses: %v", g.Stats().Pauses)
			}
			if g.Stats().PausedTime == 0 {
				t.Error("no time was counted")
			}
		})
	}
}

// Goal: a client whose requests have no room for too long is told so, and that only then.
func TestPatienceEnds(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 2, 300*time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	begin := time.Now()
	for id := range uint64(4) {
		p.send(v2(codec.TypeRequest, id, "app.slow", "x"))
	}
	p.expectError(2, 2, codec.CodeOverloaded, false)
	if took := time.Since(begin); took < cfg.PauseMax {
		t.Errorf("refused after %v", took)
	}
	p.expectError(2, 3, codec.CodeOverloaded, false) // at once: it has no patience of its own
	for range 2 {
		m := <-asked
		_ = m.Respond(m.Data)
		p.receive()
	}
	// With room again there is patience again.
	for id := range uint64(3) {
		p.send(v2(codec.TypeRequest, id, "app.slow", "x"))
	}
	eventually(t, "it is paused again", func() bool { return g.Stats().PausedConnections == 1 })
	for range 3 {
		m := <-asked
		_ = m.Respond(m.Data)
		p.receive()
	}
}

// Goal: what NATS does not take waits, of publishes that nobody is told about as well.
func TestTooManyBytesForNATSWait(t *testing.T) {
	for _, flags := range []uint16{0, codec.FlagNoReply} {
		t.Run(fmt.Sprintf("flags %d", flags), func(t *testing.T) {
			s := runNATS(t, nil)
			const n = 300
			published := make(chan *nats.Msg, n)
			answerWith(t, responder(t, s.ClientURL()), "app.sink", func(m *nats.Msg) { published <- m })
			dam := newProxy(t, s.Addr().String())
			cfg := testConfig(t, "nats://"+dam.address())
			cfg.MaxUpstreamBufferBytes, cfg.PauseMax = 1<<20, time.Hour
			cfg.NATS.PingInterval = time.Minute
			g := runGateway(t, cfg)
			waitReady(t, g)
			dam.hold()
			p := dial(t, g)
			payload := strings.Repeat("x", 100_000)
			p.sendAside(repeat(n, func(i int) codec.Frame {
				f := v2(codec.TypePublish, uint64(i), "app.sink", payload)
				f.Flags = flags
				return f
			})...)
			eventually(t, "the client is paused", func() bool { return g.Stats().PausedConnections == 1 })
			if st := g.Stats(); st.UpstreamBuffered > 1<<20 {
				t.Errorf("%d bytes wait for NATS", st.UpstreamBuffered)
			}
			dam.release()
			for range n {
				select {
				case <-published:
				case <-time.After(testTimeout):
					t.Fatal("a message is missing")
				}
			}
			if flags == 0 {
				for id := range uint64(n) {
					p.expectOK(2, id, "")
				}
			}
			if st := g.Stats(); refusals(g) != 0 || st.NoReplyRefused != 0 || pauses(g, pausedUpstream) == 0 {
				t.Errorf("%d and %d refused, pauses %v", refusals(g), st.NoReplyRefused, st.Pauses)
			}
		})
	}
}

// Goal: messages for JetStream wait while as many bytes as may are not acknowledged.
func TestTooManyBytesForJetStreamWait(t *testing.T) {
	s := runNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = true, t.TempDir() })
	nc := responder(t, s.ClientURL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	dam := newProxy(t, s.Addr().String())
	cfg := testConfig(t, "nats://"+dam.address())
	cfg.MaxHeldBytes, cfg.PauseMax, cfg.AckWait = 256<<10, time.Hour, time.Minute
	cfg.Routes.JetStream = []string{"orders"}
	cfg.NATS.PingInterval = time.Minute
	g := runGateway(t, cfg)
	waitReady(t, g)
	dam.hold()
	p := dial(t, g)
	const n = 100
	payload := strings.Repeat("x", 10_000)
	p.sendAside(repeat(n, func(i int) codec.Frame { return v2(codec.TypePublish, uint64(i), "orders", payload) })...)
	eventually(t, "the client is paused", func() bool { return g.Stats().PausedConnections == 1 })
	dam.release()
	for range n {
		if f := p.receive(); f.Type != codec.TypeResponseOK {
			t.Fatalf("got %v %s", f.Type, f.Payload)
		}
	}
	if pauses(g, pausedJetStream) == 0 {
		t.Errorf("pauses: %v", g.Stats().Pauses)
	}
}

// Goal: a client that does not read its answers is not read, whichever frames caused them; it gets all of them when it
// does, and others do not notice.
func TestClientThatDoesNotReadWaits(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxClientBufferBytes, cfg.MaxInflightPerConnection = 1<<20, 32 // what is in flight has room besides
	g := runGateway(t, cfg)
	waitReady(t, g)
	good := dial(t, g)
	for _, test := range []struct {
		name  string
		n     int
		flood codec.Frame
	}{
		{"requests", 500, v1(codec.TypeTaskSubmit, strings.Repeat("x", 10_000))},
		{"pings", 500, v2(codec.TypePing, 1, "", strings.Repeat("x", 10_000))},
		{"refusals", 50_000, v1(codec.TypeStreamData, "")},
		{"capabilities", 20_000, v1(codec.TypeCapabilities, "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, g)
			p.sendAside(repeat(test.n, func(int) codec.Frame { return test.flood })...)
			eventually(t, "the client is paused", func() bool { return g.Stats().PausedConnections == 1 })
			for range 100 {
				good.send(v1(codec.TypeTaskSubmit, "good"))
				good.expectOK(1, 0, "good")
			}
			if st := g.Stats(); st.ClientBytesBuffered > 1<<20 {
				t.Errorf("%d bytes wait", st.ClientBytesBuffered)
			}
			first := p.receive()
			for range test.n - 1 {
				if f := p.receive(); f.Type != first.Type || !bytes.Equal(f.Payload, first.Payload) {
					t.Fatalf("got %v %.100s", f.Type, f.Payload)
				}
			}
			_ = p.Close()
			eventually(t, "it is gone", func() bool { return g.Stats().Connections == 1 })
		})
	}
	if n := g.Stats().SlowClientsClosed; n != 0 {
		t.Errorf("%d clients were closed", n)
	}
}

// Goal: a paused client that goes away leaves nothing behind, whatever it was paused for.
func TestPausedClientGoesAway(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1000)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxClientBufferBytes, cfg.MaxInflightPerConnection, cfg.PauseMax = 1<<20, 8, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, test := range []struct {
		name  string
		flood codec.Frame
	}{
		{"answers", v2(codec.TypePing, 1, "", strings.Repeat("x", 10_000))},
		{"inflight", v1(codec.TypeTaskSubmit, "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, g)
			p.sendAside(repeat(1000, func(int) codec.Frame { return test.flood })...)
			eventually(t, "the client is paused", func() bool { return g.Stats().PausedConnections == 1 })
			_ = p.Close()
			if test.name == "inflight" { // it is seen to be gone when it is answered
				_ = (<-asked).Respond(nil)
			}
			eventually(t, "it is gone", func() bool { st := g.Stats(); return st.Connections == 0 && st.PausedConnections == 0 })
		})
	}
}

// Goal: who waits for room is told at once when the wait has no point any more.
func TestWaitingIsOverWhenNATSIsGone(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.never", func(*nats.Msg) {})
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 1, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.never", ""), v2(codec.TypeRequest, 2, "app.never", ""))
	eventually(t, "it is paused", func() bool { return g.Stats().PausedConnections == 1 })
	s.Shutdown()
	p.expectError(2, 1, codec.CodeConnectionClosed, true)
	p.expectError(2, 2, codec.CodeUnavailable, false)
}

// Goal: a wait that ended with the connection to NATS does not count for the next one. Method: one client takes the only request
// in flight that both may have, and the other waits; the connection is cut, and later it waits again. It is asked after a part of
// PauseMax whether it still does.
func TestWaitThatNATSHasEndedIsForgotten(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 2)
	answerWith(t, responder(t, s.ClientURL()), "app.slow", func(m *nats.Msg) { asked <- m })
	dam := newProxy(t, s.Addr().String())
	cfg := testConfig(t, "nats://"+dam.address())
	cfg.PauseMax, cfg.NATS.ReconnectWait = time.Second, 200*time.Millisecond
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Inflight = 1 })
	g := runGateway(t, cfg)
	waitReady(t, g)
	first, second := dial(t, g), dial(t, g)
	passed := func(d time.Duration) func() bool {
		begin := time.Now()
		return func() bool { return time.Since(begin) > d }
	}
	secondWaits := func(id uint64) {
		t.Helper()
		first.send(v2(codec.TypeRequest, id, "app.slow", "first"))
		eventually(t, "a request is in flight", func() bool { return len(asked) == 1 })
		second.send(v2(codec.TypeRequest, id, "app.slow", "second"))
		eventually(t, "the other one waits", func() bool { return g.Stats().PausedConnections == 1 })
	}
	secondWaits(1)
	tooLong := passed(cfg.PauseMax)
	dam.cut()
	first.expectError(2, 1, codec.CodeConnectionClosed, true)
	second.expectError(2, 1, codec.CodeUnavailable, false)
	<-asked
	waitReady(t, g)
	eventually(t, "the first wait would have been too long by now", tooLong)

	secondWaits(2)
	eventually(t, "it has waited for a while", passed(cfg.PauseMax/10))
	if st := g.Stats(); st.PausedConnections != 1 {
		t.Error("it waits no more")
	}
	for _, p := range []*peer{first, second} {
		m := <-asked
		_ = m.Respond(m.Data)
		p.expectOK(2, 2, string(m.Data))
	}
}

func TestDrainEndsWaiting(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 1, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), v2(codec.TypeRequest, 2, "app.slow", ""))
	eventually(t, "it is paused", func() bool { return g.Stats().PausedConnections == 1 })
	drained := make(chan error, 1)
	go func() { drained <- g.Drain(testTimeout) }()
	p.expectError(2, 2, codec.CodeShuttingDown, false)
	_ = (<-asked).Respond([]byte("late but fine"))
	p.expectOK(2, 1, "late but fine")
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// Goal: however much a client sends at once, another one's frame is served before all of it is.
func TestClientsTakeTurns(t *testing.T) {
	s := runNATS(t, nil)
	order := make(chan string, 1001)
	answerWith(t, responder(t, s.ClientURL()), "app.>", func(m *nats.Msg) { order <- m.Subject })
	cfg := testConfig(t, s.ClientURL())
	g := runGateway(t, cfg)
	waitReady(t, g)
	greedy, modest := dial(t, g), dial(t, g)
	for _, p := range []*peer{greedy, modest} {
		p.send(v1(codec.TypePing, ""))
		p.receive()
	}
	// Both are to be ready in the same pass, the greedy one with all that it sends.
	stand, arrived := make(chan struct{}), make(chan struct{})
	g.loops[0].post(func() {
		close(arrived)
		<-stand
	})
	<-arrived
	greedy.send(repeat(1000, func(i int) codec.Frame { return v2(codec.TypePublish, uint64(i), "app.greedy", "") })...)
	modest.send(v2(codec.TypePublish, 1, "app.modest", ""))
	close(stand)
	before := 0
	for subject := range order {
		if subject == "app.modest" {
			break
		}
		before++
	}
	if before > 2*framesPerTurn {
		t.Errorf("%d frames of the other client came first", before)
	}
	for id := range uint64(1000) {
		greedy.expectOK(2, id, "")
	}
}

// Goal: a client that begins a frame and does not complete it is told so and closed; one that is slow, but goes on
// to the end in time, is not.
func TestFrameTimeout(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.FrameTimeout = 200 * time.Millisecond
	g := runGateway(t, cfg)
	idle := dial(t, g)
	frame := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: 7, Payload: []byte("payload")})
	for _, test := range []struct {
		part    int
		version byte
		id      uint64
	}{{1, 1, 0}, {5, 2, 0}, {codec.HeaderBytesV2, 2, 7}, {len(frame) - 1, 2, 7}} {
		p := dial(t, g)
		p.sendBytes(frame)
		p.receive()
		begin := time.Now()
		p.sendBytes(frame[:test.part])
		p.expectError(test.version, test.id, codec.CodeInvalidPayload, false)
		if took := time.Since(begin); took < cfg.FrameTimeout {
			t.Errorf("closed after %v", took)
		}
		p.expectEOF()
	}
	if n := g.Stats().FrameTimeouts; n != 4 {
		t.Errorf("%d timeouts counted, want 4", n)
	}
	idle.sendBytes(frame)
	idle.receive()
}

// Goal: a reload of the time counts for frames that were begun before it, whether or not there was a time then.
func TestFrameTimeoutIsReloaded(t *testing.T) {
	for _, before := range []time.Duration{0, time.Hour} {
		cfg := testConfig(t, "nats://127.0.0.1:1")
		cfg.FrameTimeout = before
		g := runGateway(t, cfg)
		p := dial(t, g)
		p.ping()
		read := g.Stats().ClientBytesIn
		p.sendBytes(codec.AppendFrame(nil, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: 7, Payload: []byte("payload")})[:30])
		eventually(t, "a part of a frame was read", func() bool { return g.Stats().ClientBytesIn == read+30 })
		cfg.FrameTimeout = 50 * time.Millisecond
		if _, err := g.Reload(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		p.expectError(2, 7, codec.CodeInvalidPayload, false)
		p.expectEOF()
	}
}
