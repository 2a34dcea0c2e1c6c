package engine

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// breakerConfig returns a configuration whose breakers open after three failures, for an hour.
func breakerConfig(t testing.TB, url string) Config {
	cfg := testConfig(t, url)
	cfg.BreakerThreshold, cfg.BreakerOpenTime = 3, time.Hour
	cfg.BreakerProbes, cfg.BreakerSuccesses, cfg.BreakerMinTimeout = 1, 2, 10*time.Millisecond
	return cfg
}

// ask is a REQUEST with a timeout.
func ask(id uint64, subject string, timeout time.Duration) codec.Frame {
	f := v2(codec.TypeRequest, id, subject, "x")
	f.TimeoutMs = uint32(timeout.Milliseconds())
	return f
}

// expectRetryLater checks that p is told when to come back.
func (p *peer) expectRetryLater(version byte, id uint64, waitMax time.Duration) {
	p.t.Helper()
	info := p.expectError(version, id, codec.CodeUnavailable, false)
	if info.RetryAfterMs < 1 || info.RetryAfterMs > waitMax.Milliseconds() {
		p.t.Fatalf("got %+v; want retry_after_ms from 1 to %d", info, waitMax.Milliseconds())
	}
}

// openBreaker has the breaker of a subject open, on which nobody answers.
func (p *peer) openBreaker(g *Gateway, subject string) {
	p.t.Helper()
	before := g.Stats().BreakerTransitions[BreakerOpen]
	for id := range uint64(g.policy.Load().BreakerThreshold) {
		p.send(ask(id, subject, 20*time.Millisecond))
		p.expectError(2, id, codec.CodeTimeout, true)
	}
	if opened := g.Stats().BreakerTransitions[BreakerOpen] - before; opened != 1 {
		p.t.Fatalf("the breaker opened %d times, want once", opened)
	}
}

// breakerOf returns what the gateway lists of a subject.
func breakerOf(t testing.TB, g *Gateway, subject string) (info BreakerInfo, found bool) {
	t.Helper()
	list, err := g.Breakers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if info.Subject == subject {
			return info, true
		}
	}
	return BreakerInfo{}, false
}

// next waits for a message that a service gets.
func next(t testing.TB, asked <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case m := <-asked:
		return m
	case <-time.After(testTimeout):
		t.Fatal("the service is not asked")
		return nil
	}
}

// switchable answers on subject only while the result holds true.
func switchable(t testing.TB, nc *nats.Conn, subject string) *atomic.Bool {
	alive := new(atomic.Bool)
	answerWith(t, nc, subject, func(m *nats.Msg) {
		if alive.Load() {
			echo(m)
		}
	})
	return alive
}

