package audit

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// Goal: whatever sizes records have and however the two sides meet, the log holds every request that the ring took, in order and
// with its outcome, and a gap for each that it did not take. Method: a loop as fast as it can, with requests in flight, a small ring,
// and the race detector in CI.
func TestRingUnderLoad(t *testing.T) {
	cfg := testConfig(t)
	cfg.PayloadBytes = 4000
	l := open(t, cfg)
	r := l.Ring(0)
	rng := rand.New(rand.NewPCG(1, 2))
	payload := []byte(strings.Repeat("x", 8000))
	var taken []string
	var inFlight []uint64
	lost := uint64(0)
	for n := range 30_000 {
		q := request(n)
		q.Payload = payload[:rng.IntN(len(payload))]
		subject := string(q.Subject)
		if r.Begin(&q) {
			taken = append(taken, subject)
			inFlight = append(inFlight, uint64(n))
		} else {
			lost++
		}
		for len(inFlight) > 100 || len(inFlight) > 0 && rng.IntN(3) == 0 {
			i := rng.IntN(len(inFlight))
			r.End(inFlight[i], Outcome{AnswerBytes: uint32(inFlight[i])})
			inFlight[i] = inFlight[len(inFlight)-1]
			inFlight = inFlight[:len(inFlight)-1]
		}
		if rng.IntN(32) == 0 {
			r.Flush()
		}
	}
	for _, id := range inFlight {
		r.End(id, Outcome{AnswerBytes: uint32(id)})
	}
	if r.reserved != 0 {
		t.Errorf("%d bytes are still reserved", r.reserved)
	}
	closeLog(t, l)
	var c contents
	v := c.visitor()
	v.InOrder = true
	wrong := 0
	tell := v.Request
	v.Request = func(q *Request, o *Outcome) error {
		if o == nil || uint64(o.AnswerBytes) != q.ID {
			wrong++
		}
		return tell(q, o)
	}
	if err := Read(t.Context(), cfg.Path, false, v); err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.requests, " ") != strings.Join(taken, " ") || wrong != 0 {
		t.Errorf("%d requests were taken, %d are in the log, %d with a wrong outcome", len(taken), len(c.requests), wrong)
	}
	if c.lost != lost || l.Stats().Lost != lost {
		t.Errorf("%d were lost, the gaps say %d, the counter %d", lost, c.lost, l.Stats().Lost)
	}
	t.Logf("%d taken, %d lost in %d gaps", len(taken), lost, l.Stats().Gaps)
	wantVerified(t, cfg.Path)
}

// Goal: the largest record that the settings allow fits.
func TestLargestRecord(t *testing.T) {
	cfg := testConfig(t)
	cfg.PayloadBytes, cfg.RingBytes = payloadBytesMax, 16<<20
	l := open(t, cfg)
	q := request(1)
	q.Subject, q.Payload = make([]byte, subjectBytesMax), make([]byte, payloadBytesMax+1)
	if !l.Ring(0).Begin(&q) {
		t.Fatal("not taken")
	}
	l.Ring(0).End(1, Outcome{})
	closeLog(t, l)
	wantVerified(t, cfg.Path)
	if got := readAll(t, cfg.Path); len(got.requests) != 1 || len(got.requests[0]) != subjectBytesMax || len(got.unknown) != 0 {
		t.Errorf("%d requests", len(got.requests))
	}
}

// Goal: a loop allocates nothing for its records.
func TestRecordingDoesNotAllocate(t *testing.T) {
	cfg := testConfig(t)
	cfg.PayloadBytes = 100
	l := open(t, cfg)
	r := l.Ring(0)
	n := uint64(0)
	perRun := testing.AllocsPerRun(20_000, func() {
		n++
		q := Request{ID: n, Subject: []byte("app.x"), Payload: []byte("hello")}
		if r.Begin(&q) {
			r.End(n, Outcome{})
		}
		r.Answered(&q, Outcome{})
		r.Flush()
	})
	if perRun != 0 {
		t.Errorf("%v allocations a request", perRun)
	}
	closeLog(t, l)
}

// BenchmarkRecord measures what a loop does for a request: its record when it comes, and that of its outcome.
func BenchmarkRecord(b *testing.B) {
	for _, payload := range []int{0, 1024} {
		b.Run(map[int]string{0: "headers only", 1024: "payload 1024"}[payload], func(b *testing.B) {
			cfg := testConfig(b)
			cfg.PayloadBytes, cfg.RingBytes, cfg.Keep = payload, 8<<20, 1
			l, err := Open(cfg, 1, now, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			r := l.Ring(0)
			q := request(1)
			q.Payload = make([]byte, 1024)
			b.ReportAllocs()
			for n := uint64(0); b.Loop(); n++ {
				copied := q
				copied.ID = n
				if r.Begin(&copied) {
					r.End(n, Outcome{})
				}
				if n%32 == 0 {
					r.Flush()
				}
				if n%4096 == 0 { // the disk is not what is measured
					b.StopTimer()
					written(b, l)
					b.StartTimer()
				}
			}
			s := l.Stats()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(s.Lost)/float64(b.N), "lost/op")
			_ = os.RemoveAll(cfg.Path)
		})
	}
}
