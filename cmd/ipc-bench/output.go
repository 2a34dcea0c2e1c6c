package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
	"github.com/aigroup/ipc-gateway/codec"
)

// summary is a result as JSON.
type summary struct {
	Command     string  `json:"command"` // "throughput" or "latency"
	Type        string  `json:"type"`    // of the frames, as the protocol names it
	Version     int     `json:"version"`
	Connections int     `json:"connections"`
	Window      int     `json:"window"`
	Payload     int     `json:"payload_bytes"`
	Rate        float64 `json:"rate"`   // requests per second asked for; 0: closed loop
	Expect      string  `json:"expect"` // what answers' payloads were checked for

	Seconds     float64          `json:"seconds"`
	Sent        int64            `json:"sent"`
	Right       int64            `json:"right"`
	Failed      int64            `json:"failed"`
	Wrong       int64            `json:"wrong"`
	FailedBy    map[string]int64 `json:"failed_by,omitempty"`
	FirstError  string           `json:"first_error,omitempty"`
	PerSecond   float64          `json:"per_second"`
	SuccessRate float64          `json:"success_rate"` // 0 to 1

	Latency  latencySummary `json:"latency_us"`
	LateP99  float64        `json:"sent_late_p99_us"` // with a rate: how far behind the clock requests were sent
	CPUShare float64        `json:"client_cpu_share"` // of one CPU
	Busy     bool           `json:"client_is_bottleneck"`

	Server *serverUsage `json:"server,omitempty"` // absent: it may not be looked at

	Verdict verdict `json:"verdict"`
}

// latencySummary is in microseconds.
type latencySummary struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// verdict judges by the targets.
type verdict struct {
	Throughput string `json:"throughput,omitempty"` // not of latency, nor with a rate: there the client says how many
	P99        string `json:"p99"`
}

// Targets, as the users of the C gateway know them.
const (
	perSecondExcellent, perSecondGood, perSecondMinimum = 10_000, 5_000, 1_000

	p99UsExcellent, p99UsGood = 10_000, 50_000
)

func judgeThroughput(perSecond float64) string {
	switch {
	case perSecond >= perSecondExcellent:
		return "excellent"
	case perSecond >= perSecondGood:
		return "good"
	case perSecond >= perSecondMinimum:
		return "minimum"
	}
	return "below minimum"
}

func judgeP99(us float64) string {
	switch {
	case us <= p99UsExcellent:
		return "excellent"
	case us <= p99UsGood:
		return "good"
	}
	return "needs work"
}

func newSummary(command string, r *load.Result, server *serverUsage) *summary {
	s := &summary{
		Command: command, Type: r.Spec.Type.String(), Version: int(r.Spec.Version), Connections: r.Spec.Connections, Window: r.Spec.Window,
		Payload: r.Spec.PayloadBytes, Rate: r.Spec.Rate, Expect: r.Expect.String(),
		Seconds: r.Active.Seconds(), Sent: r.Sent, Right: r.Right, Failed: r.Failed, Wrong: r.Wrong, FailedBy: r.FailedBy,
		PerSecond: r.PerSecond(), SuccessRate: r.SuccessRate(),
		Latency: summarizeLatencies(r.Latencies), LateP99: us(r.Late.ValueAtPercentile(99)),
		CPUShare: r.CPUShare, Busy: r.Bottleneck(), Server: server,
	}
	if r.FirstError != nil {
		s.FirstError = r.FirstError.Error()
	}
	s.Verdict.P99 = judgeP99(s.Latency.P99)
	if r.Right == 0 {
		s.Verdict.P99 = "no right answer"
	}
	if command == "throughput" && r.Spec.Rate == 0 {
		s.Verdict.Throughput = judgeThroughput(s.PerSecond)
	}
	return s
}

func us(ns int64) float64 { return float64(ns) / 1e3 }

