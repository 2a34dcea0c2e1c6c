package load

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Load is a load that is connected.
type Load struct {
	spec    Spec
	workers []*worker
}

// Open connects. Close the load in the end.
func Open(s Spec) (*Load, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	l := &Load{spec: s}
	for i := range s.Workers {
		first, next := i*s.Connections/s.Workers, (i+1)*s.Connections/s.Workers
		w, err := newWorker(&l.spec, first, next-first)
		l.workers = append(l.workers, w)
		if err != nil {
			l.Close()
			return nil, err
		}
	}
	return l, nil
}

// Close closes all connections.
func (l *Load) Close() {
	for _, w := range l.workers {
		w.close()
	}
}

// Answered is how many answers there were in this phase so far. It may be called while Run runs.
func (l *Load) Answered() int64 {
	var sum int64
	for _, w := range l.workers {
		sum += w.answered.Load()
	}
	return sum
}

// ServerPID is the process that listens on the socket: the gateway, or who opened the socket for it. 0: the kernel does
// not say.
func (l *Load) ServerPID() int {
	peer, err := unix.GetsockoptUcred(l.workers[0].conns[0].fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(peer.Pid)
}

// WarmUp makes the requests that are not counted. The error says which of them failed or was answered wrongly first.
func (l *Load) WarmUp() error {
	if l.spec.Warmup == 0 {
		return nil
	}
	warm := merge(l.all(phase{startNs: nowNs(), count: l.spec.Warmup}))
	if warm.firstError != nil {
		return fmt.Errorf("warm-up: %w", warm.firstError)
	}
	return nil
}

// Run puts the load on. Failed requests are in the result.
func (l *Load) Run() *Result {
	start, cpu := nowNs(), cpuTime()
	p := phase{startNs: start, count: l.spec.Count, rate: l.spec.Rate}
	if l.spec.Duration > 0 {
		p.untilNs = start + int64(l.spec.Duration)
	}
	sum := merge(l.all(p))
	cpu = cpuTime() - cpu
	return l.result(sum, time.Duration(max(sum.endNs, p.untilNs)-start), time.Duration(nowNs()-start), cpu)
}

// all runs a phase on all workers, each with its share of it.
func (l *Load) all(p phase) []*tally {
	tallies := make([]*tally, len(l.workers))
	var running sync.WaitGroup
	for i, w := range l.workers {
		mine := p
		if p.count > 0 {
			mine.count = p.count*int64(i+1)/int64(len(l.workers)) - p.count*int64(i)/int64(len(l.workers))
		}
		if p.rate > 0 {
			mine.rate = p.rate / float64(len(l.workers))
			mine.firstNs = p.startNs + int64(float64(i)*1e9/p.rate)
		}
		if p.count > 0 && mine.count == 0 {
			tallies[i] = newTally()
			continue
		}
		running.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tallies[i] = w.run(mine)
		})
	}
	running.Wait()
	return tallies
}

// merge adds all up in the first one.
func merge(all []*tally) *tally {
	sum := all[0]
	for _, t := range all[1:] {
		sum.sent += t.sent
		sum.right += t.right
		sum.failed += t.failed
		sum.wrong += t.wrong
		sum.endNs = max(sum.endNs, t.endNs)
		for reason, n := range t.byReason {
			sum.byReason[reason] += n
		}
		if t.firstError != nil {
			sum.blame(t.firstError)
		}
		sum.latencies.Merge(t.latencies)
		sum.late.Merge(t.late)
	}
	return sum
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	// It cannot fail with these arguments.
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// result describes a phase. active is from the first request to the last answer, and at least as long as requests
// were to be sent.
func (l *Load) result(t *tally, active, wall, cpu time.Duration) *Result {
	expect := ExpectLearned
	for _, w := range l.workers {
		expect = max(expect, w.expect) // the weakest
	}
	return &Result{
		Spec: l.spec, Expect: expect,
		Sent: t.sent, Right: t.right, Failed: t.failed, Wrong: t.wrong, FailedBy: t.byReason, FirstError: t.firstError,
		Active: active, CPUShare: cpu.Seconds() / wall.Seconds(), Latencies: t.latencies, Late: t.late,
	}
}

// Result is what a load saw.
type Result struct {
	Spec   Spec
	Expect Expect // what the payloads of answers were checked for

	Sent       int64            // requests
	Right      int64            // answers that were right
	Failed     int64            // requests that got an error answer, or none
	Wrong      int64            // answers that were not right, or to nothing that was asked
	FailedBy   map[string]int64 // Failed by reason: the name of the protocol's error, or "connection lost"
	FirstError error            // of a request, or of a connection that was lost without one; nil: all is well

	Active    time.Duration           // the time in which they were sent and answered
	CPUShare  float64                 // of one CPU, that this process used meanwhile
	Latencies *hdrhistogram.Histogram // of right answers, nanoseconds
	Late      *hdrhistogram.Histogram // with a rate: how long after their time requests were sent, nanoseconds
}

// PerSecond is the rate of right answers.
func (r *Result) PerSecond() float64 { return float64(r.Right) / r.Active.Seconds() }

// SuccessRate is the share of requests with a right answer, 0 to 1.
func (r *Result) SuccessRate() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Right) / float64(r.Sent)
}

// OK says that every request had its answer, and a right one.
func (r *Result) OK() bool { return r.FirstError == nil && r.Right > 0 && r.Right == r.Sent }

// Bottleneck says that the client itself kept its threads busy, so that the figures are about the client.
func (r *Result) Bottleneck() bool { return r.CPUShare > 0.9*float64(r.Spec.Workers) }
