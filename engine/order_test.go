package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// heldBack starts a gateway and a client with one slow request of version 1 in flight, and n quick ones behind it that are
// answered with replies of the given size. answerFirst answers the slow one. The bound on what may wait is 1 MiB.
func heldBack(t *testing.T, n, replyBytes int) (g *Gateway, p *peer, answerFirst func()) {
	t.Helper()
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	slow, quick := make(chan *nats.Msg, 1), make(chan *nats.Msg, n)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { slow <- m })
	answerWith(t, nc, "app.quick", func(m *nats.Msg) { quick <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxClientBufferBytes = 1 << 20
	cfg.Routes.Submit.Subject, cfg.Routes.Query.Subject = "app.slow", "app.quick"
	g = runGateway(t, cfg)
	waitReady(t, g)
	p = dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, ""))
	p.send(repeat(n, func(int) codec.Frame { return v1(codec.TypeTaskQuery, "") })...)
	asked := make([]*nats.Msg, n)
	for i := range asked {
		asked[i] = <-quick
	}
	reply := []byte(strings.Repeat("x", replyBytes))
	for _, m := range asked {
		_ = m.Respond(reply)
	}
	return g, p, func() { _ = (<-slow).Respond([]byte("slow")) }
}

// Goal: answers that wait for the one to an earlier request wait for that, not for the client: it is paused, not closed, and
// has all of them in the end, although they are far more than may wait for a client that does not read.
func TestAnswersBehindASlowOneCloseNobody(t *testing.T) {
	const n, size = 150, 20_000
	g, p, answerFirst := heldBack(t, n, size)
	eventually(t, "all other answers wait", func() bool { return g.Stats().ClientBytesBuffered == n*(size+codec.HeaderBytesV1) })
	if st := g.Stats(); st.PausedConnections != 1 || pauses(g, pausedAnswers) != 1 {
		t.Errorf("%d connections are paused, pauses %v", st.PausedConnections, st.Pauses)
	}
	answerFirst()
	p.expectOK(1, 0, "slow")
	// Now they wait for the client, which has had no time to take them.
	want := strings.Repeat("x", size)
	for range n {
		p.expectOK(1, 0, want)
	}
	eventually(t, "nothing waits", func() bool {
		st := g.Stats()
		return st.ClientBytesBuffered == 0 && st.PausedConnections == 0 && st.Inflight == 0
	})
	if st := g.Stats(); st.SlowClientsClosed != 0 {
		t.Errorf("%d clients were closed", st.SlowClientsClosed)
	}
	p.send(v1(codec.TypePing, ""))
	p.receive()
}

// Goal: what waits for its turn is bounded. Replies over the bound are dropped, and each of their requests is told so in its
// place: it was sent.
func TestAnswersBehindASlowOneAreBounded(t *testing.T) {
	const n, size = 500, 20_000
	g, p, answerFirst := heldBack(t, n, size)
	eventually(t, "all others are answered", func() bool {
		sum := uint64(0)
		for _, count := range g.Stats().Responses {
			sum += count
		}
		return sum == n
	})
	bound := orderFactor*1<<20 + n*smallAnswerBytes
	if st := g.Stats(); st.ClientBytesBuffered > uint64(bound) || st.ClientBytesBuffered < 4_000_000 {
		t.Errorf("%d bytes wait", st.ClientBytesBuffered)
	}
	answerFirst()
	p.expectOK(1, 0, "slow")
	kept := 0
	for range n {
		f := p.receive()
		if f.Type == codec.TypeResponseOK && len(f.Payload) == size {
			kept++
			continue
		}
		if info, err := codec.ParseError(f.Payload); err != nil || info.Code != int(codec.CodeOverloaded) || !info.Sent {
			t.Fatalf("got %v %.200s", f.Type, f.Payload)
		}
	}
	if want := orderFactor * (1 << 20) / (size + codec.HeaderBytesV1); kept > want || kept < want/2 {
		t.Errorf("%d replies were kept, want %d at most", kept, want)
	}
	if n := g.Stats().SlowClientsClosed; n != 0 {
		t.Errorf("%d clients were closed", n)
	}
}

// Goal: a client with answers behind a slow one that goes away, or does not read, leaves nothing behind.
func TestAnswersBehindASlowOneAreGivenUp(t *testing.T) {
	g, p, answerFirst := heldBack(t, 150, 20_000)
	eventually(t, "answers wait", func() bool { return g.Stats().ClientBytesBuffered > 2_900_000 })
	cfg := g.Config()
	cfg.ClientWriteTimeout = 100 * time.Millisecond
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	answerFirst()
	eventually(t, "it is closed, since it does not read", func() bool {
		st := g.Stats()
		return st.SlowClientsClosed == 1 && st.Connections == 0 && st.ClientBytesBuffered == 0
	})
	_ = p.Close()
}
