package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// column is one figure of the runs.
type column struct {
	head     string
	value    func(*sample) float64
	decimals int
}

func perSecond(s *sample) float64 { return s.PerSecond }
func p50(s *sample) float64       { return s.P50Us }
func p99(s *sample) float64       { return s.P99Us }
func serverUs(s *sample) float64  { return s.serverUs }

var columns = []column{
	{"req/s", perSecond, 0},
	{"p50 us", p50, 1},
	{"p99 us", p99, 1},
	{"p99.9 us", func(s *sample) float64 { return s.P999Us }, 1},
	{"server us/req", serverUs, 2},
	{"load us/req", func(s *sample) float64 { return s.CPUSeconds * 1e6 / float64(s.Requests) }, 2},
	{"all us/req", func(s *sample) float64 { return s.allUs }, 2},
	{"mallocs/req", func(s *sample) float64 { return s.mallocs }, 4},
	{"GCs/run", func(s *sample) float64 { return s.collections }, 1},
}

// writeTable writes the medians of each duel's runs, their ratios, and how far the ratios of single
// pairs of runs lie apart.
func writeTable(w io.Writer, title string, duels []*duel) {
	fmt.Fprintf(w, "\n%s\n", title)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells []string) { fmt.Fprintln(table, strings.Join(cells, "\t")+"\t") }
	head := []string{"conns x window", ""}
	for _, c := range columns {
		head = append(head, c.head)
	}
	row(head)
	for _, d := range duels {
		a := []string{fmt.Sprintf("%d x %d", d.connections, d.window), d.a.name}
		b := []string{"", d.b.name}
		ratios := []string{"", "ratio"}
		ranges := []string{"", "min..max"}
		for _, c := range columns {
			a = append(a, number(median(valuesOf(d.aRuns, c.value)), c.decimals))
			b = append(b, number(median(valuesOf(d.bRuns, c.value)), c.decimals))
			r := d.compare(c.value)
			if math.IsNaN(r.medians) {
				ratios, ranges = append(ratios, ""), append(ranges, "")
				continue
			}
			ratios = append(ratios, fmt.Sprintf("%.2fx", r.medians))
			ranges = append(ranges, fmt.Sprintf("%.2f..%.2f", r.min, r.max))
		}
		row(a)
		row(b)
		row(ratios)
		row(ranges)
	}
	// The writer below is the terminal.
	_ = table.Flush()
}

func number(value float64, decimals int) string {
	if math.IsNaN(value) {
		return "-"
	}
	return fmt.Sprintf("%.*f", decimals, value)
}

// quietCPUs is how many CPUs other processes may keep busy in a run that is to be believed.
const quietCPUs = 0.1

// writeNoise says how much the machine had to do besides, which is what to look at first.
func writeNoise(w io.Writer, duels []*duel) {
	var others, stolen []float64
	for _, d := range duels {
		for _, run := range slices.Concat(d.aRuns, d.bRuns) {
			others = append(others, run.othersCPUs)
			stolen = append(stolen, run.stolenCPUs)
		}
	}
	fmt.Fprintf(w, "\nCPUs kept busy by other processes meanwhile: median %.2f, most %.2f; taken by the host: median %.2f, most %.2f\n",
		median(others), slices.Max(others), median(stolen), slices.Max(stolen))
	if median(others)+median(stolen) > quietCPUs {
		fmt.Fprintln(w, "THE MACHINE WAS NOT QUIET: that moves ratios, and not only widens them. Do not judge goals by this run.")
	}
}
