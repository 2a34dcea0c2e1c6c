package engine

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// testTimeout bounds every wait of the tests. It is never slept through.
const testTimeout = 20 * time.Second

// runNATS starts a nats-server in this process on a free loopback port, or the given one.
func runNATS(t testing.TB, change func(*server.Options)) *server.Server {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxPayload: 1 << 20}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("nats-server: %v", err)
	}
	s.Start()
	if !s.ReadyForConnections(testTimeout) {
		t.Fatal("nats-server does not come up")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// responder connects a plain NATS client to s.
func responder(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatalf("responder: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// answerWith subscribes f to subject and waits until the server knows.
func answerWith(t testing.TB, nc *nats.Conn, subject string, f func(*nats.Msg)) {
	t.Helper()
	if _, err := nc.Subscribe(subject, f); err != nil {
		t.Fatalf("subscribing to %s: %v", subject, err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatalf("subscribing to %s: %v", subject, err)
	}
}

func echo(m *nats.Msg) { _ = m.Respond(m.Data) }

// testConfig returns a configuration with one loop, a socket of its own and a log that only shows
// when the test fails.
func testConfig(t testing.TB, url string) Config {
	cfg := DefaultConfig()
	cfg.SocketPath = filepath.Join(shortTempDir(t), "gw.sock")
	cfg.Loops = 1
	cfg.NATS.URLs = []string{url}
	cfg.NATS.ReconnectWait = 10 * time.Millisecond
	cfg.NATS.ReconnectJitter = 10 * time.Millisecond
	cfg.Logger = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cfg
}

// shortTempDir is t.TempDir with a path short enough for a socket in it.
func shortTempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "ipcgw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// runGateway starts a gateway, and checks at the end of the test that nothing of it is left over.
func runGateway(t testing.TB, cfg Config) *Gateway {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := g.Start(); err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		checkBalanced(t, g)
	})
	return g
}

// checkBalanced checks that a closed gateway has everything back that it lent out.
func checkBalanced(t testing.TB, g *Gateway) {
	t.Helper()
	s := g.Stats()
	if s.SlotsAcquired != s.SlotsReleased || s.BuffersAcquired != s.BuffersReleased {
		t.Errorf("slots: %d acquired, %d released; buffers: %d acquired, %d released",
			s.SlotsAcquired, s.SlotsReleased, s.BuffersAcquired, s.BuffersReleased)
	}
	if s.Connections != 0 || s.ClientBytesBuffered != 0 || s.UpstreamBuffered != 0 {
		t.Errorf("left over: %d connections, %d bytes for clients, %d for NATS", s.Connections, s.ClientBytesBuffered, s.UpstreamBuffered)
	}
	if s.InternalErrors != 0 {
		t.Errorf("%d internal errors", s.InternalErrors)
	}
	for _, l := range g.loops {
		if l.deadlines.count != 0 {
			t.Errorf("loop %d: %d deadlines are still armed", l.index, l.deadlines.count)
		}
		for _, entry := range l.ids.entries {
			if entry != 0 {
				t.Errorf("loop %d: a correlation id is still in use", l.index)
				break
			}
		}
	}
	for who, state := range g.peerStates {
		if c, i := state.connections.Load(), state.inflight.Load(); c != 0 || i != 0 {
			t.Errorf("%s: %d connections and %d requests in flight are still counted", who, c, i)
		}
	}
	free := g.budget.free.Load()
	for _, l := range g.loops {
		free += l.budget.inHand
	}
	if free != int64(g.cfg.MaxInflight) {
		t.Errorf("budget: %d of %d are free", free, g.cfg.MaxInflight)
	}
}

// eventually waits until condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func waitReady(t testing.TB, g *Gateway) {
	t.Helper()
	eventually(t, "the gateway is ready", func() bool { return g.Ready() == nil })
}

// peer is a client of the gateway under test.
type peer struct {
	t testing.TB
	*net.UnixConn
}

func dial(t testing.TB, g *Gateway) *peer {
	t.Helper()
	conn, err := net.Dial("unix", g.cfg.SocketPath)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	return &peer{t, conn.(*net.UnixConn)}
}

func (p *peer) send(frames ...codec.Frame) {
	p.t.Helper()
	var b []byte
	for i := range frames {
		b = codec.AppendFrame(b, &frames[i])
	}
	p.sendBytes(b)
}

func (p *peer) sendBytes(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// receive reads one frame.
func (p *peer) receive() codec.Frame {
	p.t.Helper()
	f, err := p.tryReceive()
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	return f
}

func (p *peer) tryReceive() (codec.Frame, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(p, head); err != nil {
		return codec.Frame{}, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head))
	copy(b, head)
	if _, err := io.ReadFull(p, b[4:]); err != nil {
		return codec.Frame{}, err
	}
	f, n, err := codec.Decode(b)
	if err != nil || n != len(b) {
		return f, fmt.Errorf("decoding %x: %d, %w", b, n, err)
	}
	return f, nil
}

// expectEOF checks that the gateway ends the stream, without a reset.
func (p *peer) expectEOF() {
	p.t.Helper()
	if n, err := p.Read(make([]byte, 1)); err != io.EOF {
		p.t.Errorf("read: %d bytes, %v; want EOF", n, err)
	}
}

func v1(t codec.Type, payload string) codec.Frame {
	return codec.Frame{Version: codec.Version1, Type: t, Payload: []byte(payload)}
}

func v2(t codec.Type, id uint64, subject, payload string) codec.Frame {
	return codec.Frame{Version: codec.Version2, Type: t, CorrelationID: id, Subject: []byte(subject), Payload: []byte(payload)}
}

func (p *peer) expectOK(version byte, id uint64, payload string) codec.Frame {
	p.t.Helper()
	f := p.receive()
	if f.Version != version || f.Type != codec.TypeResponseOK || f.CorrelationID != id || string(f.Payload) != payload {
		p.t.Fatalf("got version %d %v id %d %.200q; want version %d RESPONSE_OK id %d %.200q",
			f.Version, f.Type, f.CorrelationID, f.Payload, version, id, payload)
	}
	return f
}

func (p *peer) expectError(version byte, id uint64, code codec.ErrorCode, sent bool) codec.ErrorInfo {
	p.t.Helper()
	f := p.receive()
	if f.Version != version || f.Type != codec.TypeResponseError || f.CorrelationID != id {
		p.t.Fatalf("got version %d %v id %d %.200q; want version %d RESPONSE_ERROR id %d (%s)",
			f.Version, f.Type, f.CorrelationID, f.Payload, version, id, code.Name())
	}
	info, err := codec.ParseError(f.Payload)
	if err != nil {
		p.t.Fatalf("error object %q: %v", f.Payload, err)
	}
	if info.Code != int(code) || info.Name != code.Name() || info.Sent != sent || info.Retryable != code.Retryable() {
		p.t.Fatalf("got %+v; want %s, sent %v", info, code.Name(), sent)
	}
	return info
}
