package probe

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
)

// testTimeout bounds every wait. It is never slept through.
const testTimeout = 20 * time.Second

// eventually polls condition until it returns nil.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func startNATS(t *testing.T, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
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

// The probe of a real gateway through its life: without NATS, serving, draining, closed.
func TestProbeOfAGateway(t *testing.T) {
	broker := startNATS(t, server.RANDOM_PORT)
	url, port := broker.ClientURL(), broker.Addr().(*net.TCPAddr).Port
	folder, err := os.MkdirTemp("", "ipcgw") // t.TempDir may be too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })

	cfg := engine.DefaultConfig()
	cfg.SocketPath = filepath.Join(folder, "gw.sock")
	cfg.Loops = 2
	cfg.NATS.URLs = []string{url}
	cfg.NATS.ReconnectWait, cfg.NATS.ReconnectJitter = 10*time.Millisecond, 10*time.Millisecond
	cfg.Logger = slog.New(slog.DiscardHandler)
	gateway, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Close() })
	web := serve(t, gateway)
	expect := func(path string, code int, parts ...string) {
		t.Helper()
		eventually(t, func() error {
			got := do(t, web, http.MethodGet, path)
			for _, part := range parts {
				if got.code != code || !strings.Contains(got.body, part) {
					return fmt.Errorf("%s: got %d %s, want %d with %s", path, got.code, got.body, code, part)
				}
			}
			return nil
		})
	}

	expect("/health", 503, "not started")
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	expect("/health", 200, `{"status":"healthy","message":"Alive"}`)
	expect("/ready", 200, `{"status":"healthy","message":"Ready"}`)
	expect("/metrics", 200, "\nipc_nats_links_up 2\n", "\nipc_loops 2\n", "\nipc_nats_pool_connections_idle 2\n", "\nipc_draining 0\n")

	responder, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer responder.Close()
	if _, err := responder.Subscribe(engine.DefaultSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := responder.Flush(); err != nil {
		t.Fatal(err)
	}
	conn, err := client.Dial(t.Context(), cfg.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		answer, err := conn.Do(&codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte(`{}`)})
		if err != nil || answer.Type != codec.TypeResponseOK {
			t.Fatalf("got %v, %v, want RESPONSE_OK", answer.Type, err)
		}
	}
	expect("/metrics", 200,
		"\nipc_requests_total{type=\"submit\"} 3\n",
		"\nipc_responses_total{code=\"ok\"} 3\n",
		"\nipc_request_duration_seconds_count{type=\"submit\"} 3\n",
		"\nipc_connections 1\n", "\nipc_connections_total 1\n", "\nipc_inflight_requests 0\n",
		"\nipc_client_bytes_received_total 24\n", "\nipc_client_bytes_sent_total 24\n",
		"\nipc_flush_batch_messages_sum 3\n",
		"\nipc_slot_pool_acquired_total 3\n", "\nipc_slot_pool_released_total 3\n",
	)
	mustParse(t, do(t, web, http.MethodGet, "/metrics").body)

	broker.Shutdown()
	broker.WaitForShutdown()
	expect("/ready", 503, `{"status":"unhealthy","message":"NATS is not connected: `)
	expect("/health", 200, `"Alive"`)
	expect("/metrics", 200, "\nipc_nats_links_up 0\n", "\nipc_nats_pool_connections_idle 0\n")
	startNATS(t, port)
	expect("/ready", 200, `"Ready"`)
	expect("/metrics", 200, "\nipc_nats_links_up 2\n", "\nipc_nats_reconnects_total 2\n")

	if err := gateway.Drain(testTimeout); err != nil {
		t.Fatal(err)
	}
	expect("/ready", 503, `{"status":"unhealthy","message":"draining"}`)
	expect("/health", 200, `"Alive"`)
	expect("/metrics", 200, "\nipc_draining 1\n")
}
