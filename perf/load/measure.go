package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout is how long an answer may take before the run has failed.
const answerTimeout = 10 * time.Second

// A worker is one connection and what is sent on it. One goroutine uses it at a time.
type worker interface {
	// run keeps the connection's window full until the time is until or stop is set, then waits for
	// the answers that are still to come. With a time in the past it fills the window just once.
	// Every latency goes to latencies.
	run(until time.Time, stop *atomic.Bool, latencies *latencies) error
	Close() error
}

// team is the connections of this process.
type team struct {
	duration  time.Duration
	first     int // number of the first one, among those of all programs
	workers   []worker
	perWorker []*latencies
	outcome   *share // of measure
}

// connect opens the connections of s and warms them up.
func connect(s *settings) (*team, error) {
	dial := map[string]func(*settings, int) (worker, error){
		"gateway": dialGateway, "direct": dialDirect, "ping": dialPing,
	}[s.mode]
	t := &team{duration: s.duration, first: max(s.program, 0) * s.connections, perWorker: newLatencies(s.connections)}
	for number := range s.connections {
		w, err := dial(s, t.first+number)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("connection %d: %w", t.first+number, err)
		}
		t.workers = append(t.workers, w)
	}
	if err := t.warmUp(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *team) Close() {
	for _, w := range t.workers {
		// Whatever it says, the answers were all there.
		_ = w.Close()
	}
}

// warmUp sends one window on each connection: first requests cost more, on both sides, since buffers
// grow and nats.go subscribes to its inbox.
func (t *team) warmUp() error {
	failures := t.runAll(time.Time{})
	for _, l := range t.perWorker {
		l.Reset()
	}
	return errors.Join(failures...)
}

// measure runs all workers for the duration. Their errors are in the share.
func (t *team) measure() error {
	t.outcome = &share{StartNs: readClock(unix.CLOCK_MONOTONIC)}
	cpuBeforeNs := readClock(unix.CLOCK_PROCESS_CPUTIME_ID)
	failures := t.runAll(time.Now().Add(t.duration))
	t.outcome.CPUNs = readClock(unix.CLOCK_PROCESS_CPUTIME_ID) - cpuBeforeNs
	t.outcome.EndNs = readClock(unix.CLOCK_MONOTONIC)
	t.outcome.Errors = len(failures)
	if len(failures) > 0 {
		t.outcome.FirstError = failures[0].Error()
	}
	return nil
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
				failures = append(failures, fmt.Errorf("connection %d: %w", t.first+i, err))
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
		panic(fmt.Sprintf("load: the kernel has no clock %d: %v", id, err))
	}
	return t.Nano()
}
