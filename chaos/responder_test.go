package chaos

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Subjects that the responder listens on.
const (
	subjectSubmit  = "chaos.submit"
	subjectRequest = "chaos.request"
	subjectPublish = "chaos.publish"
	subjectHostile = "chaos.hostile" // of clients whose requests nobody keeps a record of
)

// responder answers requests with their payload, and notes them. It is connected to every nats-server, without a
// proxy, in one queue group: each request runs once.
type responder struct {
	history *history
	delay   atomic.Int64 // nanoseconds before a reply
	conns   []*nats.Conn

	mu     sync.Mutex
	joined []*nats.Subscription // none: it has left
}

func startResponder(t testing.TB, h *history, servers []*natsd) *responder {
	t.Helper()
	r := &responder{history: h}
	for _, s := range servers {
		nc, err := nats.Connect(s.url(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
			nats.PingInterval(500*time.Millisecond), nats.MaxPingsOutstanding(2),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatalf("responder: %v", err)
		}
		t.Cleanup(nc.Close)
		r.conns = append(r.conns, nc)
	}
	if err := r.join(); err != nil {
		t.Fatalf("responder: %v", err)
	}
	return r
}

// join listens on every server.
func (r *responder) join() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nc := range r.conns {
		for _, subject := range []string{subjectSubmit, subjectRequest, subjectPublish, subjectHostile} {
			sub, err := nc.QueueSubscribe(subject, "responders", r.serve)
			if err != nil {
				return fmt.Errorf("subscribe to %s: %w", subject, err)
			}
			r.joined = append(r.joined, sub)
		}
	}
	return nil
}

// leave takes no more requests.
func (r *responder) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sub := range r.joined {
		_ = sub.Unsubscribe()
	}
	r.joined = nil
}

// serve replies once, or by the request's id not at all, or twice.
func (r *responder) serve(m *nats.Msg) {
	id, ok := idOf(m.Data)
	if ok && m.Subject != subjectHostile {
		r.history.execute(id)
	}
	switch mix(id) >> 20 % 500 {
	case 0:
		return
	case 1:
		_ = m.Respond(m.Data)
	}
	if delay := time.Duration(r.delay.Load()); delay > 0 {
		time.AfterFunc(delay, func() { _ = m.Respond(m.Data) })
		return
	}
	_ = m.Respond(m.Data)
}

// settle returns once all that the servers have for the responder has arrived.
func (r *responder) settle() error {
	const quiet = 300 * time.Millisecond
	for _, nc := range r.conns {
		if err := eventually(func() error { return nc.FlushTimeout(time.Second) }); err != nil {
			return fmt.Errorf("responder: %w", err)
		}
	}
	seen, since := r.history.executions(), time.Now()
	return eventually(func() error {
		if n := r.history.executions(); n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) < quiet {
			return fmt.Errorf("requests still arrive at the responder: %d so far", seen)
		}
		return nil
	})
}
