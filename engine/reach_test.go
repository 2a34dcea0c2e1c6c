package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

// withHeaders returns f with header lines, each without its end.
func withHeaders(f codec.Frame, lines ...string) codec.Frame {
	for _, line := range lines {
		f.Headers = append(append(f.Headers, line...), "\r\n"...)
	}
	return f
}

// Goal: nobody has the server publish by a header where he may not publish himself: neither with a list of subjects, nor
// without one to what is reserved. Method: a subscriber there, and frames of every kind; the last one may, and everything that
// came before it would have been delivered before its trace event.
func TestTraceDestinationNeedsPermission(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.>", func(m *nats.Msg) {
		if m.Reply != "" {
			_ = m.Respond(m.Data)
		}
	})
	traced := make(chan string, 100)
	for _, subject := range []string{"other.>", "traces.>", "$JS.API.>"} {
		answerWith(t, nc, subject, func(m *nats.Msg) { traced <- m.Subject })
	}
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Submit.Subject = "app.task"
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Publish = []string{"app.>", "traces.*"} })
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	refused := uint64(0)
	expectRefused := func(f codec.Frame) {
		t.Helper()
		p.send(f)
		p.expectError(2, f.CorrelationID, codec.CodeUnauthorized, false)
		refused++
	}
	for _, lines := range [][]string{
		{"Nats-Trace-Dest: other.x"},
		{"Nats-Trace-Dest:other.x", "Nats-Trace-Only: true"},
		{"nats-TRACE-dest: other.x"},
		{"Nats-Trace-Dest: \t $JS.API.STREAM.DELETE.x \t"},
		{"X-Mine: 1", "Nats-Trace-Dest:", "Nats-Trace-Dest: traces.x", "Nats-Trace-Dest: other.x", "X-Last: 2"},
		{"Nats-Trace-Dest: traces.>"},
	} {
		expectRefused(withHeaders(v2(codec.TypeRequest, 1, "app.x", "a"), lines...))
		expectRefused(withHeaders(v2(codec.TypePublish, 2, "app.x", "a"), lines...))
		expectRefused(withHeaders(v2(codec.TypeTaskSubmit, 3, "", "a"), lines...))
		expectRefused(withHeaders(v2(codec.TypePublish, 4, "app.x", "a"), append(lines, "Nats-Expected-Stream: ORDERS")...))
		p.send(withHeaders(noReply(0, "app.x", "a"), lines...))
		refused++
	}
	p.send(withHeaders(v2(codec.TypeRequest, 5, "app.x", "a"), "Nats-Trace-Dest: traces.mine", "Nats-Trace-Hop: 1", "Natsy: other.x"))
	p.expectOK(2, 5, "a")
	if subject := <-traced; subject != "traces.mine" {
		t.Errorf("a trace event came on %s", subject)
	}
	if st := g.Stats(); st.Peers[0].Refusals[refusedSubject] != refused || st.NoReplyRefused != 6 {
		t.Errorf("%d refusals and %d of NO_REPLY are counted, want %d and 6", st.Peers[0].Refusals[refusedSubject], st.NoReplyRefused, refused)
	}

	// Without a list it is what is reserved.
	cfg.Peers = nil
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"$JS.API.STREAM.DELETE.x", "$SYS.x", string(g.loops[0].link.Inbox()) + "17"} {
		expectRefused(withHeaders(v2(codec.TypeRequest, 6, "app.x", "a"), "Nats-Trace-Dest: "+subject))
	}
	p.send(withHeaders(v2(codec.TypeRequest, 7, "app.x", "a"), "Nats-Trace-Dest: other.x"))
	p.expectOK(2, 7, "a")
	if subject := <-traced; subject != "other.x" {
		t.Errorf("a trace event came on %s", subject)
	}
}

