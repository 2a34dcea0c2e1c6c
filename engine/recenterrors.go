package engine

import (
	"context"
	"slices"
	"time"
)

// recentErrorsMax is how many of the latest errors each loop remembers.
const recentErrorsMax = 256

// errorRing remembers the latest errors that a loop has answered with. The loop owns it; noting one copies a few
// words.
type errorRing struct {
	entries [recentErrorsMax]notedError
	noted   uint64 // ever; the next one goes to this index, modulo recentErrorsMax
}

type notedError struct {
	at      int64 // nanoseconds since Gateway.started
	client  uint64
	uid     uint32
	label   uint8 // index into TypeLabels
	outcome uint8 // index into CodeLabels
}

func (r *errorRing) note(now int64, s *session, label, outcome uint8) {
	r.entries[r.noted%recentErrorsMax] = notedError{now, s.id, s.peer.uid, label, outcome}
	r.noted++
}

// RecentError is an error that a client was answered with.
type RecentError struct {
	At     time.Time
	Loop   int
	Client uint64 // see ClientInfo.ID; it may have gone
	UID    uint32
	Type   string // one of TypeLabels
	Code   string // one of CodeLabels
}

// RecentErrors returns the latest errors that clients were answered with, the latest first: of each loop at most
// 256. What a client hears that is not even let in is not among them. The error is that of [Gateway.Clients].
func (g *Gateway) RecentErrors(ctx context.Context) ([]RecentError, error) {
	all, err := gather(ctx, g, func(l *loop) []RecentError { return l.recentErrors.list(l) })
	slices.SortStableFunc(all, func(a, b RecentError) int { return b.At.Compare(a.At) })
	return all, err
}

// list returns what the ring of l holds, the latest first. REQUIRES: on loop.
func (r *errorRing) list(l *loop) []RecentError {
	list := make([]RecentError, 0, min(r.noted, recentErrorsMax))
	for back := range uint64(cap(list)) {
		e := &r.entries[(r.noted-1-back)%recentErrorsMax]
		list = append(list, RecentError{
			At: l.gateway.started.Add(time.Duration(e.at)), Loop: l.index, Client: e.client, UID: e.uid,
			Type: TypeLabels[e.label], Code: CodeLabels[e.outcome],
		})
	}
	return list
}
