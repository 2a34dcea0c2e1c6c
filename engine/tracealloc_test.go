//go:build !race

package engine

import (
	"testing"

	"github.com/aigroup/ipc-gateway/trace"
)

// Goal: tracing allocates nothing: not for requests that are not sampled, of either version, and not for those that are.
// Method: as that of TestRequestsDoNotAllocate; nobody takes the spans, so that later ones are dropped.
func TestTracingDoesNotAllocate(t *testing.T) {
	url := startProcess(t, "alloc-nats", "STORE="+t.TempDir()).line
	cfg := testConfig(t, url)
	cfg.Logger = nil // a test's log allocates
	cfg.Tracer, cfg.TraceClients, cfg.TraceSample = new(trace.Sink), true, 1e-18
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, c := range []struct {
		kind   string
		traced bool
	}{{"v1-request", false}, {"v2-unsampled", false}, {"v2-request", true}} {
		t.Run(c.kind, func(t *testing.T) {
			load := startProcess(t, "alloc-load", "SOCKET="+cfg.SocketPath, "KIND="+c.kind)
			runLoad(t, load, 30_000) // until the buffers have found their sizes
			expectNoMallocs(t, load, 60_000)
			if s := g.Stats(); (s.TraceSpans > 0) != c.traced {
				t.Errorf("%d spans", s.TraceSpans)
			}
		})
	}
}
