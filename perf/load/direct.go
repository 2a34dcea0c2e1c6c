package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// direct is a program that uses nats.go in the plain way: one connection, with nats.go's defaults,
// and one synchronous request after the other.
type direct struct {
	conn    *nats.Conn
	subject string
	payload payload
	next    uint64 // number of the next request
}

func dialDirect(s *settings, number int) (worker, error) {
	conn, err := nats.Connect(s.natsURL, nats.Name("perf direct"), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("NATS server at %s: %w", s.natsURL, err)
	}
	return &direct{conn: conn, subject: s.subject, payload: newPayload(number, s.payload)}, nil
}

func (d *direct) run(until time.Time, stop *atomic.Bool, latencies *latencies) error {
	sent := time.Now()
	for {
		seq := d.next
		d.next++
		answer, err := d.conn.Request(d.subject, d.payload.stamp(seq), answerTimeout)
		if err != nil {
			return fmt.Errorf("request %d: %w", seq, err)
		}
		if err := d.payload.check(answer.Data, seq); err != nil {
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

func (d *direct) Close() error {
	d.conn.Close()
	return nil
}
