package engine

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

func noReply(id uint64, subject, payload string) codec.Frame {
	f := v2(codec.TypePublish, id, subject, payload)
	f.Flags = codec.FlagNoReply
	return f
}

func TestSubjectsOfAPeer(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, ">", func(m *nats.Msg) {
		if m.Reply != "" && !strings.HasPrefix(m.Subject, "_INBOX.") {
			_ = m.Respond(m.Data)
		}
	})
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	cfg.Routes.Query.Subject = "app.query"
	cfg.Peers = ruleForUs(func(r *PeerRule) {
		r.Publish = []string{"app.>", "jobs.*.start", "$SYS.REQ.>"}
		r.Subscribe = []string{"events.>"}
	})
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	for id, test := range []struct {
		frame codec.Frame
		code  codec.ErrorCode
	}{
		{v2(codec.TypeRequest, 0, "app.x.y", "a"), codec.CodeOK},
		{v2(codec.TypeRequest, 0, "jobs.1.start", "a"), codec.CodeOK},
		{v2(codec.TypeRequest, 0, "jobs.1.stop", "a"), codec.CodeUnauthorized},
		{v2(codec.TypePublish, 0, "app.x", "a"), codec.CodeOK},
		{v2(codec.TypePublish, 0, "other", "a"), codec.CodeUnauthorized},
		{v2(codec.TypePublish, 0, "app", "a"), codec.CodeUnauthorized},
		{v2(codec.TypePublish, 0, "app..x", "a"), codec.CodeInvalidPayload},
		{v2(codec.TypeTaskSubmit, 0, "", "a"), codec.CodeUnauthorized},
		{v2(codec.TypeTaskQuery, 0, "", "a"), codec.CodeOK},
		{v2(codec.TypeTaskSubmit, 0, "app.instead", "a"), codec.CodeOK},
		{v2(codec.TypeTaskQuery, 0, "other", "a"), codec.CodeUnauthorized},
		{v2(codec.TypePublish, 0, "$SYS.REQ.x", "a"), codec.CodeOK},
		{v2(codec.TypePublish, 0, "$SYS.DEBUG", "a"), codec.CodeUnauthorized},
		{v2(codec.TypeSubscribe, 0, "other.x", ""), codec.CodeUnauthorized},
		{v2(codec.TypeSubscribe, 0, "events.*", ""), codec.CodeInvalidType},
		{v2(codec.TypeSubscribe, 0, ">", ""), codec.CodeUnauthorized},
		{v2(codec.TypeSubscribe, 0, "a..b", ""), codec.CodeInvalidType},
		{v1(codec.TypeSubscribe, "other.x"), codec.CodeInvalidType},
		{v2(codec.TypePing, 0, "", "a"), codec.CodeOK},
	} {
		f := test.frame
		if f.Version == codec.Version2 {
			f.CorrelationID = uint64(id)
		}
		p.send(f)
		if test.code != codec.CodeOK {
			p.expectError(f.Version, f.CorrelationID, test.code, false)
		} else if got := p.receive(); got.Type == codec.TypeResponseError {
			t.Errorf("%v to %q: %s", f.Type, f.Subject, got.Payload)
		}
	}
	const refused = 8
	if st := g.Stats(); st.Peers[0].Refusals[refusedSubject] != refused || st.Responses[outcomeOf(codec.CodeUnauthorized)] != refused {
		t.Errorf("%d refusals counted, %d answered, want %d", st.Peers[0].Refusals[refusedSubject], st.Responses[outcomeOf(codec.CodeUnauthorized)], refused)
	}

	// In version 1 the refusal keeps its place, and NO_REPLY gets none.
	p.send(v1(codec.TypeTaskQuery, "1"), v1(codec.TypeTaskSubmit, "2"), noReply(0, "other", "x"), v1(codec.TypeTaskQuery, "3"))
	p.expectOK(1, 0, "1")
	p.expectError(1, 0, codec.CodeUnauthorized, false)
	p.expectOK(1, 0, "3")
	if st := g.Stats(); st.NoReplyRefused != 1 || st.Peers[0].Refusals[refusedSubject] != refused+2 {
		t.Errorf("%d NO_REPLY refusals, %d of subjects", st.NoReplyRefused, st.Peers[0].Refusals[refusedSubject])
	}
}

