package probe

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/internal/program"
	"github.com/aigroup/ipc-gateway/upstream"
)

const (
	// statusAgeMax is how old a status may be that is shown again: however many look, the event loops are asked once in this time.
	statusAgeMax = time.Second
	// statusLoopWait bounds the wait of a status for the event loops.
	statusLoopWait = 500 * time.Millisecond
	// statusClientsMax is how many clients a status lists.
	statusClientsMax = 10
)

// status is the answer of /status.json, which the page at / shows. Counts are sums since the start.
type status struct {
	AtMs          int64             `json:"at_ms"` // since 1970
	Version       string            `json:"version"`
	UptimeSeconds float64           `json:"uptime_seconds"`
	State         string            `json:"state"`            // ready, not ready, draining or stuck
	Reason        string            `json:"reason,omitempty"` // why it is not ready
	Loops         int               `json:"loops"`
	LinksUp       uint64            `json:"links_up"`
	Requests      uint64            `json:"requests"`
	Responses     map[string]uint64 `json:"responses"` // by outcome, as the label code of ipc_responses_total; none that are 0
	Latency       latency           `json:"latency"`   // of all types of requests
	Inflight      uint64            `json:"inflight"`
	Connections   uint64            `json:"connections"`
	Paused        uint64            `json:"paused"`
	BreakersOpen  uint64            `json:"breakers_open"`
	Links         []statusLink      `json:"links"`

	// Private says that what follows was left out, because the request did not come from this machine.
	Private  bool            `json:"private,omitempty"`
	Breakers []statusBreaker `json:"breakers"`
	Clients  []statusClient  `json:"clients"` // the busiest
}

// latency is a histogram: counts[i] are the durations up to bounds_seconds[i], and over the one before; the last count has no bound.
type latency struct {
	BoundsSeconds []float64 `json:"bounds_seconds"`
	Counts        []uint64  `json:"counts"`
}

type statusLink struct {
	Loop             int     `json:"loop"`
	Up               bool    `json:"up"`
	SinceMs          int64   `json:"since_ms"`
	Reconnects       uint64  `json:"reconnects"`
	Inflight         uint64  `json:"inflight"`
	RoundTripSeconds float64 `json:"round_trip_seconds,omitempty"`
	Server           string  `json:"server,omitempty"`     // private
	LastError        string  `json:"last_error,omitempty"` // private
}

type statusBreaker struct {
	Subject  string `json:"subject"`
	Loop     int    `json:"loop"`
	State    string `json:"state"`
	Failures int    `json:"failures"`
}

type statusClient struct {
	ID       uint64   `json:"id"`
	UID      uint32   `json:"uid"`
	PID      int32    `json:"pid"`
	Program  string   `json:"program,omitempty"`
	Rate     float64  `json:"requests_per_second"`
	Requests uint64   `json:"requests"`
	Inflight int      `json:"inflight"`
	Paused   []string `json:"paused,omitempty"`
}

// statusCache holds the status of the last moment, for whoever asks within statusAgeMax.
type statusCache struct {
	mu       sync.Mutex
	ageMax   time.Duration
	takenAt  time.Time
	last     *status           // is not changed any more
	requests map[uint64]uint64 // at takenAt, by client
}

var latencyBoundsSeconds = func() (seconds []float64) {
	for _, bound := range engine.LatencyBounds {
		seconds = append(seconds, bound.Seconds())
	}
	return seconds
}()

// serveStatus answers with the status. What is private is for this machine only.
func (h *handler) serveStatus(w http.ResponseWriter, r *http.Request) {
	s := h.currentStatus(r.Context())
	if !fromThisMachine(r) {
		s = s.public()
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers and strings always have a JSON form
	}
	write(w, "application/json", http.StatusOK, body)
}

// fromThisMachine reports whether a request came over loopback, and meant it: a page from elsewhere, whose name was made to
// resolve to loopback, sends that name as the host.
func fromThisMachine(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && isLoopback(remote) && (host == "localhost" || isLoopback(host))
}

func isLoopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

// public returns the status without what tells who uses the gateway for what, and where its servers are.
func (s *status) public() *status {
	shown := *s
	shown.Private, shown.Clients, shown.Breakers = true, nil, nil
	shown.Links = slices.Clone(s.Links)
	for i := range shown.Links {
		shown.Links[i].Server, shown.Links[i].LastError = "", ""
	}
	return &shown
}

