//go:build !race

package engine

import (
	"testing"
)

// Goal: being under a rule costs no allocation, in whichever way a request goes. Method: that of
// TestRequestsDoNotAllocate, with the clients under a rule that has everything.
func TestRequestsUnderARuleDoNotAllocate(t *testing.T) {
	url := startProcess(t, "alloc-nats").line
	cfg := testConfig(t, url)
	cfg.Logger = nil // a test's log allocates
	cfg.Loops = 1
	cfg.Peers = ruleForUs(func(r *PeerRule) {
		r.Connections, r.RequestsPerSecond, r.Inflight = 1000, rateMax, 60_000
		r.Publish, r.Subscribe = twentyPatterns(), twentyPatterns()
	})
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, kind := range []string{"v1-request", "v2-request", "publish", "noreply", "mixed"} {
		t.Run(kind, func(t *testing.T) {
			load := startProcess(t, "alloc-load", "SOCKET="+cfg.SocketPath, "KIND="+kind)
			runLoad(t, load, 30_000) // until the buffers have found their sizes
			expectNoMallocs(t, load, 60_000)
		})
	}
	if s := g.Stats(); s.Peers[0].Refusals != [PeerRefusalCount]uint64{} || s.InternalErrors != 0 {
		t.Errorf("refusals: %v, internal errors: %d", s.Peers[0].Refusals, s.InternalErrors)
	}
}
