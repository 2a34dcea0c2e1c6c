package main

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// duelOf makes a duel in which the runs had these rates, and latencies of latencyUs at every quantile.
func duelOf(connections int, aRates, bRates []float64, aLatencyUs, bLatencyUs float64) *duel {
	d := &duel{connections: connections, window: 1, a: trial{name: "gateway"}, b: trial{name: "direct"}}
	for i := range aRates {
		d.aRuns = append(d.aRuns, sampleOf(aRates[i], aLatencyUs))
		d.bRuns = append(d.bRuns, sampleOf(bRates[i], bLatencyUs))
	}
	return d
}

func sampleOf(perSecond, latencyUs float64) *sample {
	return &sample{
		Report:   report.Report{Requests: int64(perSecond), PerSecond: perSecond, P50Us: latencyUs, P99Us: latencyUs, P999Us: latencyUs, CPUSeconds: 0.5},
		serverUs: 1e5 / perSecond, allUs: 1e6 / perSecond, mallocs: math.NaN(), collections: math.NaN(),
		othersCPUs: perSecond / 1e5,
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	writeTable(&out, "title", []*duel{duelOf(16, []float64{30000, 20000, 40000}, []float64{10000, 10000, 40000}, 50, 100)})
	for _, want := range []string{
		`16 x 1  +gateway  +30000  +50\.0 `,
		`direct  +10000  +100\.0 .* -  +-\n`,
		`ratio  +3\.00x  +0\.50x `,
		`min\.\.max  +1\.00\.\.3\.00  +0\.50\.\.0\.50 `,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("NaN in\n%s", out.String())
	}
}

func TestNoise(t *testing.T) {
	var out strings.Builder
	writeNoise(&out, []*duel{duelOf(1, []float64{10000}, []float64{30000}, 1, 1)})
	for _, want := range []string{"median 0.20, most 0.30", "NOT QUIET"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
	out.Reset()
	writeNoise(&out, []*duel{duelOf(1, []float64{5000}, []float64{5000}, 1, 1)})
	if strings.Contains(out.String(), "NOT QUIET") {
		t.Errorf("0.05 CPUs are not quiet: %q", out.String())
	}
}

func TestGoals(t *testing.T) {
	s := &settings{connections: []int{1, 16}}
	requests := []*duel{
		duelOf(1, []float64{100}, []float64{100}, 141, 100),
		duelOf(16, []float64{120}, []float64{100}, 1, 1),
	}
	// The rate of the first is half: its CPU per request is twice.
	pings := []*duel{duelOf(16, []float64{100}, []float64{200}, 1, 1)}
	var out strings.Builder
	writeGoals(&out, append(requestGoals(requests, "C", "programs"), pingGoals(pings)...), s, true)
	for _, want := range []string{
		"NOT REACHED  p50, 1 connection, gateway - direct: 41.000 us, goal at most 40 us",
		"reached      p99, 1 connection, gateway - direct: 41.000 us, goal at most 150 us",
		"reached      requests/s, 16 programs, gateway (C) / direct: 1.200x, goal at least 1.2x",
		"NOT REACHED  CPU per PING, 16 x 1, gateway / C echo: 2.000x, goal at most 1.4x",
		"not measured  requests/s, 64 programs: not among -conns",
	} {
		if !strings.Contains(out.String(), "\n  "+want+"\n") {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	writeGoals(&out, requestGoals(requests, "Go", "connections in one process"), s, true)
	if want := "requests/s, 16 connections in one process, gateway"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
	out.Reset()
	writeGoals(&out, nil, s, false)
	if !strings.Contains(out.String(), "CPU per PING: no C compiler") {
		t.Errorf("nobody is told why PING was not measured:\n%s", out.String())
	}
}

// The command line that is printed makes the same runs.
func TestCommand(t *testing.T) {
	first, err := parse([]string{"-quick", "-conns", "3,70", "-go=false", "-shared", "-version", "2", "-loops", "2", "-payload", "1000"})
	if err != nil {
		t.Fatal(err)
	}
	if first.duration != 500*time.Millisecond || first.repeats != 2 {
		t.Errorf("-quick is %v x %d", first.duration, first.repeats)
	}
	again, err := parse(strings.Fields(strings.TrimPrefix(first.command(), "go run ./perf/bench")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(*again), fmt.Sprint(*first); got != want {
		t.Errorf("%s gives %s, not %s", first.command(), got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-repeats", "0"}, {"-seconds", "0"}, {"-seconds", "61"}, {"-conns", "1,"}, {"-conns", "0"}, {"-conns", "5000"},
		{"-payload", "15"}, {"-payload", "5000000"}, {"-version", "3"}, {"-loops", "-1"}, {"quick"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
