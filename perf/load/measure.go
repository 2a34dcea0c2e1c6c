package main

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
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

// connect opens the connections of s. Those that are open are returned with an error too.
func connect(s *settings) ([]worker, error) {
	dial := map[string]func(*settings, int) (worker, error){
		"gateway": dialGateway, "direct": dialDirect, "ping": dialPing,
	}[s.mode]
	var workers []worker
	for number := range s.connections {
		w, err := dial(s, number)
		if err != nil {
			return workers, fmt.Errorf("connection %d: %w", number, err)
		}
		workers = append(workers, w)
	}
	return workers, nil
}

func closeAll(workers []worker) {
	for _, w := range workers {
		// Whatever it says, the answers were all there.
		_ = w.Close()
	}
}

// warmUp sends one window on each connection: first requests cost more, on both sides, since buffers
// grow and nats.go subscribes to its inbox.
func warmUp(workers []worker, perWorker []*latencies) error {
	failures := runAll(workers, time.Time{}, perWorker)
	for _, l := range perWorker {
		l.Reset()
	}
	return errors.Join(failures...)
}

// measure runs all workers for the duration of s. The error is the first one of a connection.
func measure(s *settings, workers []worker, perWorker []*latencies) (*report.Report, error) {
	cpuBefore := ownCPU()
	start := time.Now()
	failures := runAll(workers, start.Add(s.duration), perWorker)
	seconds := time.Since(start).Seconds()
	cpu := (ownCPU() - cpuBefore).Seconds()

	all := perWorker[0]
	for _, l := range perWorker[1:] {
		all.Merge(l.Histogram)
	}
	r := &report.Report{
		Mode: s.mode, Connections: s.connections, Window: s.window,
		Requests: all.TotalCount(), Seconds: seconds, PerSecond: float64(all.TotalCount()) / seconds,
		P50Us: all.quantileUs(50), P99Us: all.quantileUs(99), P999Us: all.quantileUs(99.9),
		CPUSeconds: cpu, CPUShare: cpu / seconds,
		Errors: len(failures),
	}
	if len(failures) == 0 {
		return r, nil
	}
	r.FirstError = failures[0].Error()
	return r, failures[0]
}

// runAll runs each worker on a goroutine of its own and returns the errors, the earliest first. The
// first one stops them all.
func runAll(workers []worker, until time.Time, perWorker []*latencies) []error {
	var (
		stop     atomic.Bool
		mu       sync.Mutex
		failures []error
		running  sync.WaitGroup
	)
	for i, w := range workers {
		running.Go(func() {
			if err := w.run(until, &stop, perWorker[i]); err != nil {
				stop.Store(true)
				mu.Lock()
				defer mu.Unlock()
				failures = append(failures, fmt.Errorf("connection %d: %w", i, err))
			}
		})
	}
	running.Wait()
	return failures
}

// ownCPU returns the CPU time of this process so far.
func ownCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic("load: the kernel has no process CPU clock: " + err.Error())
	}
	return time.Duration(t.Nano())
}

// latencies counts latencies in nanoseconds, exact to three digits.
type latencies struct{ *hdrhistogram.Histogram }

func newLatencies(n int) []*latencies {
	list := make([]*latencies, n)
	for i := range list {
		list[i] = &latencies{hdrhistogram.New(1, int64(2*answerTimeout), 3)}
	}
	return list
}

// record counts d. What took longer than any answer may take counts as the longest.
func (l *latencies) record(d time.Duration) {
	// The error would be a value out of range.
	_ = l.RecordValue(min(max(int64(d), 1), l.HighestTrackableValue()))
}

func (l *latencies) quantileUs(percentile float64) float64 {
	return float64(l.ValueAtPercentile(percentile)) / 1e3
}
