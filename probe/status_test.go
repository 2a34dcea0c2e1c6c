package probe

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/upstream"
)

// busy is a source with something of everything.
func busy() *state {
	s := &state{
		clients: []engine.ClientInfo{
			{ID: 1, UID: 1000, Requests: 10, Age: 10 * time.Second},
			{ID: 2, UID: 1001, Requests: 500, Age: 10 * time.Second, Inflight: 3, Paused: []string{"answers"}},
		},
		links: []engine.LinkInfo{
			{Loop: 0, Description: upstream.Description{Up: true, Server: "nats://me:secret@10.1.2.3:4222", LastError: "of an hour ago"}},
			{Loop: 1, Description: upstream.Description{Server: "10.1.2.4:4222", LastError: "connection refused"}},
		},
		breakers: []engine.BreakerInfo{
			{Subject: "orders.a", State: engine.BreakerClosed, Failures: 1},
			{Subject: "orders.b", State: engine.BreakerOpen, Failures: 20},
		},
	}
	s.stats = engine.Stats{Loops: 2, LinksUp: 1, Connections: 2, Inflight: 3, BreakersOpen: 1}
	s.stats.Requests[0], s.stats.Requests[1] = 500, 10
	s.stats.Responses[0], s.stats.Responses[5] = 505, 2
	s.stats.Durations[0].Buckets[3], s.stats.Durations[1].Buckets[3] = 400, 7
	return s
}

// statusFor asks as a client at remote that means host.
func statusFor(t *testing.T, h http.Handler, remote, host string) (s status, text string) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/status.json", http.NoBody)
	request.RemoteAddr = remote
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, request)
	text = recorder.Body.String()
	if err := json.Unmarshal([]byte(text), &s); err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", recorder.Code, text, err)
	}
	return s, text
}

// Goal: the status says what the gateway says, the busiest client and the open breaker first, and no password.
func TestStatus(t *testing.T) {
	s, text := statusFor(t, NewHandler(busy(), WithVersion("v1")), "127.0.0.1:5", "localhost:8080")
	if s.State != "ready" || s.Version != "v1" || s.Requests != 510 || s.Responses["ok"] != 505 || s.Responses["TIMEOUT"] != 2 || len(s.Responses) != 2 ||
		s.Latency.Counts[3] != 407 || len(s.Latency.Counts) != len(s.Latency.BoundsSeconds)+1 || s.LinksUp != 1 || s.Loops != 2 || s.Private {
		t.Errorf("%+v", s)
	}
	if len(s.Clients) != 2 || s.Clients[0].ID != 2 || s.Clients[0].Rate != 50 || s.Clients[0].Paused[0] != "answers" {
		t.Errorf("clients: %+v", s.Clients)
	}
	if len(s.Breakers) != 2 || s.Breakers[0].Subject != "orders.b" || s.Breakers[0].State != "open" {
		t.Errorf("breakers: %+v", s.Breakers)
	}
	if len(s.Links) != 2 || s.Links[0].LastError != "" || s.Links[1].LastError != "connection refused" {
		t.Errorf("links: %+v", s.Links)
	}
	if strings.Contains(text, "secret") {
		t.Errorf("a password is shown: %s", text)
	}
}

// Goal: who is not on this machine, or comes by the name of another site, sees no client, no subject and no server.
func TestStatusKeepsPrivateThingsOnTheMachine(t *testing.T) {
	source := busy()
	h := NewHandler(source)
	for _, c := range []struct {
		remote, host string
		private      bool
	}{
		{"127.0.0.1:5", "127.0.0.1:8080", false}, {"127.0.0.9:5", "localhost", false}, {"[::1]:5", "[::1]:8080", false},
		{"192.168.1.7:5", "192.168.1.1:8080", true}, {"192.168.1.7:5", "localhost:8080", true},
		{"127.0.0.1:5", "rebound.example:8080", true}, {"127.0.0.1:5", "localhost.example", true}, {"@", "localhost", true},
	} {
		s, text := statusFor(t, h, c.remote, c.host)
		shown := strings.Contains(text, "orders.") || strings.Contains(text, "10.1.2") || strings.Contains(text, "refused") || strings.Contains(text, "1001")
		if s.Private != c.private || shown == c.private {
			t.Errorf("%s for %s: private %v, want %v: %s", c.remote, c.host, s.Private, c.private, text)
		}
		if s.Requests != 510 || len(s.Links) != 2 || s.BreakersOpen != 1 {
			t.Errorf("%s for %s: the numbers are missing: %s", c.remote, c.host, text)
		}
	}
}

// Goal: the loops are asked once in a while, however many look; a client's rate is that between two looks at the loops.
func TestStatusAsksTheLoopsSeldom(t *testing.T) {
	source := busy()
	h := NewHandler(source).(*handler)
	first := h.currentStatus(t.Context())
	for range 100 {
		if h.currentStatus(t.Context()) != first {
			t.Fatal("a new status within a second")
		}
	}
	if source.asked != 1 {
		t.Errorf("the loops were asked %d times", source.asked)
	}
	h.statuses.takenAt = h.statuses.takenAt.Add(-10 * time.Second)
	source.clients[0].Requests += 1000
	source.clients = append(source.clients, engine.ClientInfo{ID: 3, Requests: 1})
	second := h.currentStatus(t.Context())
	if source.asked != 2 || second.Clients[0].ID != 1 || second.Clients[0].Rate < 80 || second.Clients[0].Rate > 100 || second.Clients[1].Rate != 1 || second.Clients[2].Rate != 0 {
		t.Errorf("asked %d times, %+v", source.asked, second.Clients)
	}
	if len(h.statuses.requests) != 3 {
		t.Errorf("counts of %d clients are kept, want 3", len(h.statuses.requests))
	}
	for id := range uint64(100) {
		source.clients = append(source.clients, engine.ClientInfo{ID: 10 + id})
	}
	h.statuses.ageMax = 0
	if n := len(h.currentStatus(t.Context()).Clients); n != statusClientsMax {
		t.Errorf("%d clients, want %d", n, statusClientsMax)
	}
}

// Goal: the state is the worst that is known, with its reason.
func TestStatesOfTheStatus(t *testing.T) {
	broken, lost := errors.New("event loop 1 does not answer"), errors.New("NATS is not connected")
	for _, c := range []struct {
		source        state
		state, reason string
	}{
		{state{}, "ready", ""},
		{state{ready: lost}, "not ready", lost.Error()},
		{state{ready: lost, stuck: broken}, "stuck", broken.Error()},
		{state{ready: lost, stats: engine.Stats{Draining: true}}, "draining", ""},
	} {
		s, text := statusFor(t, NewHandler(&c.source), "127.0.0.1:5", "localhost")
		if s.State != c.state || s.Reason != c.reason {
			t.Errorf("%s %q, want %s %q", s.State, s.Reason, c.state, c.reason)
		}
		for _, list := range []string{`"links":[]`, `"breakers":[]`, `"clients":[]`} {
			if !strings.Contains(text, list) {
				t.Errorf("no %s in %s", list, text)
			}
		}
	}
}
