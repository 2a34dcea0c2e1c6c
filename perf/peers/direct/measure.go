package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

// answerTimeout is how long an answer may take before the run has failed.
const answerTimeout = 10 * time.Second

// A worker makes requests on a connection. One goroutine uses it at a time.
type worker interface {
	// run makes requests until the time is until or stop is set; at least one. Every latency goes to latencies.
	run(until time.Time, stop *atomic.Bool, latencies *latencies) error
	// requests is how many it made so far.
	requests() uint64
}

// team is the connections of this process.
type team struct {
	duration  time.Duration
	opened    int // connections
	first     int // number of the first worker, among those of all programs
	conns     []*nats.Conn
	workers   []worker
	perWorker []*latencies
	outcome   *share // of measure
}

// mine are the connections of this program: the number of the first one, and how many.
func (s *settings) mine() (first, connections int) {
	program, programs := s.program, s.programs
	if program == notOne {
		program, programs = 0, 1
	}
	first = program * s.connections / programs
	return first, (program+1)*s.connections/programs - first
}

// connect opens this program's connections and warms them up.
func connect(s *settings) (*team, error) {
	first, connections := s.mine()
	t := &team{duration: s.duration, first: first * s.window, perWorker: newLatencies(connections * s.window)}
	for range connections {
		if err := t.add(s); err != nil {
			t.Close()
			return nil, err
		}
		t.opened++
	}
	if err := t.warmUp(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// add adds the workers of one connection.
func (t *team) add(s *settings) error {
	next := func() requester {
		return requester{subject: s.subject, payload: newPayload(t.first+len(t.workers), s.payload)}
	}
	if s.mode == "connect" {
		t.workers = append(t.workers, &visitor{next(), s})
		return nil
	}
	conn, err := dial(s)
	if err != nil {
		return err
	}
	t.conns = append(t.conns, conn)
	r := next()
	r.conn = conn
	switch s.mode {
	case "publish":
		t.workers = append(t.workers, &publisher{r})
	case "jetstream":
		w, err := newStorer(r, s.window)
		t.workers = append(t.workers, w)
		return err
	default:
		for range s.window {
			r := next()
			r.conn = conn
			t.workers = append(t.workers, &r)
		}
	}
	return nil
}

func (t *team) Close() {
	for _, conn := range t.conns {
		conn.Close()
	}
}

// warmUp makes one request with each worker: first requests cost more, since buffers grow and nats.go
// subscribes to its inbox.
func (t *team) warmUp() error {
	failures := t.runAll(time.Time{})
	for _, l := range t.perWorker {
		l.Reset()
	}
	return errors.Join(failures...)
}

// measure runs all workers for the duration. Their errors are in the share.
func (t *team) measure() error {
	before := t.requests()
	t.outcome = &share{StartNs: readClock(unix.CLOCK_MONOTONIC)}
	cpuBeforeNs := readClock(unix.CLOCK_PROCESS_CPUTIME_ID)
	failures := t.runAll(time.Now().Add(t.duration))
	t.outcome.CPUNs = readClock(unix.CLOCK_PROCESS_CPUTIME_ID) - cpuBeforeNs
	t.outcome.EndNs = readClock(unix.CLOCK_MONOTONIC)
	t.outcome.Connections = t.opened
	t.outcome.Requests = int64(t.requests()-before) - int64(len(failures))
	t.outcome.Errors = len(failures)
	if len(failures) > 0 {
		t.outcome.FirstError = failures[0].Error()
	}
	return nil
}

func (t *team) requests() uint64 {
	var sum uint64
	for _, w := range t.workers {
		sum += w.requests()
	}
	return sum
}

// shares returns the one share of this process. It may be called once.
func (t *team) shares() ([]*share, error) {
	t.outcome.Latencies = merge(t.perWorker)
	return []*share{t.outcome}, nil
}

// runAll runs each worker on a goroutine of its own and returns the errors, the earliest first. The
// first one stops them all.
func (t *team) runAll(until time.Time) []error {
	var (
		stop     atomic.Bool
		mu       sync.Mutex
		failures []error
		running  sync.WaitGroup
	)
	for i, w := range t.workers {
		running.Go(func() {
			if err := w.run(until, &stop, t.perWorker[i]); err != nil {
				stop.Store(true)
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, fmt.Errorf("worker %d: %w", t.first+i, err))
			}
		})
	}
	running.Wait()
	return failures
}

// readClock returns the time on one of the kernel's clocks.
func readClock(id int32) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		panic(fmt.Sprintf("direct: the kernel has no clock %d: %v", id, err))
	}
	return t.Nano()
}