// Goal: without a rule everything may be published to but what is reserved: of the inboxes those of all of our links, and
// no others, because a worker has to answer there.
func TestReservedSubjectsAreRefusedToEverybody(t *testing.T) {
	s := runNATS(t, nil)
	got := make(chan string, 10)
	answerWith(t, responder(t, s.ClientURL()), "_INBOX.>", func(m *nats.Msg) { got <- m.Subject })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 3
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	reserved := []string{"$SYS.REQ.SERVER.PING", "$JS.API.STREAM.DELETE.orders", "$JS.hub.API.INFO"}
	for _, l := range g.loops {
		reserved = append(reserved, string(l.link.Inbox())+"17")
	}
	for _, subject := range reserved {
		p.send(v2(codec.TypePublish, 1, subject, "x"), v2(codec.TypeTaskSubmit, 2, subject, "x"))
		p.expectError(2, 1, codec.CodeUnauthorized, false)
		p.expectError(2, 2, codec.CodeUnauthorized, false)
	}
	for _, subject := range []string{"$KV.b.k", "$JS.ACK.s.c.1.1.1", "_INBOX.worker.9"} {
		p.send(v2(codec.TypePublish, 1, subject, "x"))
		p.expectOK(2, 1, "")
	}
	if subject := <-got; subject != "_INBOX.worker.9" {
		t.Errorf("%s was published to", subject)
	}
	p.send(v2(codec.TypeSubscribe, 1, "_INBOX.>", ""), v2(codec.TypeSubscribe, 2, "app.>", ""))
	p.expectError(2, 1, codec.CodeUnauthorized, false)
	p.expectError(2, 2, codec.CodeInvalidType, false)
	if n := g.Stats().OtherPeers.Refusals[refusedSubject]; n != uint64(2*len(reserved)+1) {
		t.Errorf("%d refusals counted", n)
	}

	// Those who have to answer our own clients' requests are told so by a rule.
	listed := cfg
	listed.Peers = ruleForUs(func(r *PeerRule) { r.Publish = []string{"_INBOX.>", "$JS.API.>"} })
	if _, err := g.Reload(t.Context(), listed); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{reserved[1], reserved[3]} {
		p.send(v2(codec.TypePublish, 1, subject, "x"))
		p.expectOK(2, 1, "")
	}
	p.send(v2(codec.TypePublish, 1, reserved[0], "x"))
	p.expectError(2, 1, codec.CodeUnauthorized, false)
}

// The operator may route to what clients may not name.
func TestRouteToAReservedSubject(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "$JS.API.INFO", echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Submit.Subject = "$JS.API.INFO"
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectOK(1, 0, "x")
}

// Goal: the rate is one for all clients of a rule, whichever loops they are on, and exact. Method: so few requests a
// second that none is due during the test but the burst.
func TestRateOfAPeer(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.RequestsPerSecond, r.Burst = 0.001, 100 })
	g := runGateway(t, cfg)
	waitReady(t, g)
	peers := []*peer{dial(t, g), dial(t, g), dial(t, g), dial(t, g)}
	results := make([]map[codec.Type]int, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		results[i] = map[codec.Type]int{}
		wg.Go(func() {
			for range 50 {
				p.send(v1(codec.TypePing, ""), v1(codec.TypeCapabilities, "")) // neither counts
				p.receive()
				p.receive()
				p.send(v1(codec.TypeTaskSubmit, "x"))
				results[i][p.receive().Type]++
			}
		})
	}
	wg.Wait()
	sum := map[codec.Type]int{}
	for _, r := range results {
		for typ, n := range r {
			sum[typ] += n
		}
	}
	if sum[codec.TypeResponseOK] != 100 || sum[codec.TypeResponseError] != 100 {
		t.Errorf("answers: %v, want 100 of each", sum)
	}
	peers[0].send(noReply(0, DefaultSubject, "x"), v2(codec.TypePublish, 1, DefaultSubject, "x"))
	if info := peers[0].expectError(2, 1, codec.CodeRateLimited, false); !strings.Contains(info.Message, "0.001 requests a second, 100 at once") {
		t.Errorf("message %q", info.Message)
	}
	if st := g.Stats(); st.Peers[0].Refusals[refusedRate] != 102 || st.NoReplyRefused != 1 || st.Responses[outcomeOf(codec.CodeRateLimited)] != 101 {
		t.Errorf("counted: %+v, %d NO_REPLY", st.Peers[0], st.NoReplyRefused)
	}
}

