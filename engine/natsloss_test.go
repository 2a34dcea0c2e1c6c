package engine

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/upstream"
)

// expectNothingMore checks that no answer is left over for p: the next frame is the answer to a PING.
func (p *peer) expectNothingMore() {
	p.t.Helper()
	p.send(v2(codec.TypePing, 1<<60, "", "last"))
	if f := p.receive(); f.Type != codec.TypePong || f.CorrelationID != 1<<60 {
		p.t.Fatalf("one answer too many: %v id %d %.200q", f.Type, f.CorrelationID, f.Payload)
	}
}

// expectUnready waits until Ready gives a reason with all of parts in it.
func expectUnready(t testing.TB, g *Gateway, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("Ready names %q; it says %v", parts, g.Ready()), func() bool {
		err := g.Ready()
		if err == nil {
			return false
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				return false
			}
		}
		return true
	})
}

// Goal: a gateway starts without NATS, says so, refuses requests at once, and connects when NATS
// comes. The reason is stable, and it is logged once, however many attempts fail.
func TestStartWithoutNATS(t *testing.T) {
	port := freePort(t)
	cfg := testConfig(t, fmt.Sprintf("nats://127.0.0.1:%d", port))
	cfg.Loops = 2
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	expectUnready(t, g, "NATS is not connected", "connection refused", fmt.Sprint(port))
	p := dial(t, g)
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; {
		p.send(v1(codec.TypeTaskSubmit, "x"), v2(codec.TypeRequest, 1, "app.x", "x"))
		info := p.expectError(1, 0, codec.CodeUnavailable, false)
		p.expectError(2, 1, codec.CodeUnavailable, false)
		if info.Message == "" {
			t.Error("UNAVAILABLE has no message")
		}
		if err := g.Ready(); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Fatalf("Ready: %v", err)
		}
	}
	if n := log.count("level=WARN"); n != 2 { // one of each loop
		t.Errorf("%d warnings, want 2", n)
	}
	natsd := startNATSD(t, natsdOptions{Port: port})
	waitReady(t, g)
	answerWith(t, responder(t, natsd.line), DefaultSubject, echo)
	p.send(v1(codec.TypeTaskSubmit, "now"))
	p.expectOK(1, 0, "now")
}

// Goal: when NATS is killed, each request in flight gets one answer, CONNECTION_CLOSED with sent:
// true, new ones are refused, and traffic goes on by itself when NATS is back.
func TestKilledNATS(t *testing.T) {
	natsd := startNATSD(t, natsdOptions{Port: freePort(t)})
	url := natsd.line
	cfg := testConfig(t, url)
	cfg.Loops = 2
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	peers := []*peer{dial(t, g), dial(t, g), dial(t, g)}
	for round := range 3 {
		nc := responder(t, url)
		asked := make(chan *nats.Msg, 1000)
		answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
		answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
		const each = 50
		for _, p := range peers {
			for id := range uint64(each) {
				p.send(v2(codec.TypeRequest, id, "app.slow", "x"), v1(codec.TypeTaskQuery, "x"), v1(codec.TypePing, ""))
			}
		}
		for range len(peers) * each * 2 {
			<-asked
		}
		natsd.kill()
		for _, p := range peers {
			seen := map[uint64]bool{}
			var inOrder []string
			for range 3 * each {
				f := p.receive()
				if f.Type == codec.TypePong {
					inOrder = append(inOrder, "pong")
					continue
				}
				info, err := codec.ParseError(f.Payload)
				if err != nil || info.Code != int(codec.CodeConnectionClosed) || !info.Sent {
					t.Fatalf("round %d: got %v %s, want CONNECTION_CLOSED, sent", round, f.Type, f.Payload)
				}
				if f.Version == 1 {
					inOrder = append(inOrder, "closed")
					continue
				}
				if seen[f.CorrelationID] || f.CorrelationID >= each {
					t.Fatalf("round %d: id %d is answered once too often", round, f.CorrelationID)
				}
				seen[f.CorrelationID] = true
			}
			if want := strings.TrimSuffix(strings.Repeat("closed pong ", each), " "); strings.Join(inOrder, " ") != want {
				t.Errorf("round %d: version 1 answers out of order: %v", round, inOrder)
			}
			p.expectNothingMore()
			p.send(v1(codec.TypeTaskSubmit, "x"))
			p.expectError(1, 0, codec.CodeUnavailable, false)
		}
		expectUnready(t, g, "connection refused")
		natsd = startNATSD(t, natsdOptions{Port: natsdPort(t, url)})
		waitReady(t, g)
		nc.Close()
		answerWith(t, responder(t, url), "app.echo", echo)
		for _, p := range peers {
			p.send(v2(codec.TypeRequest, 5, "app.echo", "works again"))
			p.expectOK(2, 5, "works again")
		}
	}
	if s := g.Stats(); s.LinkReconnects < 3*2 {
		t.Errorf("%d reconnects counted, want at least 6", s.LinkReconnects)
	}
	// Each loss is told once by each loop, with at most one more reason while it lasts.
	if n := log.count("level=WARN"); n > 3*2*2 {
		t.Errorf("%d warnings for 3 losses on 2 loops", n)
	}
}

