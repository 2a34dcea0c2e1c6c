package compare

import (
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
------ ----------- ----------- --------- --------- ----------------
100.00    0.473585          30     15530         5 total
`
	got, err := parseStrace(text)
	if err != nil || got["wait"] != 6487 || got["read"] != 6029 || got["write"] != 3014 {
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
		t.Log(c) // judged by make bench-gate
	}
	const output = "engine/loop.go:1:6: can inline (*loop).touch\nengine/loop.go:2:6: can inline small with cost 7 as: func() {}\nengine/a.go:3:6: cannot inline big: too complex\n"
	c := notInlined("./engine", []string{"(*loop).touch", "small", "big"}, output)
	if c.Passed() || c.Got != 1 || !strings.Contains(c.String(), "FAILED") || !strings.Contains(c.String(), "big") {
		t.Error(c)
	}
}

// Goal: the gateway's system calls are counted while it serves, where that can be done, and do not exceed the bounds.
func TestCountSyscalls(t *testing.T) {
	r := startTestRig(t, []string{SideGateway}, []Cell{syscallBounds[0].cell})
	var result GateResult
	if err := r.countSyscalls(t.Context(), &result); err != nil {
		t.Fatal(err)
	}
	for _, c := range result.Checks {
		if t.Log(c); c.Skipped == "" && c.Got <= 0 {
			t.Error("nothing was counted")
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