// Goal: a rate that a reload has raised holds at once, however long the old one would have had the client wait; and one that it
// has left as it was forgets nothing.
func TestRaisedRateHoldsAtOnce(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	slow := func(r *PeerRule) { r.RequestsPerSecond, r.Burst = 0.001, 10 }
	cfg.Peers = ruleForUs(slow)
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	for range 10 {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		p.expectOK(1, 0, "x")
	}
	reload := func(change func(r *PeerRule)) {
		t.Helper()
		cfg.Peers = ruleForUs(change)
		if _, err := g.Reload(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	reload(slow)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectError(1, 0, codec.CodeRateLimited, false)
	reload(func(r *PeerRule) { r.RequestsPerSecond, r.Burst = 1000, 1 })
	eventually(t, "a request is admitted", func() bool {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		return p.receive().Type == codec.TypeResponseOK
	})
}

// Goal: over any time no more than burst + rate are admitted, and a client that keeps to the rate is never
// refused. Method: a clock of our own, and arrivals at random.
func TestRateIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		rate, burst := 0.01+rng.Float64()*10_000, 1+rng.IntN(50)
		interval := int64(1e9 / rate)
		state := &peerState{}
		start := rng.Int64N(1 << 40)
		now, admitted := start, 0
		for range 2000 {
			if rng.IntN(3) > 0 {
				now += rng.Int64N(2 * interval)
			}
			if state.takeRate(now, interval, int64(burst-1)*interval) {
				admitted++
			}
			if most := burst + int((now-start)/interval); admitted > most {
				t.Fatalf("rate %v, burst %d: %d admitted in %v, want at most %d", rate, burst, admitted, time.Duration(now-start), most)
			}
		}
		for range 100 {
			if now += interval * int64(burst+1); !state.takeRate(now, interval, int64(burst-1)*interval) {
				t.Fatalf("rate %v, burst %d: refused after a pause", rate, burst)
			}
		}
		for i := range 1000 {
			if now += interval; !state.takeRate(now, interval, int64(burst-1)*interval) {
				t.Fatalf("rate %v, burst %d: refused %d intervals into keeping to the rate", rate, burst, i)
			}
		}
	}
}

// Goal: requests in flight are counted over all loops, exactly, and come free by answers and by the
// end of the client.
func TestInflightOfAPeer(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 20)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops, cfg.PauseMax = 2, 50*time.Millisecond
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Inflight = 5 })
	g := runGateway(t, cfg)
	waitReady(t, g)
	state := g.peerStates.of(cfg.Peers[0].Who())
	for round := range 3 {
		peers := []*peer{dial(t, g), dial(t, g)}
		for i := range uint64(5) {
			peers[i%2].send(v2(codec.TypeRequest, i, "app.slow", "x"))
		}
		eventually(t, "5 requests are in flight", func() bool { return state.inflight.Load() == 5 })
		for _, p := range peers {
			p.send(v2(codec.TypeRequest, 9, "app.slow", "x"))
			p.expectError(2, 9, codec.CodeOverloaded, false)
		}
		if n := g.Stats().Peers[0].Refusals[refusedInflight]; n != uint64(2*round+2) {
			t.Errorf("%d refusals counted, want %d", n, 2*round+2)
		}
		for range 5 {
			m := <-asked
			if round != 1 {
				_ = m.Respond(m.Data)
			}
		}
		if round != 1 {
			for i := range uint64(5) {
				peers[i%2].receive()
			}
		}
		for _, p := range peers {
			_ = p.Close()
		}
		eventually(t, "nothing is in flight", func() bool { return state.inflight.Load() == 0 })
	}
}

