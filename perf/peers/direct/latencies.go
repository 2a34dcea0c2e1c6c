package main

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

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

// barsUs are the latencies as report.Report has them: the middle of each bucket, in microseconds, and its count. Two digits are
// what perf/sockets tells apart, too.
func (l *latencies) barsUs() [][2]float64 {
	coarse := hdrhistogram.New(1, l.HighestTrackableValue(), 2)
	coarse.Merge(l.Histogram)
	var bars [][2]float64
	for _, bar := range coarse.Distribution() {
		if bar.Count > 0 {
			bars = append(bars, [2]float64{float64(bar.From+bar.To) / 2e3, float64(bar.Count)})
		}
	}
	return bars
}

// merge adds all of list, of which there is at least one, to the first and returns that.
func merge(list []*latencies) *latencies {
	for _, l := range list[1:] {
		list[0].Merge(l.Histogram)
	}
	return list[0]
}

// MarshalText and UnmarshalText keep every count: merging what was read again is exact.
func (l *latencies) MarshalText() ([]byte, error) { return l.EncodeV2() }

func (l *latencies) UnmarshalText(text []byte) (err error) {
	l.Histogram, err = hdrhistogram.Decode(text)
	return err
}
