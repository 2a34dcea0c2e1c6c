package compare

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Goal: the summary of strace -c is read with and without errors, and counts by kind.
func TestParseStrace(t *testing.T) {
	const text = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 79.07    0.374441          57      6487           epoll_pwait
 12.27    0.058124           9      6029         5 read
  8.64    0.040935          13      3010           write
  0.02    0.000085          21         4           writev
  0.02    0.000085          21         7         2 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.473585          30     15530         5 total
`
	got, err := parseStrace(text)
	if err != nil || got["wait"] != 6487 || got["read"] != 6029 || got["write"] != 3014 || got["futex"] != 7 || got["all"] != 15530+7 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "1 2 3 x read"} {
		if _, err := parseStrace(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// Goal: the compiler is asked about the hot functions, and one that it does not inline is named.
func TestInlined(t *testing.T) {
	checks, err := inlined(t.Context(), "../..")
	if err != nil || len(checks) != len(hot) {
		t.Fatal(checks, err)
	}
	for _, c := range checks {
		if !c.Passed() {
			t.Error(c)
		}
	}
	const output = "engine/loop.go:1:6: can inline (*loop).touch\nengine/loop.go:2:6: can inline small with cost 7 as: func() {}\nengine/a.go:3:6: cannot inline big: too complex\n"
	c := notInlined("./engine", []string{"(*loop).touch", "small", "big"}, output)
	if c.Passed() || c.Got != 1 || !strings.Contains(c.String(), "FAILED") || !strings.Contains(c.String(), "big") {
		t.Error(c)
	}
}

// Goal: the summary of perf trace is read: the blocks of all threads, added up.
func TestParsePerfTrace(t *testing.T) {
	const text = `
 Summary of events:

 ipc-gateway (123), 40 events, 100.0%

   syscall            calls  errors  total       min       avg       max       stddev
                                     (msec)    (msec)    (msec)    (msec)        (%)
   --------------- --------  ------ -------- --------- --------- ---------     ------
   epoll_pwait           10      0    12.345     0.001     0.002     0.003      1.00%
   read                   5      1     0.345     0.001     0.002     0.003      1.00%

 ipc-gateway (124), 40 events, 100.0%

   syscall            calls  errors  total       min       avg       max       stddev
   read                   7      0     0.345     0.001     0.002     0.003      1.00%
   nanosleep              9      0     0.345     0.001     0.002     0.003      1.00%
`
	got, err := parsePerfTrace(text)
	if err != nil || got["wait"] != 10 || got["read"] != 12 || got["all"] != 31 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parsePerfTrace("nothing"); err == nil {
		t.Error("nothing was accepted")
	}
}

// Goal: the gateway keeps the bounds of the gate: its system calls are counted while it serves, by whatever tool there is, and
// its mallocs over so many requests that what is allowed for a run is little for one.
func TestGateBounds(t *testing.T) {
	cells := Cells([]string{KindPing}, []int{16}, []int{16}, nil)
	for _, b := range syscallBounds {
		cells = append(cells, b.cell)
	}
	r := startTestRig(t, []string{SideGateway}, cells)
	for _, one := range tracers {
		t.Run(one.tool, func(t *testing.T) {
			before := tracers
			t.Cleanup(func() { tracers = before })
			tracers = []*tracer{one}
			var result GateResult
			if err := r.countSyscalls(t.Context(), &result); err != nil {
				t.Fatal(err)
			}
			for _, c := range result.Checks {
				if c.Skipped != "" {
					t.Skip(c.Skipped)
				}
				if !c.Passed() || strings.Contains(c.Name, ", read,") && c.Got < 0.3 {
					t.Error(c)
				}
			}
			if len(result.Checks) != len(syscallBounds)*len(syscallKinds) {
				t.Errorf("%d checks", len(result.Checks))
			}
		})
	}
	var result GateResult
	if err := r.countMallocs(t.Context(), cells[:1], &result); err != nil {
		t.Fatal(err)
	}
	var requests float64
	c := result.Checks[0]
	if _, err := fmt.Sscanf(c.Name, "mallocs in %f requests", &requests); err != nil || requests < mallocsRequestsMin || !c.Passed() || c.Most > 0.002*requests+300 {
		t.Error(c, err)
	}
}

// Goal: where no tool can count, each says why.
func TestUncounted(t *testing.T) {
	before := tracers
	t.Cleanup(func() { tracers = before })
	tracers = []*tracer{{tool: "no-such-tool"}, {tool: "nor-this"}}
	r := &rig{sides: map[string]*side{SideGateway: {}}}
	var result GateResult
	if err := r.countSyscalls(t.Context(), &result); err != nil || len(result.Checks) != 1 || !result.Checks[0].Passed() {
		t.Fatal(result.Checks, err)
	}
	if why := result.Checks[0].Skipped; !strings.Contains(why, "no-such-tool is not installed") || !strings.Contains(why, "nor-this is not installed") {
		t.Error(why)
	}
}

// Goal: a test that counts allocations and fails, fails the gate, and so does one that could not run.
func TestAllocationCheck(t *testing.T) {
	const passed, failed = "=== RUN TestAllocs\n--- PASS: TestAllocs (0.00s)\nPASS\n", "x\n--- PASS: TestAllocs (0.00s)\n--- FAIL: TestPublishAllocs (0.1s)\n"
	for _, test := range []struct {
		output string
		err    error
		passes bool
	}{{passed, nil, true}, {failed, errUncounted, false}, {"build failed", errUncounted, false}, {"no tests to run", nil, false}} {
		if c := allocationCheck("./codec", test.output, test.err); c.Passed() != test.passes {
			t.Errorf("%q: %v", test.output, c)
		}
	}
}

// Goal: a gate passes with what was skipped, fails with one bound exceeded, and says which.
func TestGateResult(t *testing.T) {
	good := &Check{Name: "good", Got: 1, Most: 1}
	skipped := &Check{Name: "blind", Skipped: "no strace"}
	g := GateResult{Checks: []*Check{good, skipped}, NoBase: "no parent"}
	var out strings.Builder
	g.Write(&out)
	for _, want := range []string{"ok       good: 1, at most 1", "skipped  blind: no strace", "skipped  comparison with another commit: no parent"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	if !g.Passed() {
		t.Error("it did not pass")
	}
	if g.Checks = append(g.Checks, &Check{Name: "bad", Got: 1.1, Most: 1}); g.Passed() || !strings.Contains(g.Checks[2].String(), "FAILED   bad: 1.1") {
		t.Error("it passed")
	}
}

// Goal: without a commit to compare with, the reason is told.
func TestNoBase(t *testing.T) {
	folder := t.TempDir()
	if _, err := buildBase(t.Context(), "../..", folder, ""); err == nil {
		t.Error("nothing was built")
	}
	if _, err := buildBase(t.Context(), "../..", folder, "no-such-commit"); err == nil || !strings.Contains(err.Error(), "no-such-commit") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "base-gateway")); err == nil {
		t.Error("there is a binary")
	}
}
