package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// BenchmarkBreaker measures what the breakers add to a request that is answered: on a gateway without failures, on one where
// another subject has failed, and with as many subjects in use as there are no texts kept of.
func BenchmarkBreaker(b *testing.B) {
	for _, c := range []struct {
		name     string
		subjects int
		failing  bool
	}{{"healthy", 1, false}, {"another-fails", 1, true}, {"10000-subjects", 10_000, false}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			cfg := DefaultConfig()
			cfg.BreakerMinTimeout = time.Millisecond
			l := bareLoop(&cfg)
			subjects := make([][]byte, c.subjects)
			for i := range subjects {
				subjects[i] = fmt.Appendf(nil, "%s.%d", DefaultSubject, i)
			}
			if c.failing {
				h, r := l.slots.Acquire()
				l.watchOutcome(r, []byte("app.dead"), ModeRequest)
				l.judge(r, outcomeOf(codec.CodeTimeout))
				l.slots.Release(h)
			}
			f := codec.Frame{Version: codec.Version2, Type: codec.TypeRequest}
			_, r := l.slots.Acquire()
			next := 0
			for b.Loop() {
				f.Subject = subjects[next]
				if next++; next == len(subjects) {
					next = 0
				}
				if l.shutOut(&f) || l.breakerRefuses(nil, &f, labelRequest, f.Subject, ModeRequest) {
					b.Fatal("refused")
				}
				l.watchOutcome(r, f.Subject, ModeRequest)
				l.judge(r, outcomeOK)
			}
		})
	}
}
