package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Counts that may differ by chance: a connection of a scraper, a goroutine that is about to end.
const (
	goroutinesMore  = 8
	descriptorsMore = 4
)

// report is what a soak found, and its JSON.
type report struct {
	Command     string           `json:"command"`
	Seconds     float64          `json:"seconds"`
	Threads     int              `json:"threads"`
	Connections int64            `json:"connections"`
	Requests    int64            `json:"requests"`
	Pongs       int64            `json:"pongs"` // answered by the gateway itself
	Right       int64            `json:"right"` // answered from behind NATS
	Wrong       int64            `json:"wrong"`
	Abandoned   int64            `json:"abandoned"` // whose client went away, as planned
	Split       int64            `json:"split"`     // sent in two pieces
	Torn        int64            `json:"torn"`      // frames that were begun, and no requests: the client went away in the middle of them
	FailedBy    map[string]int64 `json:"failed_by"` // errors, by name
	PerSecond   float64          `json:"per_second"`

	BuffersPerSecond float64 `json:"buffers_per_second"` // acquired
	Start            *counts `json:"start"`              // at rest, after the warm-up
	End              *counts `json:"end"`                // at rest, after the load

	Findings []string `json:"findings"` // why the soak failed; none: it did not
}

func newReport(p *plan, took time.Duration, t *tally, start, end *counts) *report {
	r := &report{
		Command: p.command, Seconds: took.Seconds(), Threads: p.threads, Connections: t.connections,
		Requests: t.sent, Pongs: t.pongs, Right: t.right, Wrong: t.wrong, Abandoned: t.abandoned, FailedBy: t.failedBy,
		Split: t.split, Torn: t.torn,
		PerSecond: float64(t.right+t.pongs) / took.Seconds(), BuffersPerSecond: float64(end.BuffersAcquired-start.BuffersAcquired) / took.Seconds(),
		Start: start, End: end, Findings: []string{},
	}
	if t.firstWrong != "" {
		r.found("%d wrong answers, the first: %s", t.wrong, t.firstWrong)
	}
	return r
}

func (r *report) found(format string, args ...any) {
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

// judge finds what is left. busy is what the gateway still had in use when it should have been at rest.
func (r *report) judge(p *plan, busy error) {
	if busy != nil {
		r.found("not at rest after %v: %v", p.settle, busy)
	}
	if r.Start.StartTimeSeconds != r.End.StartTimeSeconds {
		r.found("the gateway was restarted: its counts began anew")
	}
	if r.Right == 0 {
		r.found("no request was answered from behind NATS: is there a responder?")
	}
	if more := r.End.InternalErrors - r.Start.InternalErrors; more > 0 {
		r.found("%d internal errors: the gateway's log has a stack for each", more)
	}
	if r.End.LinksUp != r.End.Loops {
		r.found("%d of %d connections to NATS are up", r.End.LinksUp, r.End.Loops)
	}
	if more := r.End.Goroutines - r.Start.Goroutines; more > goroutinesMore {
		r.found("%d goroutines more than before", more)
	}
	if more := r.End.Descriptors - r.Start.Descriptors; more > descriptorsMore {
		r.found("%d descriptors more than before", more)
	}
	if more := r.End.ResidentBytes - r.Start.ResidentBytes; more > p.growthBytes {
		r.found("%.1f MiB of resident memory more than before, at most %.1f are allowed", mib(more), mib(p.growthBytes))
	}
	if more := r.End.HeapBytes - r.Start.HeapBytes; r.Start.Collected && r.End.Collected && more > p.heapGrowthBytes {
		r.found("%.1f MiB of heap more than before, garbage not counted, at most %.1f are allowed", mib(more), mib(p.heapGrowthBytes))
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func (r *report) writeJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// writeText writes the report for people.
func (r *report) writeText(w io.Writer) error {
	fmt.Fprintf(w, "%s: %.1f s, %d threads, %d connections\n", r.Command, r.Seconds, r.Threads, r.Connections)
	fmt.Fprintf(w, "Requests:  %d; %d answered rightly and %d wrongly through NATS, %d by the gateway itself, %d left by their client\n",
		r.Requests, r.Right, r.Wrong, r.Pongs, r.Abandoned)
	for _, name := range slices.Sorted(maps.Keys(r.FailedBy)) {
		fmt.Fprintf(w, "           %d x %s\n", r.FailedBy[name], name)
	}
	fmt.Fprintf(w, "Frames:    %d sent in two pieces, %d left by their client in the middle\n", r.Split, r.Torn)
	fmt.Fprintf(w, "Rate:      %.0f answers/sec, %.0f buffers/sec\n", r.PerSecond, r.BuffersPerSecond)
	fmt.Fprintf(w, "Buffers:   %d acquired = %d released\n", r.End.BuffersAcquired, r.End.BuffersReleased)
	fmt.Fprintf(w, "Slots:     %d acquired = %d released\n", r.End.SlotsAcquired, r.End.SlotsReleased)
	fmt.Fprintf(w, "NATS:      %d of %d connections up, %d reconnects meanwhile\n", r.End.LinksUp, r.End.Loops, r.End.Reconnects-r.Start.Reconnects)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "At rest:\tresident MiB\theap MiB\tdescriptors\tgoroutines\t\n")
	for _, c := range []struct {
		when   string
		counts *counts
	}{{"start", r.Start}, {"end", r.End}} {
		heap := "-" // with the garbage it means nothing
		if c.counts.Collected {
			heap = fmt.Sprintf("%.2f", mib(c.counts.HeapBytes))
		}
		fmt.Fprintf(table, "%s\t%.1f\t%s\t%d\t%d\t\n", c.when, mib(c.counts.ResidentBytes), heap, c.counts.Descriptors, c.counts.Goroutines)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	verdict := "nothing is left: no leak"
	if len(r.Findings) > 0 {
		verdict = "FAILED: " + strings.Join(r.Findings, "\n           ")
	}
	_, err := fmt.Fprintf(w, "Verdict:   %s\n", verdict)
	return err
}
