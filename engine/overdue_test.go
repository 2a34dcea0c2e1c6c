package engine

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
)

// deadlineSlack is how late a deadline may be kept on a machine that has other things to do as well.
const deadlineSlack = 2 * time.Second

// oneAtATime starts a gateway that takes one request of a client into flight, and a responder that hands out what it is asked on
// app.slow, and notes what it is asked on app.work.
func oneAtATime(t *testing.T, change func(*Config)) (g *Gateway, nc *nats.Conn, slow, work chan *nats.Msg) {
	t.Helper()
	s := runNATS(t, nil)
	nc = responder(t, s.ClientURL())
	slow, work = make(chan *nats.Msg, 10), make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { slow <- m })
	answerWith(t, nc, "app.work", func(m *nats.Msg) { work <- m; echo(m) })
	cfg := auditConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 1, time.Hour
	if change != nil {
		change(&cfg)
	}
	g = runGateway(t, cfg)
	waitReady(t, g)
	return g, nc, slow, work
}

func timed(f codec.Frame, timeout time.Duration) codec.Frame {
	f.TimeoutMs = uint32(timeout.Milliseconds())
	return f
}

// expectOnly checks that nothing but these was asked on app.work, all that is on its way included.
func expectOnly(t *testing.T, g *Gateway, nc *nats.Conn, work chan *nats.Msg, payloads ...string) {
	t.Helper()
	if err := g.flushToNATS(); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("app.work", []byte("marker")); err != nil {
		t.Fatal(err)
	}
	for _, want := range append(payloads, "marker") {
		if m := <-work; string(m.Data) != want {
			t.Fatalf("%q was executed, want %q", m.Data, want)
		}
	}
}

// Goal: the clock of a frame runs while it waits for room. When its deadline passes it is told so, and it is not executed
// later, when there is room. In version 1 the deadline is that of the route, and the answer keeps its place.
func TestDeadlinePassesWhileTheFrameWaits(t *testing.T) {
	g, nc, slow, work := oneAtATime(t, func(c *Config) {
		c.Routes.Query.Subject, c.Routes.Query.Timeout = "app.work", 100*time.Millisecond
	})
	p := dial(t, g)
	began := time.Now()
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), timed(v2(codec.TypeRequest, 2, "app.work", "late"), 100*time.Millisecond))
	info := p.expectError(2, 2, codec.CodeTimeout, false)
	if took := time.Since(began); took < 100*time.Millisecond || took > 100*time.Millisecond+deadlineSlack {
		t.Errorf("%q after %v", info.Message, took)
	}
	p.send(v1(codec.TypeTaskQuery, "late, too"))
	p.expectError(1, 0, codec.CodeTimeout, false)
	eventually(t, "nobody waits", func() bool { return g.Stats().PausedConnections == 0 })
	_ = (<-slow).Respond([]byte("slow"))
	p.expectOK(2, 1, "slow")
	p.send(timed(v2(codec.TypeRequest, 2, "app.work", "in time"), 10*time.Second))
	p.expectOK(2, 2, "in time")
	expectOnly(t, g, nc, work, "in time")
}

// Goal: the clock of frames that were read behind the one that waits runs as well. They are answered when it is their turn.
func TestDeadlinePassesBehindAFrameThatWaits(t *testing.T) {
	g, nc, slow, work := oneAtATime(t, nil)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), v2(codec.TypeRequest, 2, "app.work", "patient"),
		timed(v2(codec.TypeRequest, 3, "app.work", "late"), 50*time.Millisecond), v2(codec.TypePing, 4, "", ""))
	eventually(t, "it is paused", func() bool { return g.Stats().PausedConnections == 1 })
	until := time.Now().Add(100 * time.Millisecond)
	eventually(t, "the deadline has passed", func() bool { return time.Now().After(until) })
	_ = (<-slow).Respond([]byte("slow"))
	p.expectOK(2, 1, "slow")
	// The patient one may be answered before or after.
	got := map[uint64]codec.Frame{}
	for range 3 {
		f := p.receive()
		got[f.CorrelationID] = f
	}
	if info, err := codec.ParseError(got[3].Payload); err != nil || info.Code != int(codec.CodeTimeout) || info.Sent {
		t.Errorf("got %v %s", got[3].Type, got[3].Payload)
	}
	if got[2].Type != codec.TypeResponseOK || got[4].Type != codec.TypePong {
		t.Errorf("got %v and %v", got[2].Type, got[4].Type)
	}
	expectOnly(t, g, nc, work, "patient")
}

