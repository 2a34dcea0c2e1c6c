package main

import "github.com/aigroup/ipc-gateway/perf/internal/report"

// share is what the connections of one process did. One of several programs prints it as its report.
type share struct {
	StartNs     int64      `json:"start_ns"`    // of the measured time, on a clock that all processes share
	EndNs       int64      `json:"end_ns"`      // when the last answer was there
	CPUNs       int64      `json:"cpu_ns"`      // used in between
	Connections int        `json:"connections"` // open at the same time
	Requests    int64      `json:"requests"`
	Errors      int        `json:"errors"` // workers that failed
	FirstError  string     `json:"first_error"`
	Latencies   *latencies `json:"latencies"` // of the requests that were answered
}

// summarize makes one report of all shares, of which there is at least one. Its time is from the first
// start to the last end.
func summarize(s *settings, shares []*share) *report.Report {
	r := &report.Report{Programs: len(shares), Window: s.window}
	startNs, endNs := shares[0].StartNs, shares[0].EndNs
	var (
		cpuNs, failedNs int64
		list            []*latencies
	)
	for _, one := range shares {
		startNs, endNs = min(startNs, one.StartNs), max(endNs, one.EndNs)
		cpuNs += one.CPUNs
		r.Connections += one.Connections
		r.Requests += one.Requests
		list = append(list, one.Latencies)
		// A process ends early when it has failed.
		if one.Errors > 0 && (r.Errors == 0 || one.EndNs < failedNs) {
			r.FirstError, failedNs = one.FirstError, one.EndNs
		}
		r.Errors += one.Errors
	}
	all := merge(list)
	for _, quantile := range report.Quantiles {
		r.QuantilesUs = append(r.QuantilesUs, all.quantileUs(quantile*100))
	}
	r.HistogramUs = all.barsUs()
	r.Seconds, r.CPUSeconds = float64(endNs-startNs)/1e9, float64(cpuNs)/1e9
	return r
}