// Goal: the same for what a stream does by headers: messages that are stored on another subject when they are due, copied from
// another one, schedules that are removed there, and a stream that is emptied.
func TestStreamHeadersNeedPermission(t *testing.T) {
	s, js := runJetStream(t)
	makeStream(t, js, jetstream.StreamConfig{
		Name: "PLANS", Subjects: []string{"app.>", "others.>"}, Storage: jetstream.MemoryStorage,
		AllowMsgSchedules: true, AllowRollup: true,
	})
	for _, subject := range []string{"others.secret", "app.read"} {
		if _, err := js.Publish(t.Context(), subject, []byte("of "+subject)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := testConfig(t, s.ClientURL())
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Publish = []string{"app.>"} })
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	plan := func(id uint64, lines ...string) codec.Frame {
		return withHeaders(v2(codec.TypePublish, id, "app.plan", "planned"), append(lines, "Nats-Expected-Stream: PLANS")...)
	}
	now := "Nats-Schedule: @at " + time.Now().UTC().Format(time.RFC3339)
	expectRefused := func(lines ...string) {
		t.Helper()
		p.send(plan(1, lines...))
		p.expectError(2, 1, codec.CodeUnauthorized, false)
	}
	expectRefused(now, "Nats-Schedule-Target: others.x")
	expectRefused(now, "Nats-Schedule-Target: app.due", "Nats-Schedule-Source: others.secret")
	expectRefused("Nats-Schedule-Next: purge", "Nats-Scheduler: others.plan")
	expectRefused("Nats-Rollup: all")
	expectRefused("Nats-Rollup:\tALL ")
	if got := stored(t, js, "PLANS"); len(got) != 2 {
		t.Fatalf("%d messages are stored, want 2", len(got))
	}

	stream, err := js.Stream(t.Context(), "PLANS")
	if err != nil {
		t.Fatal(err)
	}
	expectDue := func(payload string, lines ...string) {
		t.Helper()
		p.send(plan(2, append(lines, now, "Nats-Schedule-Target: app.due")...))
		p.expectAck(2, 2)
		eventually(t, "the message is stored where it is due", func() bool {
			m, err := stream.GetLastMsgForSubject(t.Context(), "app.due")
			return err == nil && string(m.Data) == payload
		})
	}
	expectDue("planned")
	expectDue("of app.read", "Nats-Schedule-Source: app.read")
	p.send(plan(3, "Nats-Rollup: sub"), plan(4, "Nats-Schedule-Next: purge", "Nats-Scheduler: app.other"))
	p.expectAck(2, 3)
	p.expectAck(2, 4)

	// Who has a list of what he may read may copy from there, and who may publish everywhere may empty a stream.
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Publish, r.Subscribe = []string{">"}, []string{"others.>"} })
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	expectDue("of others.secret", "Nats-Schedule-Source: others.secret")
	expectRefused(now, "Nats-Schedule-Target: app.due", "Nats-Schedule-Source: app.read")
	p.send(plan(5, "Nats-Rollup: all"))
	p.expectAck(2, 5)
	info, err := stream.Info(t.Context())
	if err != nil || info.State.Msgs != 1 {
		t.Errorf("after a rollup of all: %+v, %v", info, err)
	}
}

// Goal: looking for these headers allocates nothing, whatever the headers are.
func TestReachDoesNotAllocate(t *testing.T) {
	g, err := New(testConfig(t, "nats://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	set := newSubjectSet([]string{"app.>"}, &g.cfg)
	s := &session{rule: &peerRule{publish: set}}
	headers := []byte(strings.Join([]string{
		"X-Mine: 1", "nats-trace-dest: app.x", "Nats-Rollup: sub", "Nats-Schedule-Source: app.y", "Nats-Msg-Id: 1", "Nats-Rollup: all", "",
	}, "\r\n"))
	refused := 0
	if n := testing.AllocsPerRun(100, func() {
		if !g.loops[0].mayReach(s, headers) {
			refused++
		}
	}); n != 0 || refused != 101 {
		t.Errorf("%v allocations, %d refusals", n, refused)
	}
}