// Goal: what a request waited for room is a part of its time: of its deadline, of the metric, and of the audit log, which names the
// time at which it was read.
func TestWaitForRoomIsCounted(t *testing.T) {
	g, _, slow, _ := oneAtATime(t, nil)
	p := dial(t, g)
	before := time.Now()
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), timed(v2(codec.TypeRequest, 2, "app.slow", ""), 400*time.Millisecond))
	eventually(t, "it is paused", func() bool { return g.Stats().PausedConnections == 1 })
	read := time.Now()
	p.send(timed(v2(codec.TypeRequest, 3, "app.slow", ""), 20*time.Millisecond)) // it is not read before there is room
	until := time.Now().Add(200 * time.Millisecond)
	eventually(t, "it has waited", func() bool { return time.Now().After(until) })
	waited := time.Since(read)
	_ = (<-slow).Respond(nil)
	p.expectOK(2, 1, "")
	<-slow // the second is in flight, and the third waits
	p.expectError(2, 3, codec.CodeTimeout, false)
	p.expectError(2, 2, codec.CodeTimeout, true)
	if took := time.Since(before); took < 400*time.Millisecond || took > 400*time.Millisecond+deadlineSlack {
		t.Errorf("a deadline of 400ms passed after %v", took)
	}
	st := g.Stats()
	d := st.Durations[labelRequest]
	count := uint64(0)
	for _, n := range d.Buckets {
		count += n
	}
	if count != 2 || d.Sum < waited+400*time.Millisecond {
		t.Errorf("%d requests took %v, want 2 that took %v", count, d.Sum, waited+400*time.Millisecond)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, _ := readAudit(t, g.cfg.Audit.Path)
	if len(entries) != 3 {
		t.Fatalf("%d requests in the log", len(entries))
	}
	byID := map[uint64]auditEntry{}
	for _, e := range entries {
		byID[e.request.CorrelationID] = e
	}
	second, third := byID[2], byID[3]
	if at := second.request.Time; at < before.UnixNano() || at > read.UnixNano() || time.Duration(second.outcome.Duration) < 400*time.Millisecond {
		t.Errorf("%+v took %v, and came %v after it was sent", second.String(), time.Duration(second.outcome.Duration), time.Unix(0, at).Sub(before))
	}
	if d := time.Duration(third.outcome.Duration); third.outcome.Code != byte(codec.CodeTimeout) || d < 20*time.Millisecond {
		t.Errorf("%s took %v", third.String(), d)
	}
}

// Goal: who waits longer than pause_max is refused, and the audit log has the wait.
func TestRefusalAfterAWaitIsAudited(t *testing.T) {
	g, _, slow, _ := oneAtATime(t, func(c *Config) { c.PauseMax = 50 * time.Millisecond })
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), v2(codec.TypeRequest, 2, "app.slow", ""))
	p.expectError(2, 2, codec.CodeOverloaded, false)
	_ = (<-slow).Respond(nil)
	p.receive()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, _ := readAudit(t, g.cfg.Audit.Path)
	refused := false
	for _, e := range entries {
		if e.outcome.Code == byte(codec.CodeOverloaded) {
			refused = true
			if d := time.Duration(e.outcome.Duration); d < 50*time.Millisecond {
				t.Errorf("%s took %v", e.String(), d)
			}
		}
	}
	if !refused {
		t.Errorf("the refusal is not in the log: %v", entries)
	}
}

// Goal: a request that had most of its time while it waited for room says little about its service: it is no failure for the
// circuit breaker.
func TestTimeoutAfterAWaitIsNoFailure(t *testing.T) {
	g, _, slow, _ := oneAtATime(t, func(c *Config) {
		c.Audit = audit.Default()
		c.BreakerThreshold, c.BreakerMinTimeout = 1, 300*time.Millisecond
	})
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", ""), timed(v2(codec.TypeRequest, 2, "app.slow", ""), 400*time.Millisecond))
	eventually(t, "it is paused", func() bool { return g.Stats().PausedConnections == 1 })
	until := time.Now().Add(200 * time.Millisecond)
	eventually(t, "it has waited", func() bool { return time.Now().After(until) })
	_ = (<-slow).Respond(nil)
	p.expectOK(2, 1, "")
	p.expectError(2, 2, codec.CodeTimeout, true)
	if n := g.Stats().BreakersOpen; n != 0 {
		t.Errorf("%d breakers are open", n)
	}
}

// Goal: the histogram of durations has what was in flight, and nothing else: answers that cost the gateway nothing would make
// those of services look fast.
func TestDurationsAreOfRequestsInFlight(t *testing.T) {
	g, _, _, _ := oneAtATime(t, nil)
	p := dial(t, g)
	p.send(v1(codec.TypePing, ""), v1(codec.TypeCapabilities, ""), v1(codec.TypeStreamData, ""),
		v2(codec.TypeRequest, 1, "not..valid", ""), v2(codec.TypeRequest, 2, "app.work", ""))
	for range 5 {
		p.receive()
	}
	for label, d := range g.Stats().Durations {
		count, want := uint64(0), uint64(0)
		for _, n := range d.Buckets {
			count += n
		}
		if label == int(labelRequest) {
			want = 1
		}
		if count != want {
			t.Errorf("%s: %d durations, want %d", TypeLabels[label], count, want)
		}
	}
}
