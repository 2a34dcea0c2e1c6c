package pprof

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// countingPerf stands for perf on a machine that has hardware counters, which those of the tests seldom have.
const countingPerf = `#!/usr/bin/env bash
kind=$1 out=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [ "$1" = -o ] && out=$2
    shift
done
case $kind in
record) echo data >"$out" ;;
report) echo "# Samples: 7  of event 'cycles'" ;;
script) cat "$PERF_SCRIPT" ;;
stat) shift; "$@"; printf '%s\n' ' 1,000.00 msec task-clock' ' 4,000 cycles' ' 8,000 instructions' >"$out" ;;
trace) shift; "$@"; echo ' read 40 0 1.0 0.1 0.1 0.1 1%' >"$out" ;;
esac
`

// Goal: where perf counts all that it is asked to, and where a profile is refused, the capture still goes on to its end: it is the
// last one that each part takes. Method: the profiles of this process, without the trace, and a perf that counts.
func TestCaptureGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program and captures for seconds")
	}
	testtool.Find(t, "curl", "curl")
	var asked atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no traces here", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "ipc_requests_total %d\n", asked.Add(10))
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	samples, err := filepath.Abs("flame/testdata/perf.script")
	if err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir()
	if err := os.WriteFile(filepath.Join(tools, "perf"), []byte(countingPerf), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	t.Setenv("PERF_SCRIPT", samples)
	out := t.TempDir()
	output, err := capture(t, "--seconds", "1", "--probe", server.URL, "--pid", strconv.Itoa(os.Getpid()), "--out", out)
	if err != nil {
		t.Errorf("%v", err)
	}
	for _, part := range []string{
		"not here: trace?seconds=1: ", "800.000 instructions per request", "100000.000 us of CPU time per request", "system calls, by perf trace: 10 requests", "threads.txt: ", out,
	} {
		if !strings.Contains(output, part) {
			t.Errorf("it does not say %q", part)
		}
	}
	if strings.Contains(output, "hardware counters") {
		t.Error("it misses counters that are there")
	}
	if t.Failed() {
		t.Log(output)
	}
}
