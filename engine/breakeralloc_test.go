//go:build !race

package engine

import (
	"testing"
	"time"
)

// Goal: failures that are counted, and refusals by a breaker, allocate nothing. Method: as TestRequestsDoNotAllocate, with
// requests that nobody answers: below a threshold that is never reached, and behind a breaker that is open.
func TestBreakersDoNotAllocate(t *testing.T) {
	url := startProcess(t, "alloc-nats", "STORE="+t.TempDir()).line
	for _, test := range []struct {
		name      string
		threshold int
		requests  int
	}{{"counted failures", 1 << 20, 60_000}, {"refusals", 1, 120_000}} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testConfig(t, url)
			cfg.Logger = nil
			cfg.BreakerThreshold, cfg.BreakerOpenTime, cfg.BreakerMinTimeout = test.threshold, time.Hour, time.Millisecond
			g := runGateway(t, cfg)
			waitReady(t, g)
			load := startProcess(t, "alloc-load", "SOCKET="+cfg.SocketPath, "KIND=unanswered")
			runLoad(t, load, 20_000)
			expectNoMallocs(t, load, test.requests)
			refused := g.Stats().BreakerRefused
			info, found := breakerOf(t, g, "app.never")
			if refusing := test.threshold == 1; !found || refusing != (refused > uint64(test.requests)) || refusing != (info.State == BreakerOpen) {
				t.Errorf("%d refused, breaker %+v: the test does not test what it says", refused, info)
			}
		})
	}
}
