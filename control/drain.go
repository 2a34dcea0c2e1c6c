package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// progressPeriod is the time between two lines of a drain that is waited for.
const progressPeriod = 500 * time.Millisecond

// Shutdown is a shutdown that was begun.
type Shutdown struct {
	Over <-chan struct{} // closed when all but the control socket is closed
	Err  func() error    // then: what could not be finished
}

// Progress is a line of the answer of /v1/drain?wait=true: one at once, one each half second, and the last one with Done.
type Progress struct {
	Status
	Done bool `json:"done"`
	Partial
}

// drains reports whether the gateway whose control socket is at path is about to end.
func drains(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), loopWait)
	defer cancel()
	response, err := Do(ctx, path, http.MethodGet, "/v1/status")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var now Status
	return json.NewDecoder(response.Body).Decode(&now) == nil && now.Draining
}

// drain begins a graceful shutdown. Its answer is the status of this moment, or if the caller waits one line of
// JSON after the other until the shutdown is over.
func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	shutdown := s.Drain()
	if r.URL.Query().Get("wait") != "true" {
		answer(w, http.StatusAccepted, s.statusNow())
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, lines := http.NewResponseController(w), json.NewEncoder(w)
	period := time.NewTicker(progressPeriod)
	defer period.Stop()
	for {
		if lines.Encode(Progress{Status: s.statusNow()}) != nil || out.Flush() != nil {
			return
		}
		select {
		case <-period.C:
		case <-r.Context().Done():
			return
		case <-shutdown.Over:
			last := Progress{Status: s.statusNow(), Done: true}
			if err := shutdown.Err(); err != nil {
				last.Error = err.Error()
			}
			_ = lines.Encode(last)
			return
		}
	}
}