// natsdPort returns the port in the URL of a server.
func natsdPort(t testing.TB, url string) (port int) {
	t.Helper()
	if _, err := fmt.Sscanf(url, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return port
}

// Goal: with default settings a frozen server is noticed within 10 s. What had been written to it is
// answered with sent: true. What its full socket never took is answered with sent: false, and is not
// executed when the server goes on. Method: requests of 100 kB each until the gateway can write no
// more; a responder that writes down what it is asked.
func TestFrozenNATS(t *testing.T) {
	t.Parallel()
	monitor := freePort(t)
	natsd := startNATSD(t, natsdOptions{Monitor: monitor})
	cfg := testConfig(t, natsd.line)
	cfg.NATS = upstream.Default()
	cfg.NATS.URLs = []string{natsd.line}
	cfg.MaxUpstreamBufferBytes = 1 << 30 // nothing is to be paused
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	nc := responder(t, natsd.line)
	var mu sync.Mutex
	executed := map[string]bool{}
	answerWith(t, nc, "app.work", func(m *nats.Msg) {
		name, _, _ := strings.Cut(string(m.Data), " ")
		mu.Lock()
		defer mu.Unlock()
		executed[name] = true
	})
	answerWith(t, nc, "app.echo", echo)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 0, "app.work", "0 before"))
	eventually(t, "the responder has the first request", func() bool { mu.Lock(); defer mu.Unlock(); return executed["0"] })

	natsd.freeze(t)
	frozen := time.Now()
	const requests = 300
	filler := strings.Repeat("x", 100_000)
	for id := uint64(1); id <= requests; id++ {
		p.send(v2(codec.TypeRequest, id, "app.work", fmt.Sprint(id, " ", filler)))
	}
	eventually(t, "all are in flight", func() bool { return g.Stats().Inflight == requests+1 })
	eventually(t, "bytes wait for NATS", func() bool { return g.Stats().UpstreamBuffered > 0 })
	answers := map[uint64]bool{}
	for range requests + 1 {
		f := p.receive()
		info, err := codec.ParseError(f.Payload)
		if _, twice := answers[f.CorrelationID]; twice || err != nil || info.Code != int(codec.CodeConnectionClosed) {
			t.Fatalf("answer to %d: %s", f.CorrelationID, f.Payload)
		}
		answers[f.CorrelationID] = info.Sent
	}
	if took := time.Since(frozen); took > 10*time.Second {
		t.Errorf("the frozen server was noticed after %v", took)
	}
	if !answers[0] || answers[requests] {
		t.Errorf("sent: %v for the first request, %v for the last; want true and false", answers[0], answers[requests])
	}
	p.expectNothingMore()
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectError(1, 0, codec.CodeUnavailable, false)
	// We closed it, and say why; the server did not.
	eventually(t, "the loss is explained", func() bool {
		return log.count("level=WARN", "given up") == 1 && log.count("level=WARN", "stale connection") >= 1
	})

	natsd.thaw(t)
	waitReady(t, g)
	p.send(v2(codec.TypeRequest, 7, "app.echo", "on it goes"))
	p.expectOK(2, 7, "on it goes")
	// The old connection's bytes are dealt with once the server has closed it.
	eventually(t, "the server has closed the old connection", func() bool { return gatewayConnections(t, monitor) == 1 })
	if err := nc.Publish("app.work", []byte("marker ")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the responder has seen all that came before", func() bool { mu.Lock(); defer mu.Unlock(); return executed["marker"] })
	mu.Lock()
	defer mu.Unlock()
	unsent := 0
	for id, sent := range answers {
		if !sent {
			unsent++
			if executed[fmt.Sprint(id)] {
				t.Errorf("request %d was answered with sent: false and executed", id)
			}
		}
	}
	t.Logf("%d requests: %d never sent, %d executed", requests+1, unsent, len(executed)-1)
}

// gatewayConnections returns how many connections of gateways a server has open.
func gatewayConnections(t testing.TB, monitor int) (n int) {
	t.Helper()
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/connz", monitor))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // only read
	defer http.DefaultClient.CloseIdleConnections()
	var connz server.Connz
	if err := json.NewDecoder(response.Body).Decode(&connz); err != nil {
		t.Fatal(err)
	}
	for _, c := range connz.Conns {
		if c.Name == "ipc-gateway" {
			n++
		}
	}
	return n
}
