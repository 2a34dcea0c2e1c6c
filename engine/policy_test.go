package engine

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

func TestReloadChangesRoutesAndLimitsAndDropsNothing(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "old", func(m *nats.Msg) { asked <- m })
	answerWith(t, nc, "new", func(m *nats.Msg) { _ = m.Respond([]byte("from new")) })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	cfg.Routes.Submit.Subject = "old"
	g := runGateway(t, cfg)
	waitReady(t, g)
	first, second := dial(t, g), dial(t, g) // one on each loop
	first.send(v1(codec.TypeTaskSubmit, "x"))
	inFlight := <-asked

	changed := cfg
	changed.Routes.Submit = Route{Subject: "new", Mode: ModeRequest, Timeout: time.Second}
	changed.MaxConnections = 2
	changed.Loops, changed.MaxInflight = 3, 7
	changed.NATS.URLs = []string{"nats://elsewhere:4222"}
	needRestart, err := g.Reload(t.Context(), changed)
	if err != nil || !slices.Equal(needRestart, []string{"loops", "max_inflight", "nats"}) {
		t.Fatalf("Reload: %v, %v", needRestart, err)
	}
	second.send(v1(codec.TypeTaskSubmit, "y"))
	second.expectOK(1, 0, "from new")
	_ = inFlight.Respond([]byte("from old"))
	first.expectOK(1, 0, "from old")
	third := dial(t, g)
	third.expectError(1, 0, codec.CodeOverloaded, false)
}

func TestReloadOfABadConfigurationChangesNothing(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	g := runGateway(t, cfg)
	waitReady(t, g)
	bad := cfg
	bad.Routes.Submit.Subject = "a..b"
	bad.MaxConnections = 0
	if _, err := g.Reload(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "a..b") || !strings.Contains(err.Error(), "max connections") {
		t.Fatalf("Reload: %v", err)
	}
	p := dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectOK(1, 0, "x")
}

// A session that is paused in the middle of a read goes on where it stopped, whatever came meanwhile.
func TestPausedSessionGoesOnWhereItStopped(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	g := runGateway(t, cfg)
	l := g.loops[0]
	onLoop := func(do func(s *session)) {
		t.Helper()
		done := make(chan struct{})
		l.post(func() {
			for _, s := range l.watch.sessions {
				if s != nil {
					do(s)
				}
			}
			close(done)
		})
		select {
		case <-done:
		case <-time.After(testTimeout):
			t.Fatal("the loop does not turn")
		}
	}
	const reason = pausedHandover
	p := dial(t, g)
	p.send(v1(codec.TypePing, ""))
	p.receive()
	whole := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: 1, Payload: []byte("one")})
	two := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: 2, Payload: []byte("two")})
	half := two[:len(two)/2]

	// As if the first of these frames had paused it.
	onLoop(func(s *session) {
		l.pause(s, reason)
		l.hold(s, append(slices.Clone(whole), half...))
	})
	p.sendBytes(two[len(two)/2:])
	p.send(v2(codec.TypePing, 3, "", "three"))
	if err := p.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := g.Alive(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := g.Stats().Requests[labelPing]; n != 1 {
		t.Fatalf("%d pings were served while paused, want the 1 from before", n)
	}
	onLoop(func(s *session) { l.resume(s, reason) })
	for id, want := range []string{"one", "two", "three"} {
		if f := p.receive(); f.CorrelationID != uint64(id+1) || string(f.Payload) != want {
			t.Fatalf("got id %d %q, want %d %q", f.CorrelationID, f.Payload, id+1, want)
		}
	}
	p.expectEOF()
}
