package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
	"github.com/aigroup/ipc-gateway/codec"
)

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