// currentStatus returns a status that is no older than statusAgeMax. Nobody may change it.
func (h *handler) currentStatus(ctx context.Context) *status {
	c := &h.statuses
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && time.Since(c.takenAt) < c.ageMax {
		return c.last
	}
	// Others get what this request asks for, so it goes on if its client leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusLoopWait)
	defer cancel()
	c.last = h.newStatus(ctx, c)
	return c.last
}

// newStatus asks the gateway. REQUIRES: c.mu is held.
func (h *handler) newStatus(ctx context.Context, c *statusCache) *status {
	var links []engine.LinkInfo
	var asked sync.WaitGroup
	asked.Go(func() { links = h.source.Links(ctx) }) // it waits for the servers
	clients, stuck := h.source.Clients(ctx)
	breakers, _ := h.source.Breakers(ctx) // what is wrong with the loops is known by now
	asked.Wait()

	now, stats := time.Now(), h.source.Stats()
	s := newStatus(&stats)
	s.AtMs, s.Version, s.UptimeSeconds = now.UnixMilli(), h.version, now.Sub(h.started).Seconds()
	s.State, s.Reason = stateOf(&stats, stuck, h.source.Ready())
	for i := range links {
		s.Links = append(s.Links, newStatusLink(&links[i]))
	}
	for _, b := range breakers {
		s.Breakers = append(s.Breakers, statusBreaker{b.Subject, b.Loop, b.State.String(), b.Failures})
	}
	slices.SortFunc(s.Breakers, func(a, b statusBreaker) int {
		return cmp.Or(cmp.Compare(b.State, a.State), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Loop, b.Loop)) // open before closed
	})
	s.Clients = c.busiest(clients, now)
	return s
}

func newStatus(stats *engine.Stats) *status {
	s := &status{
		Loops: stats.Loops, LinksUp: stats.LinksUp, Responses: map[string]uint64{}, Inflight: stats.Inflight, Connections: stats.Connections,
		Paused: stats.PausedConnections, BreakersOpen: stats.BreakersOpen, Links: []statusLink{}, Breakers: []statusBreaker{},
		Latency: latency{latencyBoundsSeconds, make([]uint64, engine.LatencyBuckets)},
	}
	for i := range stats.Requests {
		s.Requests += stats.Requests[i]
		for bucket, count := range stats.Durations[i].Buckets {
			s.Latency.Counts[bucket] += count
		}
	}
	for i, label := range outcomeLabels() {
		if stats.Responses[i] > 0 {
			s.Responses[label] = stats.Responses[i]
		}
	}
	return s
}

// stateOf returns the state in a word, and why it is that.
func stateOf(stats *engine.Stats, stuck, notReady error) (state, reason string) {
	switch {
	case stats.Draining:
		return "draining", ""
	case stuck != nil:
		return "stuck", stuck.Error()
	case notReady != nil:
		return "not ready", notReady.Error()
	}
	return "ready", ""
}

func newStatusLink(l *engine.LinkInfo) statusLink {
	link := statusLink{
		Loop: l.Loop, Up: l.Up, SinceMs: l.Since.UnixMilli(), Reconnects: l.Reconnects, Inflight: l.Inflight,
		RoundTripSeconds: l.RoundTrip.Seconds(), Server: upstream.RedactURL(l.Server),
	}
	if !l.Up {
		link.LastError = l.LastError
	}
	return link
}

// busiest returns the clients with the most requests a second since the last status, and notes their counts for the next one.
// REQUIRES: c.mu is held.
func (c *statusCache) busiest(clients []engine.ClientInfo, now time.Time) []statusClient {
	period := now.Sub(c.takenAt).Seconds()
	requests, list := make(map[uint64]uint64, len(clients)), make([]statusClient, len(clients))
	for i := range clients {
		info := &clients[i]
		requests[info.ID] = info.Requests
		list[i] = statusClient{ID: info.ID, UID: info.UID, PID: info.PID, Requests: info.Requests, Inflight: info.Inflight, Paused: info.Paused}
		if before, known := c.requests[info.ID]; known {
			list[i].Rate = float64(info.Requests-before) / period
		} else {
			list[i].Rate = float64(info.Requests) / max(info.Age.Seconds(), 1)
		}
	}
	c.takenAt, c.requests = now, requests
	slices.SortFunc(list, func(a, b statusClient) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.ID, b.ID))
	})
	list = list[:min(len(list), statusClientsMax)]
	for i := range list {
		list[i].Program = program.Name(list[i].PID)
	}
	return list
}
