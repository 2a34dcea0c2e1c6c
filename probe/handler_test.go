package probe

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// state is a source in the state that a test needs.
type state struct {
	alive func(context.Context) error // nil: alive
	ready error
	stats engine.Stats

	clients  []engine.ClientInfo
	links    []engine.LinkInfo
	breakers []engine.BreakerInfo
	stuck    error // of the loops that tell about the above
	asked    int   // times that the loops were asked
}

func (s *state) Alive(ctx context.Context) error {
	if s.alive == nil {
		return nil
	}
	return s.alive(ctx)
}
func (s *state) Ready() error        { return s.ready }
func (s *state) Stats() engine.Stats { return withLoop(s.stats) }

func (s *state) Clients(context.Context) ([]engine.ClientInfo, error) {
	s.asked++
	return s.clients, s.stuck
}
func (s *state) Links(context.Context) []engine.LinkInfo                { return s.links }
func (s *state) Breakers(context.Context) ([]engine.BreakerInfo, error) { return s.breakers, s.stuck }

// serve serves source on a real port, and returns its URL.
func serve(t *testing.T, source Source, options ...Option) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(NewHandler(source, options...))
	t.Cleanup(server.Close)
	return server
}

// answer is what a server answered, read whole.
type answer struct {
	code   int
	header http.Header
	body   string
}

func do(t *testing.T, server *httptest.Server, method, path string) answer {
	t.Helper()
	return ask(t, server, method, path, http.Header{"Accept-Encoding": {"identity"}})
}

// ask is do with another header.
func ask(t *testing.T, server *httptest.Server, method, path string, header http.Header) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func stuck(context.Context) error { return errors.New("event loop 1 does not turn") }

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name, path string
		source     state
		code       int
		body       string
	}{
		{"alive", "/health", state{}, 200, `{"status":"healthy","message":"Alive"}`},
		{"ready", "/ready", state{}, 200, `{"status":"healthy","message":"Ready"}`},
		{"stuck", "/health", state{alive: stuck}, 503, `{"status":"unhealthy","message":"event loop 1 does not turn"}`},
		{"draining", "/ready", state{ready: errors.New("draining")}, 503, `{"status":"unhealthy","message":"draining"}`},
		{"draining is alive", "/health", state{ready: errors.New("draining")}, 200, `{"status":"healthy","message":"Alive"}`},
		{"stuck is asked by health alone", "/ready", state{alive: stuck}, 200, `{"status":"healthy","message":"Ready"}`},
		{"reason is escaped", "/ready", state{ready: errors.New("NATS is not connected: \"x\"\n\\")}, 503, `{"status":"unhealthy","message":"NATS is not connected: \"x\"\n\\"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := serve(t, &c.source)
			get := do(t, server, http.MethodGet, c.path)
			if get.code != c.code || get.body != c.body {
				t.Errorf("got %d %s, want %d %s", get.code, get.body, c.code, c.body)
			}
			wantHeaders(t, get, "application/json", len(c.body))

			head := do(t, server, http.MethodHead, c.path)
			if head.code != c.code || head.body != "" {
				t.Errorf("HEAD: got %d %q, want %d without a body", head.code, head.body, c.code)
			}
			wantHeaders(t, head, "application/json", len(c.body))
		})
	}
}

func wantHeaders(t *testing.T, a answer, contentType string, length int) {
	t.Helper()
	for name, want := range map[string]string{"Content-Type": contentType, "Cache-Control": "no-store", "Content-Length": strconv.Itoa(length)} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// A loop that never turns does not hold /health for longer than aliveWait. The time is a bubble's.
func TestHealthDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &state{alive: func(ctx context.Context) error {
			<-ctx.Done()
			return stuck(ctx)
		}}
		asked := time.Now()
		recorder := httptest.NewRecorder()
		NewHandler(source).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", http.NoBody))
		if waited := time.Since(asked); waited != 2*time.Second || recorder.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d after %v, want 503 after 2s", recorder.Code, waited)
		}
	})
}

func TestOtherPathsAreNotFound(t *testing.T) {
	server := serve(t, &state{})
	for _, path := range []string{"/index.html", "/status", "/healthz", "/health/", "/metrics/x", "/READY", "/%2e%2e/health"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			got := do(t, server, method, path)
			if got.code != http.StatusNotFound || got.header.Get("Allow") != "" {
				t.Errorf("%s %s: got %d, Allow %q, want 404 without Allow", method, path, got.code, got.header.Get("Allow"))
			}
			for _, known := range []string{"/health\n", "/ready\n", "/metrics\n"} {
				if !strings.Contains(got.body, known) {
					t.Errorf("%s %s: %q does not name %q", method, path, got.body, known)
				}
			}
			if cache := got.header.Get("Cache-Control"); cache != "no-store" {
				t.Errorf("%s %s: Cache-Control is %q, want no-store", method, path, cache)
			}
		}
	}
}

func TestOtherMethodsAreNotAllowed(t *testing.T) {
	server := serve(t, &state{})
	for _, path := range []string{"/", "/status.json", "/health", "/ready", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "BREW"} {
			got := do(t, server, method, path)
			if got.code != http.StatusMethodNotAllowed || got.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: got %d, Allow %q, want 405, GET, HEAD", method, path, got.code, got.header.Get("Allow"))
			}
			if cache := got.header.Get("Cache-Control"); cache != "no-store" {
				t.Errorf("%s %s: Cache-Control is %q, want no-store", method, path, cache)
			}
		}
	}
}

func TestMetricsOverHTTP(t *testing.T) {
	server := serve(t, &state{stats: engine.Stats{Connections: 7}}, WithVersion("v9.8.7"))
	get := do(t, server, http.MethodGet, "/metrics")
	body := get.body
	if get.code != http.StatusOK {
		t.Errorf("got %d, want 200", get.code)
	}
	wantHeaders(t, get, "text/plain; version=0.0.4; charset=utf-8", len(body))
	families := mustParse(t, body)
	if got := families["ipc_connections"].series["ipc_connections"]; got != 7 {
		t.Errorf("ipc_connections is %v, want 7", got)
	}
	if !strings.Contains(body, `ipc_build_info{version="v9.8.7",`) {
		t.Error("the version is not told")
	}
	if families["go_goroutines"] == nil || families["process_open_fds"] == nil {
		t.Error("no metrics of Go and the process")
	}
	if len(body) > metricsBytes {
		t.Errorf("%d bytes at rest: raise metricsBytes from %d", len(body), metricsBytes)
	}

	head := do(t, server, http.MethodHead, "/metrics")
	if length, err := strconv.Atoi(head.header.Get("Content-Length")); head.body != "" || err != nil || length < 10_000 {
		t.Errorf("HEAD: got %q, Content-Length %q, want the length alone", head.body, head.header.Get("Content-Length"))
	}
}

// Scrapes at the same time share nothing; the race detector watches.
func TestScrapesAtTheSameTime(t *testing.T) {
	server := serve(t, &state{})
	var scrapes sync.WaitGroup
	for range 4 {
		scrapes.Go(func() {
			for _, path := range []string{"/metrics", "/health", "/ready", "/metrics"} {
				response, err := server.Client().Get(server.URL + path)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("%s: %d, %v", path, response.StatusCode, err)
				}
				if path == "/metrics" {
					if _, err := parse(string(body)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	scrapes.Wait()
}