// What is refused behind the rule's own check is not in flight.
func TestRefusedRequestsOfAPeerAreNotInFlight(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Inflight = 2 })
	p := dial(t, runGateway(t, cfg))
	for id := range uint64(5) {
		p.send(v2(codec.TypeRequest, id, "app.x", "x"))
		p.expectError(2, id, codec.CodeUnavailable, false)
	}

	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1)
	answerWith(t, responder(t, s.ClientURL()), "app.slow", func(m *nats.Msg) { asked <- m })
	cfg = testConfig(t, s.ClientURL())
	cfg.MaxInflight, cfg.PauseMax = 1, 50*time.Millisecond
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Inflight = 2 })
	g := runGateway(t, cfg)
	waitReady(t, g)
	p = dial(t, g)
	p.send(v2(codec.TypeRequest, 100, "app.slow", "x"))
	m := <-asked
	for id := range uint64(5) {
		p.send(v2(codec.TypeRequest, id, "app.slow", "x"))
		p.expectError(2, id, codec.CodeOverloaded, false)
	}
	if st := g.Stats(); st.InflightRefused != 5 || st.Peers[0].Refusals[refusedInflight] != 0 {
		t.Errorf("%d refusals at the gateway's limit, %d at the rule's; want 5 and none", st.InflightRefused, st.Peers[0].Refusals[refusedInflight])
	}
	_ = m.Respond(m.Data)
	p.expectOK(2, 100, "x")
}

// Goal: a reload gives connected clients their new rules at once, closes those that may not connect any more
// after what is in flight is answered, and forgets nothing that is counted.
func TestReloadChangesPermissions(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	answerWith(t, nc, DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	openToAll(t, &cfg)
	cfg.Loops, cfg.PauseMax = 2, 50*time.Millisecond
	cfg.AllowUIDs = []uint32{1001, 1002}
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	reload := func(cfg Config) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		if needRestart, err := g.Reload(ctx, cfg); err != nil || len(needRestart) != 0 {
			t.Fatalf("Reload: %v, %v", needRestart, err)
		}
	}
	ann, bob, us := dialAs(t, g, user{uid: 1001, gid: 1001}), dialAs(t, g, user{uid: 1002, gid: 1002}), dial(t, g)
	for _, p := range []*peer{ann, bob, us} {
		p.ping()
	}
	ann.send(v1(codec.TypeTaskSubmit, "x"))
	ann.expectOK(1, 0, "x")
	ann.send(v2(codec.TypeRequest, 1, "app.slow", "first"), v2(codec.TypeRequest, 2, "app.slow", "second"))
	first, second := <-asked, <-asked

	// Limits hold at once, for what was there before as well.
	limited := cfg
	limited.Peers = []PeerRule{{ID: 1001, Connections: 1, Inflight: 2, Publish: []string{"app.>"}}}
	reload(limited)
	ann.send(v1(codec.TypeTaskSubmit, "x"), v2(codec.TypeRequest, 3, "app.slow", "x"))
	ann.expectError(1, 0, codec.CodeUnauthorized, false)
	ann.expectError(2, 3, codec.CodeOverloaded, false)
	another := dialAs(t, g, user{uid: 1001, gid: 1001})
	another.expectError(1, 0, codec.CodeOverloaded, false)
	another.expectEOF()
	_ = first.Respond(first.Data)
	ann.expectOK(2, 1, "first")
	if c := g.Stats().Peers[0]; c.Name != "uid:1001" || c.Connections != 1 || c.Refusals != [PeerRefusalCount]uint64{1, 0, 1, 1} {
		t.Errorf("counted: %+v", c)
	}

	// A rule that moves to the group takes its clients along.
	moved := cfg
	moved.Peers = []PeerRule{{ID: 1001, Group: true, Inflight: 1}}
	reload(moved)
	ann.send(v2(codec.TypeRequest, 3, "app.slow", "x"))
	ann.expectError(2, 3, codec.CodeOverloaded, false)
	if old := g.peerStates.of("uid:1001"); old.connections.Load() != 0 || old.inflight.Load() != 0 {
		t.Errorf("left over: %d connections, %d in flight", old.connections.Load(), old.inflight.Load())
	}

	// Who is refused is told, after what he waits for.
	refused := cfg
	refused.AllowUIDs = []uint32{1002}
	reload(refused)
	ann.expectVerdict("uid 1001 is not allowed")
	_ = second.Respond(second.Data)
	ann.expectOK(2, 2, "second")
	ann.expectEOF()
	bob.ping()
	us.ping()
	if n := log.count("WARN", "clients are closed", "clients=1"); n != 1 {
		t.Errorf("%d messages about it, want 1", n)
	}
	dialAs(t, g, user{uid: 1001, gid: 1001}).expectRefusal("uid 1001 is not allowed")

	// And welcome again: the rule's own counts are as they were.
	_ = ann.Close()
	eventually(t, "nobody refused is left", func() bool { return g.peerStates.of(nobodyName).connections.Load() == 0 })
	reload(limited)
	again := dialAs(t, g, user{uid: 1001, gid: 1001})
	again.ping()
	if c := g.Stats().Peers[0]; c.Connections != 1 || c.Refusals != [PeerRefusalCount]uint64{1, 0, 1, 1} {
		t.Errorf("counted: %+v", c)
	}
}