func summarizeLatencies(h *hdrhistogram.Histogram) latencySummary {
	return latencySummary{
		Min: us(h.Min()), Mean: h.Mean() / 1e3, P50: us(h.ValueAtPercentile(50)), P95: us(h.ValueAtPercentile(95)),
		P99: us(h.ValueAtPercentile(99)), P999: us(h.ValueAtPercentile(99.9)), Max: us(h.Max()),
	}
}

// percent shows a share in four digits. It rounds no share to all: of a million one that failed is to be seen.
func percent(share float64) string {
	text := fmt.Sprintf("%.4g%%", 100*share)
	if share < 1 && text == "100%" {
		return "99.99%"
	}
	return text
}

// writeText writes a result for people.
func writeText(w io.Writer, s *summary, r *load.Result) {
	loop := fmt.Sprintf("window %d", s.Window)
	if s.Rate > 0 {
		loop = fmt.Sprintf("open loop of %g requests/s", s.Rate)
	}
	fmt.Fprintf(w, "%s: %s v%d, %s, %s, %d B\n", s.Command, s.Type, s.Version, countOf(s.Connections, "connection"), loop, s.Payload)
	fmt.Fprintf(w, "Requests:      %d in %.2f s\n", s.Sent, s.Seconds)
	fmt.Fprintf(w, "Throughput:    %.0f req/sec\n", s.PerSecond)
	fmt.Fprintf(w, "Success Rate:  %s (%d failed, %d answered wrongly)\n", percent(s.SuccessRate), s.Failed, s.Wrong)
	for _, reason := range slices.Sorted(maps.Keys(s.FailedBy)) {
		fmt.Fprintf(w, "  %d x %s\n", s.FailedBy[reason], reason)
	}
	if s.FirstError != "" {
		fmt.Fprintf(w, "  the first: %s\n", strings.ReplaceAll(s.FirstError, "\n", "; "))
	}
	l := &s.Latency
	fmt.Fprintf(w, "Latency (us):  min %.1f  mean %.1f  p50 %.1f  p95 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n", l.Min, l.Mean, l.P50, l.P95, l.P99, l.P999, l.Max)
	if s.Rate > 0 {
		fmt.Fprintf(w, "Schedule:      measured from when each was due; 99%% were sent at most %.1f us late\n", s.LateP99)
	}
	fmt.Fprintf(w, "Checked:       %s\n", checked(r))
	if s.Server != nil {
		fmt.Fprintf(w, "Server:        %.2f us of CPU per request, %.1f MiB (process %d, %s)\n", s.Server.CPUUs, float64(s.Server.RSSBytes)/(1<<20), s.Server.PID, s.Server.Name)
	}
	fmt.Fprintf(w, "Client CPU:    %.0f%% of a core\n", 100*s.CPUShare)
	if s.Busy {
		fmt.Fprintln(w, "WARNING: the client was the bottleneck: these are its limits, not the gateway's. Use --workers, or CPUs of its own.")
	}
	if s.Verdict.Throughput != "" {
		fmt.Fprintf(w, "Verdict:       throughput %s (10000 excellent, 5000 good, 1000 minimum), ", strings.ToUpper(s.Verdict.Throughput))
	} else {
		fmt.Fprint(w, "Verdict:       ")
	}
	fmt.Fprintf(w, "p99 %s (10 ms excellent, 50 ms good)\n", strings.ToUpper(s.Verdict.P99))
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checked says what every answer was checked for.
func checked(r *load.Result) string {
	by := "order"
	if r.Spec.Version == codec.Version2 {
		by = "correlation id"
	}
	switch {
	case r.Spec.Type == codec.TypePing && r.Spec.PayloadBytes == 0:
		return "type and " + by + " of every answer"
	case r.Expect == load.ExpectEcho:
		return "type, " + by + " and payload of every answer: it is the request's"
	case r.Expect == load.ExpectPart:
		return "type, " + by + " and payload of every answer: it has the request's in it"
	}
	return "type and " + by + " of every answer; their payloads are not the requests'"
}

// writeJSON writes one line to a file, or to w without a path.
func writeJSON(w io.Writer, path string, value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if path == "" {
		_, err = w.Write(line)
		return err
	}
	return os.WriteFile(path, line, 0o644)
}
