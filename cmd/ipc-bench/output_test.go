package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: 100 % is shown only if nothing failed, however little that was, in the result and in the summary of a suite.
func TestFailuresAreNotRoundedAway(t *testing.T) {
	for _, test := range []struct {
		sent, failed int64
		want         string
	}{{1_000_000, 0, "100%"}, {1_000_000, 1, "99.99%"}, {1_000_000, 49, "99.99%"}, {1_000_000, 1000, "99.9%"}, {8, 1, "87.5%"}, {1, 1, "0%"}} {
		latencies := hdrhistogram.New(1, int64(time.Second), 3)
		r := &load.Result{Spec: load.Spec{Type: codec.TypePing, Version: 1}, Active: time.Second, Sent: test.sent, Right: test.sent - test.failed,
			Failed: test.failed, Latencies: latencies, Late: latencies}
		s := newSummary("throughput", r, nil)
		var text strings.Builder
		writeText(&text, s, r)
		if !strings.Contains(text.String(), "Success Rate:  "+test.want+" (") {
			t.Errorf("%d of %d failed, want %s: %s", test.failed, test.sent, test.want, text.String())
		}
		folder := t.TempDir()
		line, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, "a.json"), line, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		text.Reset()
		if err := (&summaryCommand{Folder: folder}).writeSection(&text, "Throughput", "*.json"); err != nil || !strings.Contains(text.String(), "| "+test.want+" |") {
			t.Errorf("%d of %d failed, want %s: %v: %s", test.failed, test.sent, test.want, err, text.String())
		}
	}
}

// Goal: a client that kept its threads busy says that it was the bottleneck, for people and for scripts; one that did not says
// nothing.
func TestBottleneck(t *testing.T) {
	for _, test := range []struct {
		share   float64
		workers int
		want    bool
	}{{0.95, 1, true}, {0.89, 1, false}, {1.5, 2, false}, {1.9, 2, true}} {
		latencies := hdrhistogram.New(1, int64(time.Second), 3)
		r := &load.Result{Spec: load.Spec{Type: codec.TypePing, Version: 1, Workers: test.workers}, Active: time.Second, CPUShare: test.share, Latencies: latencies, Late: latencies}
		s := newSummary("throughput", r, nil)
		var text strings.Builder
		writeText(&text, s, r)
		line, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(text.String(), "WARNING: the client was the bottleneck"); got != test.want {
			t.Errorf("%v of %d threads: %v\n%s", test.share, test.workers, got, text.String())
		}
		if got := strings.Contains(string(line), `"client_is_bottleneck":true`); got != test.want {
			t.Errorf("%v of %d threads: %s", test.share, test.workers, line)
		}
	}
}
