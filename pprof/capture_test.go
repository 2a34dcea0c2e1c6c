package pprof

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// capture runs capture.sh and returns what it wrote.
func capture(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var text bytes.Buffer
	script := exec.CommandContext(ctx, "./capture.sh", args...)
	script.Stdout, script.Stderr = &text, &text
	script.Cancel = func() error { return script.Process.Signal(syscall.SIGTERM) } // it ends what it started
	script.WaitDelay = 10 * time.Second
	err = script.Run()
	return text.String(), err
}

// Goal: in one go there is a profile and a picture of each kind, taken of a real gateway under load, with the loops' labels;
// what the machine does not support is said, and is no failure.
func TestCapture(t *testing.T) {
	if testing.Short() {
		t.Skip("builds five programs and captures for seconds")
	}
	testtool.Find(t, "curl", "curl")
	out := t.TempDir()
	output, err := capture(t, "--seconds", "1", "--gateway", "--cpus 0", "--out", out)
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for name, part := range map[string]string{
		"cpu.svg": "part=loop", "cpu-labels.txt": "loop", "cpu.txt": "Showing nodes", "goroutine.txt": `"part":"nats"`, "block.svg": "selectgo", "threads.txt": "ipc-loop-0",
		"trace.out": "go 1.", "heap.pprof": "", "allocs.pprof": "", "mutex.pprof": "", "summary.txt": "== from the Go runtime",
	} {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s: %v, or no %q", name, err, part)
		}
	}
	// Each tool that is here has done its part, or has tried and says why it could not; one that is not here is named.
	for _, test := range []struct {
		tool, absent, refused string
		results               []string
	}{
		{"perf", "not here: perf: ", "not here: perf record: ", []string{"perf.svg", "perf.txt", "perf-stat.txt"}},
		{"dot", "not here: graphviz: ", "", []string{"cpu-graph.svg"}},
	} {
		_, err := exec.LookPath(test.tool)
		here := err == nil
		if here == strings.Contains(output, test.absent) {
			t.Errorf("%s is here: %v", test.tool, here)
		}
		for _, name := range test.results {
			text, err := os.ReadFile(filepath.Join(out, name))
			refused := test.refused != "" && strings.Contains(output, test.refused)
			if here && !refused && (err != nil || len(text) == 0) {
				t.Errorf("%s is here, and not %s: %v", test.tool, name, err)
			}
		}
	}
	_, noPerf := exec.LookPath("perf")
	_, noStrace := exec.LookPath("strace")
	calls, err := os.ReadFile(filepath.Join(out, "syscalls.txt"))
	if refused := strings.Contains(output, "not here: system calls by kind"); refused != (err != nil) || !refused && !strings.Contains(string(calls), "read") {
		t.Errorf("system calls: perf: %v, strace: %v, %v: %s", noPerf, noStrace, err, calls)
	}
	if t.Failed() {
		t.Log(output)
	}
}

// Goal: who names a gateway that serves no profiles, or a flag that is none, is told so.
func TestCaptureRefuses(t *testing.T) {
	for _, args := range [][]string{{"--probe", "http://127.0.0.1:1"}, {"--bogus", "1"}, {"--seconds", "x"}, {"--seconds"}} {
		out := t.TempDir()
		output, err := capture(t, append([]string{"--out", out}, args...)...)
		if err == nil || !strings.Contains(output, "--p") {
			t.Errorf("%v: %v: %s", args, err, output)
		}
	}
}
