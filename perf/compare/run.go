package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
	"github.com/aigroup/ipc-gateway/perf/proc"
)

// Sample is what one run showed.
type Sample struct {
	report.Report
	MiddleUs    *float64 `json:"middle_us"`   // CPU microseconds per request of the process in the middle; nil: there is none
	AllUs       float64  `json:"all_us"`      // the same of all processes, clients, NATS and responder among them
	RSSBytes    *float64 `json:"rss_bytes"`   // of the process in the middle after the run
	Mallocs     *float64 `json:"mallocs"`     // of the process in the middle, per request; nil: it is not in Go
	Collections *float64 `json:"collections"` // of its heap, in all
	OthersCPUs  float64  `json:"others_cpus"` // CPUs that other processes of the machine kept busy meanwhile
	StolenCPUs  float64  `json:"stolen_cpus"` // CPUs that the host kept from the machine meanwhile
	SettleMs    float64  `json:"settle_ms"`   // how long the NATS server went on to get what was published; in Seconds
}

// snapshot is the state of all meters at one moment.
type snapshot struct {
	middle, all time.Duration // CPU time; without the clients'
	rss         int64
	machine     proc.Machine
	metrics     goMetrics
	published   int64
	at          time.Time
}

// run makes one run of a side.
//
// REQUIRES: on the main thread.
func (r *rig) run(ctx context.Context, one *side, c Cell, duration time.Duration) (*Sample, error) {
	// More than the clients themselves allow for an answer.
	ctx, cancel := context.WithTimeout(ctx, duration+4*startTimeout)
	defer cancel()
	program, args := one.clients(c)
	seconds := fmt.Sprint(duration.Seconds())
	if program == "sockets" {
		args = append(args, seconds, c.subject())
	} else {
		args = append(args, "-seconds", seconds)
	}
	clients, err := start(ctx, program+" on "+one.name, r.path(program), args...)
	if err != nil {
		return nil, err
	}
	defer clients.stop()
	if _, err := clients.awaitReady(); err != nil {
		return nil, r.blame(err)
	}

	// All connections are open, and stay so until the second snapshot is taken: what it costs to start,
	// to connect and to report is not in the figures.
	before, err := r.measureBefore(ctx, one, c)
	if err != nil {
		return nil, err
	}
	if _, err := clients.stdin.Write([]byte("\n")); err != nil {
		return nil, clients.failure(err)
	}
	if err := clients.awaitDone(); err != nil {
		return nil, r.blame(err)
	}
	after, err := r.measureAfter(ctx, one)
	if err != nil {
		return nil, r.blame(err)
	}
	// Now it may report.
	_ = clients.stdin.Close()
	line, err := clients.line()
	if err != nil {
		return nil, r.blame(err)
	}
	s := &Sample{}
	if err := json.Unmarshal([]byte(line), &s.Report); err != nil {
		return nil, fmt.Errorf("%s reports %q: %w", clients.name, line, err)
	}
	if s.Errors > 0 || s.Requests <= 0 || len(s.QuantilesUs) != len(report.Quantiles) {
		return nil, r.blame(fmt.Errorf("%s: %d requests, %d errors, the first: %s", clients.name, s.Requests, s.Errors, s.FirstError))
	}
	if s.Connections != c.Connections {
		return nil, fmt.Errorf("%s: %d connections, not the %d of %v", clients.name, s.Connections, c.Connections, c)
	}
	if err := clients.finish(); err != nil {
		return nil, r.blame(err)
	}
	if c.publishes() {
		if err := r.settle(ctx, s, before, after); err != nil {
			return nil, r.blame(fmt.Errorf("%s: %w", clients.name, err))
		}
	}
	s.evaluate(one, before, after)
	return s, nil
}

// measureBefore reads the heap first and measureAfter last: what that costs stays outside.
func (r *rig) measureBefore(ctx context.Context, one *side, c Cell) (*snapshot, error) {
	s := &snapshot{}
	var err error
	if c.publishes() {
		if s.published, err = r.settled(ctx); err != nil {
			return nil, err
		}
	}
	if one.meter != nil {
		if s.metrics, err = one.meter(ctx); err != nil {
			return nil, err
		}
	}
	return s, r.readCPU(s, one)
}

func (r *rig) measureAfter(ctx context.Context, one *side) (*snapshot, error) {
	s := &snapshot{}
	if err := r.readCPU(s, one); err != nil || one.meter == nil {
		return s, err
	}
	var err error
	s.metrics, err = one.meter(ctx)
	return s, err
}

