package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

const megabyte = 1_000_000

// floodPings sends PINGs of 100 kB in the background until nothing more is taken, and waits until the gateway has stopped to read.
func floodPings(t *testing.T, g *Gateway, p *peer) {
	t.Helper()
	ping := v2(codec.TypePing, 1, "", strings.Repeat("z", 100_000))
	p.sendAside(repeat(30, func(int) codec.Frame { return ping })...)
	eventually(t, "the client is paused", func() bool { return g.Stats().PausedConnections == 1 })
}

// expectCutOff checks that a client was closed because it did not read, and not before time, and that nothing is left of it.
func expectCutOff(t *testing.T, g *Gateway, log *capturedLog, began time.Time) {
	t.Helper()
	eventually(t, "the client is closed", func() bool { return g.Stats().SlowClientsClosed == 1 })
	if took := time.Since(began); took < g.Config().ClientWriteTimeout {
		t.Errorf("closed after %v", took)
	}
	eventually(t, "nothing of it is left", func() bool {
		st := g.Stats()
		return st.Connections == 0 && st.ClientBytesBuffered == 0 && st.PausedConnections == 0
	})
	if n := log.count("level=WARN", "client is closed: it does not read its answers"); n != 1 {
		t.Errorf("that was logged %d times, want once", n)
	}
}

// Goal: a client that floods PING and never reads is closed and counted, although it is paused, and never more than its bound
// waits for it.
func TestFlooderThatNeverReadsIsClosed(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.MaxClientBufferBytes, cfg.ClientWriteTimeout = 1<<20, 300*time.Millisecond
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	began := time.Now()
	floodPings(t, g, dial(t, g))
	expectCutOff(t, g, log, began)
}

// Goal: so is one that is on its way out: it has shut down its writing side, or sent what is no protocol.
func TestFinishingClientThatNeverReadsIsClosed(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(p *peer)
	}{
		{"half-closed", func(p *peer) { _ = p.CloseWrite() }},
		{"bad frame", func(p *peer) { p.sendBytes([]byte{0, 0, 0, 9, 9}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testConfig(t, "nats://127.0.0.1:1")
			cfg.ClientWriteTimeout = 300 * time.Millisecond
			log := captureLog(t, &cfg)
			g := runGateway(t, cfg)
			p := dial(t, g)
			began := time.Now()
			for range 20 { // less than pauses it, more than its socket takes
				p.send(v2(codec.TypePing, 1, "", strings.Repeat("z", 100_000)))
			}
			eventually(t, "answers wait", func() bool { return g.Stats().ClientBytesBuffered > megabyte })
			test.end(p)
			expectCutOff(t, g, log, began)
		})
	}
}

// Goal: a client that takes a little now and then is not closed, however long that takes, and gets everything.
func TestSlowReaderIsNotClosed(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.ClientWriteTimeout = 500 * time.Millisecond
	g := runGateway(t, cfg)
	p := dial(t, g)
	const n, size = 20, 100_000
	p.sendAside(repeat(n, func(int) codec.Frame { return v2(codec.TypePing, 1, "", strings.Repeat("z", size)) })...)
	eventually(t, "answers wait", func() bool { return g.Stats().ClientBytesBuffered > megabyte })
	// It takes 64 KiB each time, ten times within the timeout, until three times the timeout is over.
	pace := time.NewTicker(cfg.ClientWriteTimeout / 10)
	defer pace.Stop()
	took, some := 0, make([]byte, 64<<10)
	for until := time.Now().Add(3 * cfg.ClientWriteTimeout); took < n*(codec.HeaderBytesV2+size); {
		if time.Now().Before(until) {
			<-pace.C
		}
		k, err := p.Read(some[:min(len(some), n*(codec.HeaderBytesV2+size)-took)])
		if err != nil {
			t.Fatalf("after %d bytes: %v", took, err)
		}
		took += k
	}
	if st := g.Stats(); st.SlowClientsClosed != 0 {
		t.Errorf("%d clients were closed", st.SlowClientsClosed)
	}
}

// Goal: who waits long for a service, and reads, is not closed.
func TestWriteTimeoutIsNotThatOfTheService(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.ClientWriteTimeout = 50 * time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	// Its socket is full at first, so that it is looked at.
	p.send(v2(codec.TypePing, 1, "", strings.Repeat("z", megabyte)), v1(codec.TypeTaskSubmit, ""))
	p.receive()
	m := <-asked
	until := time.Now().Add(4 * cfg.ClientWriteTimeout)
	eventually(t, "the timeout has passed", func() bool { return time.Now().After(until) })
	_ = m.Respond([]byte("late"))
	p.expectOK(1, 0, "late")
}

// Goal: 0 is for ever, and a reload that sets a timeout counts for clients that are stuck already.
func TestWriteTimeoutComesWithAReload(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.MaxClientBufferBytes, cfg.ClientWriteTimeout = 1<<20, 0
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	floodPings(t, g, dial(t, g))
	until := time.Now().Add(200 * time.Millisecond)
	eventually(t, "some time has passed", func() bool { return time.Now().After(until) })
	if st := g.Stats(); st.SlowClientsClosed != 0 || st.Connections != 1 {
		t.Fatalf("%d clients were closed", st.SlowClientsClosed)
	}
	cfg.ClientWriteTimeout = 100 * time.Millisecond
	began := time.Now()
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	expectCutOff(t, g, log, began)
}