// Goal: a service that does not answer is refused at once, with a time to come back, whichever frame asks; other subjects,
// and messages that want no answer, go on.
func TestBreakerShutsOutOneSubject(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	got := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.dead", func(m *nats.Msg) { got <- m })
	answerWith(t, nc, "app.live", echo)
	cfg := breakerConfig(t, s.ClientURL())
	cfg.Routes.Submit.Subject = "app.dead"
	cfg.Routes.Cancel = Route{Subject: "app.dead", Mode: ModePublish, Timeout: time.Second}
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.openBreaker(g, "app.dead")

	began := time.Now()
	p.send(ask(7, "app.dead", testTimeout), v1(codec.TypeTaskSubmit, "x"), ask(8, "app.live", testTimeout))
	p.expectRetryLater(2, 7, cfg.BreakerOpenTime)
	p.expectRetryLater(1, 0, cfg.BreakerOpenTime)
	p.expectOK(2, 8, "x")
	if took := time.Since(began); took > testTimeout/2 {
		t.Errorf("refused after %v, want at once", took)
	}
	durable := v2(codec.TypePublish, 9, "app.dead", "x")
	durable.Headers = []byte("Nats-Expected-Stream: ANY\r\n")
	noReply := v2(codec.TypePublish, 0, "app.dead", "no reply")
	noReply.Flags = codec.FlagNoReply
	p.send(durable, v2(codec.TypePublish, 10, "app.dead", "publish"), v1(codec.TypeTaskCancel, "cancel"), noReply)
	p.expectRetryLater(2, 9, cfg.BreakerOpenTime)
	for range 2 { // in whatever order
		if f := p.receive(); f.Type != codec.TypeResponseOK {
			t.Errorf("got %v %s", f.Type, f.Payload)
		}
	}
	want := map[string]int{"x": 3, "publish": 1, "cancel": 1, "no reply": 1}
	for range 6 {
		want[string(next(t, got).Data)]--
	}
	for payload, missing := range want {
		if missing != 0 {
			t.Errorf("the service got %q %d times too rarely", payload, missing)
		}
	}

	st := g.Stats()
	if st.BreakersOpen != 1 || st.BreakersHalfOpen != 0 || st.BreakerRefused != 3 || st.BreakerTransitions != [BreakerStateCount]uint64{BreakerOpen: 1} {
		t.Errorf("counted: %d open, %d half-open, %d refused, transitions %v", st.BreakersOpen, st.BreakersHalfOpen, st.BreakerRefused, st.BreakerTransitions)
	}
	if len(st.LoopBreakers) != 1 || st.LoopBreakers[0] != (BreakerCounts{BreakerOpen: 1}) {
		t.Errorf("counted by loop: %v", st.LoopBreakers)
	}
	info, _ := breakerOf(t, g, "app.dead")
	if left := time.Until(info.Until); info.State != BreakerOpen || info.Failures != 3 || left <= 0 || left > cfg.BreakerOpenTime {
		t.Errorf("listed as %+v", info)
	}
	if _, found := breakerOf(t, g, "app.live"); found {
		t.Error("a subject without failures is listed")
	}
	if n := log.count("level=WARN", "circuit breaker is open", "subject=app.dead"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// Goal: when the open time is over, without anybody asking, the breaker is half-open; one probe at a time passes; a probe that
// fails opens it again, and two that are answered close it.
func TestBreakerClosesWhenTheServiceAnswersAgain(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.work", func(m *nats.Msg) { asked <- m })
	cfg := breakerConfig(t, s.ClientURL())
	cfg.BreakerOpenTime = 50 * time.Millisecond
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.openBreaker(g, "app.work")
	halfOpen := func() bool { return g.Stats().CircuitBreakerState == uint64(BreakerHalfOpen) }
	eventually(t, "the breaker is half-open", halfOpen)
	p.send(ask(1, "app.work", 20*time.Millisecond))
	p.expectError(2, 1, codec.CodeTimeout, true)
	if st := g.Stats(); st.BreakerTransitions[BreakerOpen] != 2 || st.BreakerTransitions[BreakerClosed] != 0 {
		t.Errorf("after the failed probe: transitions %v", st.BreakerTransitions)
	}
	for range 4 {
		next(t, asked)
	}

	// While the breaker lets one more pass each 50 ms, its numbers cannot be looked at in peace.
	slow := cfg
	slow.BreakerOpenTime = time.Hour
	if _, err := g.Reload(t.Context(), slow); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the breaker is half-open again", halfOpen)
	for probe := range uint64(2) {
		p.send(ask(10+probe, "app.work", testTimeout), ask(20, "app.work", testTimeout), ask(21, "app.work", testTimeout))
		p.expectRetryLater(2, 20, slow.BreakerOpenTime/10)
		p.expectRetryLater(2, 21, slow.BreakerOpenTime/10)
		m := next(t, asked)
		_ = m.Respond(m.Data)
		p.expectOK(2, 10+probe, "x")
	}
	st := g.Stats()
	if st.CircuitBreakerState != 0 || st.BreakerTransitions[BreakerClosed] != 1 {
		t.Errorf("state %d, transitions %v", st.CircuitBreakerState, st.BreakerTransitions)
	}
	if list, err := g.Breakers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	if log.count("level=WARN", "circuit breaker") != 1 || log.count("level=INFO", "circuit breaker is closed", "subject=app.work") != 1 {
		t.Error("opening and closing were not logged once each")
	}
	p.send(ask(1, "app.work", testTimeout), ask(2, "app.work", testTimeout))
	for range 2 {
		m := next(t, asked)
		_ = m.Respond(m.Data)
	}
	p.expectOK(2, 1, "x")
	p.expectOK(2, 2, "x")
}

// Goal: what a breaker refuses does not wait for room first.
func TestBreakerRefusesWithoutRoom(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.dead", func(*nats.Msg) {})
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := breakerConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 1, time.Hour
	cfg.Routes.Submit.Subject = "app.dead"
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.openBreaker(g, "app.dead")
	p.send(ask(1, "app.slow", testTimeout), ask(2, "app.dead", testTimeout), v1(codec.TypeTaskSubmit, "x"), ask(3, "app.slow", testTimeout))
	p.expectRetryLater(2, 2, cfg.BreakerOpenTime)
	p.expectRetryLater(1, 0, cfg.BreakerOpenTime)
	for id := range uint64(2) {
		m := next(t, asked)
		_ = m.Respond(m.Data)
		p.expectOK(2, 1+2*id, "x")
	}
}

// Goal: requests that were in flight when the breaker opened do not count after it has closed.
func TestBreakerForgetsWhatWasInFlight(t *testing.T) {
	s := runNATS(t, nil)
	alive := switchable(t, responder(t, s.ClientURL()), "app.work")
	proxy := newProxy(t, s.Addr().String())
	cfg := breakerConfig(t, "nats://"+proxy.address())
	cfg.BreakerOpenTime = 10 * time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p, other := dial(t, g), dial(t, g)
	for id := range uint64(10) {
		other.send(ask(id, "app.work", testTimeout))
	}
	eventually(t, "ten requests are in flight", func() bool { return g.Stats().Inflight == 10 })
	p.openBreaker(g, "app.work")
	alive.Store(true)
	eventually(t, "the breaker is closed", func() bool {
		p.send(ask(1, "app.work", testTimeout))
		p.receive()
		return g.Stats().BreakerTransitions[BreakerClosed] == 1
	})
	proxy.cut()
	for range 10 {
		if f := other.receive(); f.Type != codec.TypeResponseError {
			t.Fatalf("got %v %s", f.Type, f.Payload)
		}
	}
	if list, err := g.Breakers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
}

// Goal: a lost connection is no failure of a subject whose request was not sent. Method: requests of 100 kB, each to a subject
// of its own, until the gateway can write no more; then the connection is cut.
func TestBreakerDoesNotCountWhatWasNotSent(t *testing.T) {
	s := runNATS(t, nil)
	proxy := newProxy(t, s.Addr().String())
	answerWith(t, responder(t, s.ClientURL()), "app.>", func(*nats.Msg) {})
	cfg := breakerConfig(t, "nats://"+proxy.address())
	cfg.MaxUpstreamBufferBytes = 1 << 30 // nothing is to be paused
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	proxy.hold()
	const requests = 300
	for id := range uint64(requests) {
		f := ask(id, fmt.Sprint("app.", id), testTimeout)
		f.Payload = make([]byte, 100_000)
		p.send(f)
	}
	eventually(t, "all are in flight", func() bool { return g.Stats().Inflight == requests })
	proxy.release()
	proxy.cut()
	sent := map[string]bool{}
	for range requests {
		f := p.receive()
		info, err := codec.ParseError(f.Payload)
		if err != nil || info.Code != int(codec.CodeConnectionClosed) {
			t.Fatalf("got %v %s", f.Type, f.Payload)
		}
		if info.Sent {
			sent[fmt.Sprint("app.", f.CorrelationID)] = true
		}
	}
	list, err := g.Breakers(t.Context())
	if err != nil || len(list) != len(sent) || len(sent) == 0 || len(sent) == requests {
		t.Errorf("%d breakers, %v; %d of %d requests were sent", len(list), err, len(sent), requests)
	}
	for _, info := range list {
		unsent := info.Subject != "" && !sent[info.Subject] // the texts of 256 subjects are kept
		if unsent || info.Failures != 1 {
			t.Errorf("%+v; sent: %v", info, !unsent)
		}
	}
}

// Goal: a lost connection is one failure of a subject, however many requests it takes along.
func TestBreakerCountsALostConnectionOnce(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1000)
	answerWith(t, responder(t, s.ClientURL()), "app.work", func(m *nats.Msg) { asked <- m })
	proxy := newProxy(t, s.Addr().String())
	g := runGateway(t, breakerConfig(t, "nats://"+proxy.address()))
	p := dial(t, g)
	for cut := range 3 {
		waitReady(t, g)
		const requests = 500
		for id := range uint64(requests) {
			p.send(ask(id, "app.work", testTimeout))
		}
		for range requests {
			next(t, asked)
		}
		proxy.cut()
		for range requests {
			f := p.receive()
			if info, err := codec.ParseError(f.Payload); err != nil || info.Code != int(codec.CodeConnectionClosed) {
				t.Fatalf("got %v %s", f.Type, f.Payload)
			}
		}
		info, _ := breakerOf(t, g, "app.work")
		want := BreakerClosed
		if cut == 2 {
			want = BreakerOpen // three in a row are a reason
		}
		if info.Failures != cut+1 || info.State != want {
			t.Errorf("after cut %d: %+v", cut+1, info)
		}
	}
}

// Goal: neither a client that hardly waits, nor errors that show that somebody is there, open a breaker.
func TestBreakerIsNotOpenedBy(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.dead", func(*nats.Msg) {})
	answerWith(t, nc, "app.error", func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Nats-Service-Error-Code", "500")
		_ = m.RespondMsg(reply)
	})
	cfg := breakerConfig(t, s.ClientURL())
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	for _, test := range []struct {
		subject string
		timeout time.Duration
		code    codec.ErrorCode
	}{
		{"app.dead", cfg.BreakerMinTimeout - time.Millisecond, codec.CodeTimeout},
		{"app.error", testTimeout, codec.CodeServiceError},
		{"app.nobody", testTimeout, codec.CodeNoResponders},
	} {
		for id := range uint64(2 * cfg.BreakerThreshold) {
			p.send(ask(id, test.subject, test.timeout))
			p.expectError(2, id, test.code, true)
		}
	}
	if list, err := g.Breakers(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	alive := switchable(t, nc, "app.flaky")
	for id := range uint64(4 * cfg.BreakerThreshold) {
		answered := id%3 == 2 // never three failures in a row
		alive.Store(answered)
		if answered {
			p.send(ask(id, "app.flaky", testTimeout))
			p.expectOK(2, id, "x")
			continue
		}
		p.send(ask(id, "app.flaky", 20*time.Millisecond))
		p.expectError(2, id, codec.CodeTimeout, true)
	}
	if st := g.Stats(); st.BreakerTransitions[BreakerOpen] != 0 || st.BreakerRefused != 0 {
		t.Errorf("opened %d times, refused %d requests", st.BreakerTransitions[BreakerOpen], st.BreakerRefused)
	}
}

// Goal: acknowledgements of JetStream that do not come count as well.
func TestBreakerCountsMissingAcknowledgements(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "orders.new", func(*nats.Msg) {})
	g := runGateway(t, breakerConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	for id := range uint64(4) {
		f := durablePublish(id, "x", "")
		f.TimeoutMs = 20
		p.send(f)
		if id < 3 {
			p.expectError(2, id, codec.CodeTimeout, true)
		} else {
			p.expectRetryLater(2, id, time.Hour)
		}
	}
}

// Goal: a probe whose client goes away is neither a success nor a failure, and another one may take its place.
func TestBreakerProbeWhoseClientCloses(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 100)
	answerWith(t, responder(t, s.ClientURL()), "app.work", func(m *nats.Msg) { asked <- m })
	cfg := breakerConfig(t, s.ClientURL())
	cfg.BreakerOpenTime, cfg.BreakerSuccesses = 10*time.Millisecond, 1
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.openBreaker(g, "app.work")
	cfg.BreakerOpenTime = time.Hour // from the next opening on, and between extra probes
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the breaker is half-open", func() bool { return g.Stats().CircuitBreakerState == uint64(BreakerHalfOpen) })
	for range 3 {
		next(t, asked)
	}
	for range 3 {
		leaver := dial(t, g)
		leaver.send(ask(1, "app.work", testTimeout))
		next(t, asked)
		p.send(ask(1, "app.work", testTimeout))
		p.expectRetryLater(2, 1, time.Hour)
		_ = leaver.Close()
		eventually(t, "the client is gone", func() bool { return g.Stats().Connections == 1 })
	}
	p.send(ask(1, "app.work", testTimeout))
	m := next(t, asked)
	_ = m.Respond(m.Data)
	p.expectOK(2, 1, "x")
	if st := g.Stats(); st.BreakerTransitions != [BreakerStateCount]uint64{1, 1, 1} {
		t.Errorf("transitions %v", st.BreakerTransitions)
	}
}

