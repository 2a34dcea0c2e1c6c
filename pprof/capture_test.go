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
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("capture.sh needs curl")
	}
	out := t.TempDir()
	output, err := capture(t, "--seconds", "1", "--gateway", "--cpus 0", "--out", out)
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for name, part := range map[string]string{
		"cpu.svg": "part=loop", "cpu-labels.txt": "loop", "cpu.txt": "gnet", "goroutine.txt": `"part":"nats"`, "block.svg": "selectgo", "threads.txt": "ipc-loop-0",
		"trace.out": "go 1.", "heap.pprof": "", "allocs.pprof": "", "mutex.pprof": "", "summary.txt": "== from the Go runtime",
	} {
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || !strings.Contains(string(text), part) {
			t.Errorf("%s: %v, or no %q", name, err, part)
		}
	}
	for tool, results := range map[string][]string{"perf": {"perf.svg", "perf.txt", "perf-stat.txt"}, "dot": {"cpu-graph.svg"}} {
		for _, name := range results {
			if _, err := os.Stat(filepath.Join(out, name)); err != nil && !strings.Contains(output, "not here:") {
				t.Errorf("neither %s nor a word that %s cannot do it: %s", name, tool, output)
			}
		}
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
