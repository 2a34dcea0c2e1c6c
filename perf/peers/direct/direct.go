package main

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// dial opens a connection as a program would that knows no better than nats.go's defaults.
func dial(s *settings) (*nats.Conn, error) {
	options := []nats.Option{nats.Name("perf direct"), nats.NoReconnect()}
	if s.unix != "" {
		options = append(options, nats.SetCustomDialer(unixDialer(s.unix)))
	}
	return s.broker.Connect(options...)
}

// unixDialer connects to its path, whatever the address.
type unixDialer string

// Dial implements nats.CustomDialer.
func (path unixDialer) Dial(_, _ string) (net.Conn, error) { return net.Dial("unix", string(path)) }

// requester makes one synchronous request after the other. Several may share a connection.
type requester struct {
	conn    *nats.Conn
	subject string
	payload payload
	next    uint64 // number of the next request
}

func (r *requester) run(until time.Time, stop *atomic.Bool, latencies *latencies) error {
	sent := time.Now()
	for {
		seq := r.next
		r.next++
		answer, err := r.conn.Request(r.subject, r.payload.stamp(seq), answerTimeout)
		if err != nil {
			return fmt.Errorf("request %d: %w", seq, err)
		}
		if err := r.payload.check(answer.Data, seq); err != nil {
			return err
		}
		now := time.Now()
		latencies.record(now.Sub(sent))
		if !now.Before(until) || stop.Load() {
			return nil
		}
		sent = now
	}
}

func (r *requester) requests() uint64 { return r.next }

// publisher publishes one message after the other, and waits for the server in the end.
type publisher struct{ requester }

// publishesPerLook is how many messages go between two looks at the clock.
const publishesPerLook = 16

func (p *publisher) run(until time.Time, stop *atomic.Bool, _ *latencies) error {
	for {
		for range publishesPerLook {
			if err := p.conn.Publish(p.subject, p.payload.stamp(p.next)); err != nil {
				return fmt.Errorf("message %d: %w", p.next, err)
			}
			p.next++
		}
		if !time.Now().Before(until) || stop.Load() {
			return p.conn.FlushTimeout(answerTimeout)
		}
	}
}

// visitor connects, makes one request and closes, again and again. Connecting is a part of what a request takes.
type visitor struct {
	requester // conn is that of the request in flight
	settings  *settings
}

func (v *visitor) run(until time.Time, stop *atomic.Bool, latencies *latencies) error {
	for {
		sent := time.Now()
		var err error
		if v.conn, err = dial(v.settings); err != nil {
			return err
		}
		seq := v.next
		v.next++
		answer, err := v.conn.Request(v.subject, v.payload.stamp(seq), answerTimeout)
		if err == nil {
			err = v.payload.check(answer.Data, seq)
		}
		v.conn.Close()
		if err != nil {
			return fmt.Errorf("request %d: %w", seq, err)
		}
		now := time.Now()
		latencies.record(now.Sub(sent))
		if !now.Before(until) || stop.Load() {
			return nil
		}
	}
}

// storer publishes to JetStream without waiting, until as many messages as its window are not acknowledged.
type storer struct {
	requester
	stream  nats.JetStreamContext
	pending []pendingAck // a ring, by message number modulo its size
}

// pendingAck is an acknowledgement that is waited for.
type pendingAck struct {
	future nats.PubAckFuture
	sent   time.Time
}

func newStorer(r requester, window int) (*storer, error) {
	stream, err := r.conn.JetStream(nats.PublishAsyncMaxPending(2 * window))
	return &storer{r, stream, make([]pendingAck, window)}, err
}

func (s *storer) run(until time.Time, stop *atomic.Bool, latencies *latencies) error {
	oldest := s.next
	for time.Now().Before(until) && !stop.Load() || s.next == oldest {
		if s.next-oldest == uint64(len(s.pending)) {
			if err := s.await(oldest, latencies); err != nil {
				return err
			}
			oldest++
		}
		sent := time.Now()
		future, err := s.stream.PublishAsync(s.subject, s.payload.stamp(s.next))
		if err != nil {
			return fmt.Errorf("message %d: %w", s.next, err)
		}
		s.pending[s.next%uint64(len(s.pending))] = pendingAck{future, sent}
		s.next++
	}
	for ; oldest < s.next; oldest++ {
		if err := s.await(oldest, latencies); err != nil {
			return err
		}
	}
	return nil
}

func (s *storer) await(seq uint64, latencies *latencies) error {
	p := &s.pending[seq%uint64(len(s.pending))]
	select {
	case <-p.future.Ok():
		latencies.record(time.Since(p.sent))
		return nil
	case err := <-p.future.Err():
		return fmt.Errorf("message %d: %w", seq, err)
	case <-time.After(answerTimeout):
		return fmt.Errorf("message %d is not acknowledged after %v", seq, answerTimeout)
	}
}