func (r *rig) readCPU(s *snapshot, one *side) error {
	for _, p := range r.running {
		cpu, err := proc.CPU(p.pid())
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		s.all += cpu
		if p == one.middle {
			s.middle = cpu
			if s.rss, err = proc.RSS(p.pid()); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	var err error
	s.machine, err = proc.ReadMachine()
	s.at = time.Now()
	return err
}

// published is how many messages the NATS server has got.
func (r *rig) published() (int64, error) {
	line, err := r.natsd.ask()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(line, 10, 64)
}

// settled waits until the server gets no more messages, such as those of the warm-up, and returns how many it got.
func (r *rig) settled(ctx context.Context) (int64, error) {
	const quiet = 20 * time.Millisecond
	last, err := r.published()
	for err == nil {
		time.Sleep(quiet)
		var now int64
		if now, err = r.published(); err == nil && now == last {
			return now, ctx.Err()
		}
		last = now
	}
	return 0, err
}

// settleTimeout is how long messages may be on their way.
const settleTimeout = 10 * time.Second

// settle waits until the NATS server has got all that was published. The rate is that of the messages which it got: what
// it takes is added to the run's time, and a lost message fails the run.
func (r *rig) settle(ctx context.Context, s *Sample, before, after *snapshot) error {
	for {
		now, err := r.published()
		if err != nil {
			return err
		}
		took := time.Since(after.at)
		if got := now - before.published; got >= s.Requests {
			if took > time.Millisecond { // else nothing was waited for but the answer
				s.Seconds += took.Seconds()
				s.SettleMs = took.Seconds() * 1e3
			}
			return nil
		} else if took > settleTimeout {
			return fmt.Errorf("of %d messages the NATS server got %d", s.Requests, got)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
}

// evaluate fills in s what is in the difference of two snapshots.
func (s *Sample) evaluate(one *side, before, after *snapshot) {
	requests := float64(s.Requests)
	clients := time.Duration(s.CPUSeconds * float64(time.Second))
	ours := after.all - before.all + clients
	perRequestUs := func(d time.Duration) float64 { return d.Seconds() * 1e6 / requests }

	s.AllUs = perRequestUs(ours)
	if one.middle != nil {
		s.MiddleUs = new(perRequestUs(after.middle - before.middle))
		s.RSSBytes = new(float64(after.rss))
	}
	if one.meter != nil {
		mallocs := after.metrics.mallocs - before.metrics.mallocs - one.idle
		s.Mallocs = new(float64(max(mallocs, 0)) / requests)
		s.Collections = new(float64(after.metrics.collections - before.metrics.collections))
	}
	wall := after.at.Sub(before.at)
	s.OthersCPUs = max(0, float64(after.machine.Busy-before.machine.Busy-ours)/float64(wall))
	s.StolenCPUs = float64(after.machine.Stolen-before.machine.Stolen) / float64(wall)
}

// errIncomplete says that some cells have no result, after the result has said which.
var errIncomplete = errors.New("not everything was measured")

// Run compares and returns what was measured: with an error too, if anything was. progress tells how far it is.
//
// REQUIRES: on the main thread, since the processes end with the thread that started them.
func Run(ctx context.Context, s Settings, progress func(format string, args ...any)) (*Result, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, buildTimeout+s.Estimate()*3)
	defer cancel()
	progress("building, then about %v of runs", s.Estimate().Round(time.Second))
	leftOut := s.fit()
	result := newResult(s)
	r, err := startRig(ctx, &s, progress)
	defer r.stop()
	if err != nil {
		return nil, err
	}
	result.LeftOut = slices.Concat(r.leftOut, leftOut)
	for i, c := range s.Cells {
		measured, err := r.compare(ctx, &s, c)
		if ctx.Err() != nil {
			result.Failed = append(result.Failed, fmt.Sprintf("%v and %d after it: interrupted", c, len(s.Cells)-i-1))
			return result, errors.Join(errIncomplete, ctx.Err())
		}
		if err != nil {
			result.Failed = append(result.Failed, fmt.Sprintf("%v: %v", c, err))
			progress("FAILED %v: %v", c, err)
			continue
		}
		result.Cells = append(result.Cells, measured)
		progress("%v", measured)
	}
	if len(result.Failed) > 0 {
		return result, errIncomplete
	}
	return result, nil
}

// compare makes the runs of one cell, in turns.
func (r *rig) compare(ctx context.Context, s *Settings, c Cell) (*CellResult, error) {
	result := &CellResult{Cell: c}
	var sides []*side
	for _, name := range s.sidesOf(c) {
		if one := r.sides[name]; one != nil {
			sides = append(sides, one)
			result.Sides = append(result.Sides, &SideResult{Name: name})
		}
	}
	if s.Warmup > 0 {
		for _, one := range sides {
			if _, err := r.run(ctx, one, c, s.Warmup); err != nil {
				return nil, fmt.Errorf("%s: warm-up: %w", one.name, err)
			}
		}
	}
	for range s.Repeats {
		for i, one := range sides {
			sample, err := r.run(ctx, one, c, s.Duration)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", one.name, err)
			}
			result.Sides[i].Runs = append(result.Sides[i].Runs, sample)
		}
	}
	return result, nil
}

// valueOf is what p points to, or NaN.
func valueOf(p *float64) float64 {
	if p == nil {
		return math.NaN()
	}
	return *p
}