// Goal: a reload changes the numbers of breakers that exist; a threshold of 0 drops them all.
func TestBreakersAfterAReload(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	for i := range 2 {
		answerWith(t, nc, fmt.Sprint("app.dead", i), func(*nats.Msg) {})
	}
	cfg := breakerConfig(t, s.ClientURL())
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	reload := func(threshold int) {
		t.Helper()
		cfg.BreakerThreshold = threshold
		if needRestart, err := g.Reload(t.Context(), cfg); err != nil || len(needRestart) != 0 {
			t.Fatal(needRestart, err)
		}
	}
	timesOut := func(subject string) {
		t.Helper()
		p.send(ask(1, subject, 20*time.Millisecond))
		p.expectError(2, 1, codec.CodeTimeout, true)
	}
	p.openBreaker(g, "app.dead0")
	timesOut("app.dead1")
	reload(2)
	timesOut("app.dead1")
	if n := g.Stats().BreakersOpen; n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
	reload(0)
	for range 5 {
		timesOut("app.dead0")
		timesOut("app.dead1")
	}
	if list, err := g.Breakers(t.Context()); err != nil || len(list) != 0 || g.Stats().CircuitBreakerState != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	reload(1)
	timesOut("app.dead0")
	p.send(ask(1, "app.dead0", testTimeout))
	p.expectRetryLater(2, 1, time.Hour)
}
