package engine

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// patientDuck makes a server that keeps its clients for long once it was told to shut down.
func patientDuck(o *server.Options) {
	o.Username, o.Password = "app", "secret"
	o.LameDuckDuration, o.LameDuckGracePeriod = time.Minute, 30*time.Second
}

// Goal: told that its server shuts down, a gateway moves to another one, which it was told of, and
// answers with the old server's replies what was in flight: no request fails, none is answered twice,
// no reply counts as late. Once they are all answered, it leaves the old server. Method: two servers;
// the responder of the slow requests is at the first, which would not cut anybody for 30 seconds.
func TestLameDuckIsLeftBeforeItCuts(t *testing.T) {
	first, second := runCluster(t, patientDuck)
	asked := make(chan *nats.Msg, 100)
	answerWith(t, responder(t, withUser(first)), "app.slow", func(m *nats.Msg) { asked <- m })
	answerWith(t, responder(t, withUser(second)), DefaultSubject, echo)
	cfg := testConfig(t, withUser(first))
	cfg.Loops = 2
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	peers := []*peer{dial(t, g), dial(t, g)}
	const slow = 20
	for _, p := range peers {
		p.awaitResponder()
		for id := range uint64(slow) {
			p.send(v2(codec.TypeRequest, id, "app.slow", fmt.Sprint(id)))
		}
	}
	var inFlight []*nats.Msg
	for range slow * len(peers) {
		inFlight = append(inFlight, <-asked)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		first.LameDuckShutdown()
	}()
	eventually(t, "both loops have moved", func() bool { return g.Stats().LameDuckMoves == 2 })
	for _, p := range peers {
		p.send(v1(codec.TypeTaskSubmit, "after"))
		p.expectOK(1, 0, "after")
	}
	if n := second.NumClients(); n != 3 {
		t.Errorf("%d clients of the second server, want the responder and two loops", n)
	}
	for _, m := range inFlight {
		if err := m.Respond(m.Data); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range peers {
		seen := map[uint64]bool{}
		for range slow {
			f := p.receive()
			if f.Type != codec.TypeResponseOK || seen[f.CorrelationID] || string(f.Payload) != fmt.Sprint(f.CorrelationID) {
				t.Fatalf("answer to %d: %v %.200q", f.CorrelationID, f.Type, f.Payload)
			}
			seen[f.CorrelationID] = true
		}
		p.expectNothingMore()
	}
	eventually(t, "the old server is left by all but the responder", func() bool { return first.NumClients() == 1 })
	if s := g.Stats(); s.LateReplies != 0 || s.LinkReconnects != 0 || s.LinksUp != 2 || s.UpstreamDropped != 0 {
		t.Errorf("late replies %d, reconnects %d, links up %d, dropped %d", s.LateReplies, s.LinkReconnects, s.LinksUp, s.UpstreamDropped)
	}
	if n := log.count("shutting down"); n != 2 || log.count("level=WARN") != 0 {
		t.Errorf("%d times told of the move, want once each loop; %d warnings", n, log.count("level=WARN"))
	}
	for _, l := range g.loops { // the new connection is as good as the first: it reconnects
		if l.link.Epoch() != 1 {
			t.Errorf("loop %d: epoch %d", l.index, l.link.Epoch())
		}
	}
	first.Shutdown()
	<-ended
}

// Goal: what was in flight on the old server when that cut us is not lost: the server had taken it, and
// the reply comes by way of the new one. Method: the first server cuts soon after the move; only then
// the responder, at the second, replies.
func TestReplyAfterTheLameDuckHasCut(t *testing.T) {
	t.Parallel()
	first, second := runCluster(t, func(o *server.Options) {
		patientDuck(o)
		o.LameDuckDuration, o.LameDuckGracePeriod = 1100*time.Millisecond, time.Second
	})
	asked := make(chan *nats.Msg, 1)
	nc := responder(t, withUser(second))
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, withUser(first)))
	waitReady(t, g)
	p := dial(t, g)
	p.awaitResponder()
	p.send(v2(codec.TypeRequest, 1, "app.slow", "x"))
	m := <-asked
	first.LameDuckShutdown()
	first.WaitForShutdown()
	if s := g.Stats(); s.LameDuckMoves != 1 || s.Inflight != 1 {
		t.Errorf("%d moves, %d requests in flight; want 1 and 1", s.LameDuckMoves, s.Inflight)
	}
	if err := m.Respond([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	p.expectOK(2, 1, "at last")
	// The connection that it moved to reconnects like any other.
	port := second.Addr().(*net.TCPAddr).Port
	second.Shutdown()
	expectUnready(t, g, "NATS is not connected")
	second.WaitForShutdown()
	runNATS(t, func(o *server.Options) { patientDuck(o); o.Port = port })
	waitReady(t, g)
}

// Goal: without another server, the gateway stays until it is cut, says so once, and moves as soon as
// there is one.
func TestLameDuckWithoutAnotherServer(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	first := runNATS(t, patientDuck)
	cfg := testConfig(t, withUser(first))
	cfg.NATS.URLs = append(cfg.NATS.URLs, fmt.Sprintf("nats://app:secret@127.0.0.1:%d", port))
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	answerWith(t, responder(t, withUser(first)), DefaultSubject, echo)
	p := dial(t, g)
	go first.LameDuckShutdown()
	eventually(t, "it says that it has to stay", func() bool { return log.count("level=WARN", "staying until it cuts us") > 0 })
	p.send(v1(codec.TypeTaskSubmit, "still served"))
	p.expectOK(1, 0, "still served")
	second := runNATS(t, func(o *server.Options) { patientDuck(o); o.Port = port })
	answerWith(t, responder(t, withUser(second)), DefaultSubject, echo)
	eventually(t, "it has moved", func() bool { return g.Stats().LameDuckMoves == 1 })
	p.send(v1(codec.TypeTaskSubmit, "served again"))
	p.expectOK(1, 0, "served again")
	if n := log.count("staying until it cuts us"); n != 1 {
		t.Errorf("it says %d times that it has to stay, want once", n)
	}
	first.Shutdown()
}
