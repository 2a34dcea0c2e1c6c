// Package report is what perf/load tells about one run and perf/bench reads: one line of JSON.
package report

// Report is the outcome of one run of load. Latencies are per request, from before it is written
// until its answer was read.
type Report struct {
	Mode        string `json:"mode"`        // "gateway", "direct" or "ping"
	Programs    int    `json:"programs"`    // processes that made the load
	Connections int    `json:"connections"` // open at the same time, of all programs
	Window      int    `json:"window"`      // requests in flight on each of them

	Requests   int64   `json:"requests"`    // answered, and the answer was right
	Seconds    float64 `json:"seconds"`     // from the first request to the last answer
	PerSecond  float64 `json:"per_second"`  // Requests / Seconds
	P50Us      float64 `json:"p50_us"`      // latency, microseconds
	P99Us      float64 `json:"p99_us"`      // latency, microseconds
	P999Us     float64 `json:"p999_us"`     // latency, microseconds
	CPUSeconds float64 `json:"cpu_seconds"` // used by these programs in that time
	CPUShare   float64 `json:"cpu_share"`   // CPUSeconds / Seconds: 1 is one CPU kept busy

	Errors     int    `json:"errors"`                // connections that ended with a wrong answer or none
	FirstError string `json:"first_error,omitempty"` // why the first of them did
}

// Ready is the line that every process of the benchmark prints, at the front of whatever else it
// has to say, once it can be used.
const Ready = "ready"

// Done is the line that load prints after the last answer. Its report follows when its stdin ends: so
// much comes after whatever is measured.
const Done = "done"
