// Package report is what the clients of a comparison tell about one run, in one line of JSON, and perf/compare reads.
package report

import "slices"

// Report is the outcome of one run. Latencies are per request, from before it is written until its
// answer was read.
type Report struct {
	Programs    int `json:"programs"`    // processes that made the load
	Connections int `json:"connections"` // open at the same time, of all programs
	Window      int `json:"window"`      // requests in flight on each of them

	Requests    int64     `json:"requests"`     // answered, and the answer was right; or published without an answer
	Seconds     float64   `json:"seconds"`      // from the first request to the last answer
	CPUSeconds  float64   `json:"cpu_seconds"`  // used by these programs in that time
	QuantilesUs []float64 `json:"quantiles_us"` // latencies, microseconds, at Quantiles; all 0 without answers

	HistogramUs [][2]float64 `json:"histogram_us"` // the whole of the latencies: microseconds, exact to two digits, and how many; null without answers

	Errors     int    `json:"errors"`                // programs or connections that ended with a wrong answer or none
	FirstError string `json:"first_error,omitempty"` // why the first of them did
}

// Quantiles are the shares of requests, 0 to 1, whose latencies are reported. perf/sockets has them too.
var Quantiles = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1}

// Answers is how many latencies the histogram has.
func (r *Report) Answers() int64 {
	var sum float64
	for _, bar := range r.HistogramUs {
		sum += bar[1]
	}
	return int64(sum)
}

// PerSecond is the rate.
func (r *Report) PerSecond() float64 { return float64(r.Requests) / r.Seconds }

// Latency returns the latency, microseconds, at one of Quantiles.
func (r *Report) Latency(quantile float64) float64 {
	return r.QuantilesUs[slices.Index(Quantiles, quantile)]
}

// Ready is the line that every process of a comparison prints, at the front of whatever else it
// has to say, once it can be used.
const Ready = "ready"

// Done is the line that a client prints after the last answer. Its report follows when its stdin ends: so
// much comes after whatever is measured.
const Done = "done"
