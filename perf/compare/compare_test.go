package compare

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// Goal: all sides do all they can with real processes; every figure is there and believable, and survives JSON.
func TestRun(t *testing.T) {
	buildForTest(t, "perf/sockets/sockets.c") // skips without a compiler
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// 67 connections are more than there are programs with nats.go, and no multiple of them.
	s := Settings{Sides: AllSides, Repeats: 1, Duration: 100 * time.Millisecond, Cells: append(
		Cells([]string{KindRequest}, []int{3, 67}, []int{4}, []int{256}),
		append(Cells([]string{KindConnect}, []int{2}, []int{1}, []int{100}),
			Cells([]string{KindPing, KindPublish, KindPublishAnswered, KindJetStream}, []int{2}, []int{2}, []int{100})...)...)}
	result, err := Run(t.Context(), s, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("haproxy"); (err == nil) != (len(result.LeftOut) == 0) {
		t.Errorf("left out: %v; haproxy: %v", result.LeftOut, err)
	}
	for _, c := range result.Cells {
		if c.side(SideGateway) == nil || len(c.Sides) < 2 {
			t.Errorf("%v was measured with %d sides", c.Cell, len(c.Sides))
		}
		for _, one := range c.Sides {
			run := one.Runs[0]
			if run.Connections != c.Connections {
				t.Errorf("%v, %s: %d connections", c.Cell, one.Name, run.Connections)
			}
			waits := !c.publishes() || c.Kind == KindPublishAnswered && one.Name == SideGateway
			if run.Requests < 10 || run.Seconds < 0.1 || run.AllUs <= 0 || waits != (p50(run) > 0) || (one.Name == SideDirect) != (run.MiddleUs == nil) {
				t.Errorf("%v, %s: %+v", c.Cell, one.Name, run)
			}
			if waits && run.Answers() != run.Requests {
				t.Errorf("%v, %s: the histogram has %d of %d requests", c.Cell, one.Name, run.Answers(), run.Requests)
			}
			if run.MiddleUs != nil && (*run.MiddleUs <= 0 || *run.RSSBytes < 1<<19) {
				t.Errorf("%v, %s: %v us, %v bytes", c.Cell, one.Name, *run.MiddleUs, *run.RSSBytes)
			}
			if inGo := one.Name == SideGateway || one.Name == SideSidecar || one.Name == SideRing; inGo != (run.Mallocs != nil) {
				t.Errorf("%v, %s: mallocs %v", c.Cell, one.Name, run.Mallocs)
			}
		}
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	var first, second strings.Builder
	result.Write(&first)
	again.Write(&second)
	if first.String() != second.String() {
		t.Errorf("%s\nafter JSON:\n%s", first.String(), second.String())
	}
}

// Goal: all of it also works when the NATS server wants TLS.
func TestRunTLS(t *testing.T) {
	skipIfShort(t)
	buildForTest(t, "perf/sockets/sockets.c") // skips without a compiler
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := Settings{Sides: AllSides, TLS: true, Repeats: 1, Duration: 100 * time.Millisecond, Cells: Cells([]string{KindRequest, KindConnect}, []int{2}, []int{1}, []int{100})}
	result, err := Run(t.Context(), s, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Cells {
		if c.side(SideGateway) == nil || c.side(SideDirect) == nil || c.side(SideRing) == nil {
			t.Errorf("%v was measured with %d sides", c.Cell, len(c.Sides))
		}
	}
}

// sampleOf is a run that was so fast. Its latencies are all the same.
func sampleOf(perSecond, latencyUs, middleUs float64) *Sample {
	s := &Sample{Report: report.Report{Requests: int64(perSecond), Seconds: 1}, MiddleUs: &middleUs, OthersCPUs: perSecond / 1e5}
	for range report.Quantiles {
		s.QuantilesUs = append(s.QuantilesUs, latencyUs)
	}
	return s
}

func resultOf(c Cell, gateway, direct []*Sample) *Result {
	return &Result{Settings: Settings{Repeats: len(gateway)}, Cells: []*CellResult{{Cell: c, Sides: []*SideResult{{SideGateway, gateway}, {SideDirect, direct}}}}}
}

// Goal: the table has the medians, how far the runs lie apart, and the ratios.
func TestTable(t *testing.T) {
	noMiddle := sampleOf(10000, 100, 0)
	noMiddle.MiddleUs = nil
	r := resultOf(Cell{KindRequest, 16, 1, 256},
		[]*Sample{sampleOf(30000, 50, 10), sampleOf(20000, 50, 10), sampleOf(40000, 50, 10)},
		[]*Sample{noMiddle, noMiddle, sampleOf(40000, 100, 0)})
	r.Cells[0].Sides[1].Runs[2].MiddleUs = nil
	r.LeftOut = []string{"haproxy is not installed"}
	var out strings.Builder
	r.Write(&out)
	for _, want := range []string{
		`left out: haproxy is not installed`,
		`16 x 1, 256 B +gateway +30000 +33% +50\.0 +0% +50\.0 +0% +50\.0 +0% +10\.00 +0% `,
		` direct +10000 +150% +100\.0 +0% .* - +- .* 3\.00x +1\.00\.\.3\.00`,
		`NOT QUIET`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "NaN") {
		t.Errorf("NaN in\n%s", out.String())
	}
}

// Goal: a goal is reached exactly if the bound is kept, and only what was measured is judged.
func TestGoals(t *testing.T) {
	r := resultOf(Cell{KindRequest, 1, 1, 256}, []*Sample{sampleOf(100, 141, 1)}, []*Sample{sampleOf(100, 100, 1)})
	r.Cells = append(r.Cells, resultOf(Cell{KindRequest, 16, 1, 256}, []*Sample{sampleOf(140, 1, 1)}, []*Sample{sampleOf(100, 2, 1)}).Cells...)
	r.Cells = append(r.Cells, resultOf(Cell{KindRequest, 64, 1, 1024}, []*Sample{sampleOf(140, 1, 1)}, []*Sample{sampleOf(100, 2, 1)}).Cells...)
	var out strings.Builder
	r.writeGoals(&out)
	for _, want := range []string{
		"NOT REACHED  request 1 x 1, p50 added against direct: 41.000 us, goal at most 40 us",
		"reached      request 1 x 1, p99 added against direct: 41.000 us, goal at most 150 us",
		"reached      request 16 x 1, rate against direct: 1.400x, goal at least 1.4x",
		"reached      request 16 x 1, p99 against direct: 0.500x, goal at most 0.65x",
	} {
		if !strings.Contains(out.String(), "\n  "+want+"\n") {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 6 {
		t.Errorf("%d lines in\n%s", got, out.String())
	}
}

// Goal: the goals of every kind are judged, each by its own figure and against its own peer: just reached with its bound,
// and not reached with a little less.
func TestGoalsOfAllKinds(t *testing.T) {
	const little = 0.99
	for _, g := range goals {
		for _, tls := range []bool{false, true} {
			r := &Result{Settings: Settings{TLS: tls}}
			bound := g.limit(r)
			if (bound != g.bound) != (tls && g.kind == KindConnect) {
				t.Errorf("%+v: the bound is %v with TLS: %v", g, bound, tls)
			}
			for _, reached := range []bool{true, false} {
				ours := bound
				if reached != g.atLeast {
					ours *= little
				} else {
					ours /= little
				}
				peer := sampleOf(1, 1, 1)
				if g.difference {
					ours++
				}
				gateway := sampleOf(ours, ours, ours)
				gateway.Requests, gateway.Seconds = 1, 1/ours
				gateway.Mallocs, gateway.RSSBytes = new(ours), new(ours*(1<<20))
				c := &CellResult{Cell: Cell{g.kind, g.connections, g.window, goalPayload}, Sides: []*SideResult{{SideGateway, []*Sample{gateway}}}}
				if g.kind == KindPing {
					c.Payload = 0
				}
				if g.side != "" {
					c.Sides = append(c.Sides, &SideResult{g.side, []*Sample{peer}})
				}
				r.Cells = []*CellResult{c}
				if got, is, measured := g.judge(r); is != reached || !measured {
					t.Errorf("%s %d x %d %s against %q: %v is reached: %v, want %v", g.kind, g.connections, g.window, g.what, g.side, got, is, reached)
				}
			}
		}
	}
	for _, kind := range []string{KindRequest, KindConnect, KindPing, KindPublish, KindPublishAnswered, KindJetStream} {
		if !slices.ContainsFunc(goals, func(g goal) bool { return g.kind == kind }) {
			t.Errorf("no goal of the kind %s", kind)
		}
	}
}

// Goal: the plans are valid and take as long as is said of them.
func TestPlans(t *testing.T) {
	for name, plan := range map[string]struct {
		s   Settings
		max time.Duration
	}{"default": {Default(), 7*time.Minute + 30*time.Second}, "quick": {Quick(), 45 * time.Second}, "full": {Full(), 50 * time.Minute}} {
		if err := plan.s.Validate(); err != nil || plan.s.Estimate() > plan.max {
			t.Errorf("%s: %v, %v", name, plan.s.Estimate(), err)
		}
	}
	for _, name := range []string{"default", "quick"} {
		s := Default()
		if name == "quick" {
			s = Quick()
		}
		if leftOut := s.fit(); len(leftOut) > 0 {
			t.Errorf("%s: left out: %v", name, leftOut)
		}
	}
	full := Full()
	leftOut := full.fit()
	if len(leftOut) != 3 || !strings.HasPrefix(leftOut[0], "request 256 x 16, 65536 B: 256 MiB in flight") || !strings.HasPrefix(leftOut[2], "publish-answered 1024 x 16, 65536 B: ") {
		t.Errorf("full: left out: %q", leftOut)
	}
	for _, c := range []Cell{{KindRequest, 64, 16, 64 << 10}, {KindRequest, 1024, 1, 64 << 10}, {KindRequest, 1024, 16, 1 << 10}, {KindPublish, 1024, 16, 64 << 10}} {
		if !slices.Contains(full.Cells, c) {
			t.Errorf("full has no %v", c)
		}
	}
	bad := Settings{Repeats: 0, Duration: time.Hour, Loops: -1, Sides: []string{"python"}, Cells: []Cell{{"soak", 0, 0, 0}, {KindRequest, 5000, 2000, 15}}}
	problems := bad.Validate()
	for _, want := range []string{"repeats", "1h0m0s", "-1 loops", "python", "soak", "connections", "window", "payload"} {
		if problems == nil || !strings.Contains(problems.Error(), want) {
			t.Errorf("no %q in %v", want, problems)
		}
	}
}
