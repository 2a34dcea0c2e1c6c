package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// Breakers is the answer of /v1/breakers.
type Breakers struct {
	Breakers []Breaker `json:"breakers"`
	Partial
}

// Breaker is the circuit breaker of one subject in one loop. Only subjects with recent failures have one.
type Breaker struct {
	Subject  string     `json:"subject"` // its first 96 bytes; empty if more subjects are in use than are remembered
	Loop     int        `json:"loop"`
	State    string     `json:"state"`
	Failures int        `json:"failures"`        // in a row
	Until    *time.Time `json:"until,omitempty"` // open: when it will be half-open
}

// breakers lists the circuit breakers by subject.
func (s *Server) breakers(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), loopWait)
	defer cancel()
	infos, err := s.Gateway.Breakers(ctx)
	slices.SortFunc(infos, func(a, b engine.BreakerInfo) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Loop, b.Loop))
	})
	list := Breakers{Breakers: make([]Breaker, len(infos))}
	for i := range infos {
		b := &infos[i]
		list.Breakers[i] = Breaker{Subject: b.Subject, Loop: b.Loop, State: b.State.String(), Failures: b.Failures}
		if !b.Until.IsZero() {
			list.Breakers[i].Until = &b.Until
		}
	}
	answerPart(w, &list, &list.Partial, err)
}