// expectVerdict checks that p is told that it may not connect, with text in the message.
func (p *peer) expectVerdict(text string) {
	p.t.Helper()
	if info := p.expectError(1, 0, codec.CodeUnauthorized, false); !strings.Contains(info.Message, text) {
		p.t.Errorf("message %q, want %q in it", info.Message, text)
	}
}

// A gateway that does not run has no loops to follow.
func TestReloadNeedsARunningGateway(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(t.Context(), cfg); err == nil {
		t.Error("before Start: no error")
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Reload(t.Context(), cfg); err == nil {
		t.Error("after Close: no error")
	}
}

// A client that was accepted before a reload, and comes to its loop after it, is under the rules of now.
func TestReloadBetweenAcceptAndOpen(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	g := runGateway(t, cfg)
	us := peerCredentials{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	open := func(p *policy) *peer {
		t.Helper()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		rule := p.peers.ruleFor(us, pair[0])
		l := g.loops[0]
		l.clients.Add(1)
		g.connections.Add(1)
		rule.state.connections.Add(1)
		l.post(func() { l.open(pair[0], 1000, us, rule) })
		f := os.NewFile(uintptr(pair[1]), "client")
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(testTimeout))
		return &peer{t, conn.(*net.UnixConn)}
	}
	before := g.policy.Load()
	shut := cfg
	shut.Peers = ruleForUs(func(r *PeerRule) { r.Refuse = true })
	if _, err := g.Reload(t.Context(), shut); err != nil {
		t.Fatal(err)
	}
	refused := open(before)
	refused.expectRefusal("refused by the rule")
	_ = refused.Close()
	eventually(t, "it is gone", func() bool { return g.Stats().Connections == 0 })

	// And one that was accepted by a policy that its loop has not heard of yet.
	newest := newPolicy(&cfg, g.peerStates)
	g.policy.Store(newest)
	open(newest).ping()
	if s := g.Stats(); s.OtherPeers.Connections != 1 {
		t.Errorf("%d connections without a rule, want 1", s.OtherPeers.Connections)
	}
}

// Goal: connections that come and go during reloads which change who may connect end up counted nowhere
// (runGateway looks), and those who are allowed throughout are served throughout.
func TestReloadsAmongConnects(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.Loops = 3
	g := runGateway(t, cfg)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := dial(t, g)
				p.ping()
				_ = p.Close()
			}
		})
	}
	for i := range 200 {
		changed := cfg
		if i%2 == 0 {
			changed.Peers = ruleForUs(func(r *PeerRule) { r.Connections, r.Inflight = 100, 1 })
		}
		if _, err := g.Reload(t.Context(), changed); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	eventually(t, "all are gone", func() bool { return g.Stats().Connections == 0 })
}

// What a rule's numbers cost a request, there and back, while no other loop works on the same rule.
func BenchmarkPeerLimits(b *testing.B) {
	cfg := DefaultConfig()
	cfg.Peers = []PeerRule{{ID: 1, RequestsPerSecond: rateMax, Burst: burstMax, Inflight: maxInflightMax}}
	limited := newPeerTable(&cfg, peerStates{}).users[1]
	for name, r := range map[string]*peerRule{"limited": limited, "unlimited": limited.table.others} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for now := int64(0); b.Loop(); now += 2000 {
				if !r.takeRate(now) || !r.takeInflight() {
					b.Fatal("refused")
				}
				r.giveInflight()
			}
		})
	}
}
