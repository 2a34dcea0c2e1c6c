package control

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aigroup/ipc-gateway/engine"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// gnet enrolls connections from a worker pool that lives as long as the process.
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreTopFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
	)
}

// stickyLog holds up whoever logs about a client that is killed: that is its event loop.
type stickyLog struct {
	slog.Handler
	stuck, release chan struct{}
}

func (l *stickyLog) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "closed by the operator") {
		close(l.stuck)
		<-l.release
	}
	return nil
}

func (l *stickyLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *stickyLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *stickyLog) WithGroup(string) slog.Handler            { return l }

// runServer starts a gateway of one loop without NATS, and its control server, which change may add to.
func runServer(t *testing.T, log *slog.Logger, change func(*Server)) (clients, path string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "ipcgw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	cfg := engine.DefaultConfig()
	cfg.SocketPath, cfg.Loops, cfg.Logger = filepath.Join(folder, "gw.sock"), 1, log
	cfg.NATS.URLs = []string{"nats://127.0.0.1:1"}
	g, err := engine.New(cfg)
	if err == nil {
		err = g.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	path = cfg.SocketPath + SocketSuffix
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Gateway: g, Version: "test", Log: log})
	if change != nil {
		change(s)
	}
	if err := s.Serve(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return cfg.SocketPath, path
}

// ask sends a request and decodes the answer into v.
func ask(t *testing.T, path, method, target string, v any) (status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	response, err := Do(ctx, path, method, target)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		t.Fatalf("%s %s: %v: %s", method, target, err, body)
	}
	return response.StatusCode
}

// Goal: while an event loop is stuck, what needs it is an error that names it, and what does not is answered.
func TestStuckLoop(t *testing.T) {
	log := &stickyLog{stuck: make(chan struct{}), release: make(chan struct{})}
	socket, path := runServer(t, slog.New(log), nil)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var clients Clients
	for deadline := time.Now().Add(10 * time.Second); len(clients.Clients) != 1; {
		if status := ask(t, path, http.MethodGet, "/v1/clients", &clients); status != http.StatusOK || time.Now().After(deadline) {
			t.Fatalf("%d, %+v", status, clients)
		}
	}

	var p problem
	if status := ask(t, path, http.MethodPost, "/v1/kill?client=1", &p); status != http.StatusServiceUnavailable ||
		!strings.Contains(p.Error, "client 1 may still be connected: event loop 0 does not answer") {
		t.Errorf("kill: %d, %+v", status, p)
	}
	<-log.stuck
	for _, target := range []string{"/v1/clients", "/v1/errors"} {
		p = problem{}
		if status := ask(t, path, http.MethodGet, target, &p); status != http.StatusServiceUnavailable || !strings.Contains(p.Error, "event loop 0 does not answer") {
			t.Errorf("%s: %d, %+v", target, status, p)
		}
	}
	for _, target := range []string{"/v1/status", "/v1/links", "/v1/routes"} {
		var ignored struct{}
		if status := ask(t, path, http.MethodGet, target, &ignored); status != http.StatusOK {
			t.Errorf("%s: %d", target, status)
		}
	}
	close(log.release)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v; want EOF", n, err)
	}
}

// Goal: what is added to a server is served, and can take over the connection, to pass descriptors on it.
func TestAddedEndpointTakesTheConnectionOver(t *testing.T) {
	_, path := runServer(t, slog.New(slog.DiscardHandler), func(s *Server) {
		s.Handle(http.MethodPost, "/v1/added", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, isUnix := conn.(*net.UnixConn); !isUnix {
				t.Errorf("it is a %T", conn)
			}
			_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nours"))
		})
	})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("POST /v1/added HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 101") || !strings.HasSuffix(string(answer), "\r\n\r\nours") {
		t.Errorf("%q, %v", answer, err)
	}
}

// Goal: bad ids are refused, and a client that is not there is not found.
func TestKillRefusals(t *testing.T) {
	_, path := runServer(t, slog.New(slog.DiscardHandler), nil)
	for target, want := range map[string]int{
		"/v1/kill": http.StatusBadRequest, "/v1/kill?client=-1": http.StatusBadRequest, "/v1/kill?client=all": http.StatusBadRequest,
		"/v1/kill?client=7": http.StatusNotFound,
	} {
		var p problem
		if status := ask(t, path, http.MethodPost, target, &p); status != want || !strings.Contains(p.Error, "ipc-gateway show clients") {
			t.Errorf("%s: %d, %+v; want %d", target, status, p, want)
		}
	}
}
