package control

import (
	"net/http"
	"os"
)

// Status is the answer of /v1/status. Bytes and requests are of this moment, the totals since the start.
type Status struct {
	Version       string  `json:"version"`
	PID           int     `json:"pid"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	Ready         bool    `json:"ready"`
	Reason        string  `json:"reason,omitempty"` // why it is not ready
	Draining      bool    `json:"draining"`

	Loops              int    `json:"loops"`
	LinksUp            uint64 `json:"links_up"` // loops that are connected to NATS
	Clients            uint64 `json:"clients"`
	Inflight           uint64 `json:"inflight"`
	ClientBytesWaiting uint64 `json:"client_bytes_waiting"`
	NATSBytesWaiting   uint64 `json:"nats_bytes_waiting"`
	RequestsTotal      uint64 `json:"requests_total"`  // frames that were read
	ResponsesTotal     uint64 `json:"responses_total"` // answers, errors too
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.statusNow())
}

// statusNow asks no event loop.
func (s *Server) statusNow() Status {
	stats := s.Gateway.Stats()
	now := Status{
		Version: s.Version, PID: os.Getpid(), UptimeSeconds: s.Gateway.Uptime().Seconds(), Draining: stats.Draining,
		Loops: stats.Loops, LinksUp: stats.LinksUp, Clients: stats.Connections, Inflight: stats.Inflight,
		ClientBytesWaiting: stats.ClientBytesBuffered, NATSBytesWaiting: stats.UpstreamBuffered,
	}
	reason := s.Gateway.Ready()
	if now.Ready = reason == nil; !now.Ready {
		now.Reason = reason.Error()
	}
	for _, n := range stats.Requests {
		now.RequestsTotal += n
	}
	for _, n := range stats.Responses {
		now.ResponsesTotal += n
	}
	return now
}
