package main

import (
	"context"
	"fmt"
	"time"
)

// warmUpMax is how long the runs before the first measured ones take at most.
const warmUpMax = time.Second

// duel is two kinds of runs made in turns, so that whatever else the machine does meets both.
type duel struct {
	connections, window int
	a, b                trial
	aRuns, bRuns        []*sample // aRuns[i] was made right before bRuns[i]
}

// fight makes the runs of d.
//
// REQUIRES: on the main thread.
func (d *duel) fight(ctx context.Context, r *rig, s *settings) error {
	for _, t := range []*trial{&d.a, &d.b} {
		if _, err := r.run(ctx, t, min(s.duration, warmUpMax)); err != nil {
			return fmt.Errorf("%v: warm-up: %w", d, err)
		}
	}
	for repeat := range s.repeats {
		a, err := r.run(ctx, &d.a, s.duration)
		if err != nil {
			return fmt.Errorf("%v: %w", d, err)
		}
		b, err := r.run(ctx, &d.b, s.duration)
		if err != nil {
			return fmt.Errorf("%v: %w", d, err)
		}
		d.aRuns, d.bRuns = append(d.aRuns, a), append(d.bRuns, b)
		progress("%v, %d of %d: %s %.0f/s, %s %.0f/s", d, repeat+1, s.repeats, d.a.name, a.PerSecond, d.b.name, b.PerSecond)
	}
	return nil
}

// String names the duel.
func (d *duel) String() string {
	return fmt.Sprintf("%s vs %s, %d x %d", d.a.name, d.b.name, d.connections, d.window)
}

// compare compares what value takes from the runs.
func (d *duel) compare(value func(*sample) float64) ratio {
	return compare(valuesOf(d.aRuns, value), valuesOf(d.bRuns, value))
}

func valuesOf(runs []*sample, value func(*sample) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = value(run)
	}
	return values
}
