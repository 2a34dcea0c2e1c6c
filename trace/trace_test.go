package trace

import (
	"math"
	"strings"
	"sync"
	"testing"
)

const example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// Goal: what W3C Trace Context allows is read, and nothing else.
func TestParseParent(t *testing.T) {
	for value, want := range map[string]bool{
		example: true,
		strings.Replace(example, "00-", "cc-", 1):           true,
		strings.Replace(example, "00-", "cc-", 1) + "-what": true,
		example[:53] + "00":                                 true,
		example[:53] + "ff":                                 true,
		"":                                                  false,
		example[:54]:                                        false,
		example + "-":                                       false,
		example + "-01":                                     false,
		strings.Replace(example, "00-", "cc-", 1) + "what":        false,
		strings.Replace(example, "00-", "ff-", 1):                 false,
		strings.Replace(example, "00-", "0G-", 1):                 false,
		strings.ToUpper(example):                                  false,
		strings.ReplaceAll(example, "-", "_"):                     false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x": false,
	} {
		c, ok := ParseParent([]byte(value))
		if ok != want {
			t.Errorf("%q: %v", value, ok)
		}
		if ok && (c.Trace.String() != example[3:35] || c.Span.String() != example[36:52] || c.Sampled() != (value[54]&1 == 1 || value[54] == 'f')) {
			t.Errorf("%q is read as %+v", value, c)
		}
	}
}

// Goal: names count in any case; a traceparent that is there twice is none; lines of others are kept as they are.
func TestHeaders(t *testing.T) {
	for headers, want := range map[string]bool{
		"traceparent: " + example + "\r\n":                   true,
		"A: b\r\nTraceParent:" + example + " \t\r\nC: d\r\n": true,
		"TRACEPARENT: " + example + "\r\n":                   true,
		"X-traceparent: " + example + "\r\n":                 false,
		"traceparent : " + example + "\r\n":                  false,
		"traceparent: " + example + "\r\ntraceparent: x\r\n": false,
		"tracestate: a=b\r\n":                                false,
		"A: traceparent: " + example + "\r\n":                false,
	} {
		c, ok := ParseHeaders([]byte(headers))
		if ok != want || ok && string(AppendParent(nil, &c)) != example {
			t.Errorf("%q: %+v, %v", headers, c, ok)
		}
	}
	c, _ := ParseParent([]byte(example))
	headers := "A:  b\r\nTraceParent: x\r\nTraceState: a=b\r\nC:d\r\n"
	if got, want := string(AppendHeaders(nil, []byte(headers), &c, true)), "A:  b\r\nTraceState: a=b\r\nC:d\r\ntraceparent: "+example+"\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(AppendHeaders(nil, []byte(headers), &c, false)), "A:  b\r\nC:d\r\ntraceparent: "+example+"\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Goal: what is exported as the tracestate is all of it, in its order, however many lines it came in, and nothing if it is too long.
func TestState(t *testing.T) {
	full := strings.Repeat("x", StateBytesMax-len("a="))
	for headers, want := range map[string]string{
		"":                                   "",
		"A: b\r\nC:d\r\n":                    "",
		"A: b\r\nTraceState: a=b\r\nC:d\r\n": "a=b",
		"tracestate: a=1,b=2\r\nA: b\r\nTRACESTATE:c=3 \r\ntracestate:\r\nB: c\r\ntracestate: d=4\r\n": "a=1,b=2,c=3,d=4",
		"tracestate: a=" + full + "\r\n":                         "a=" + full,
		"tracestate: a=" + full + "\r\ntracestate: b\r\n":        "",
		"tracestate: ab=" + full + "\r\n":                        "",
		"tracestate: b=1\r\ntracestate: a=" + full[4:] + "\r\n":  "b=1,a=" + full[4:],
		"tracestate: b=1\r\ntracestate: a=" + full[3:] + "\r\n":  "",
		"tracestate: a=" + full[1:] + "\r\ntracestate: b\r\n":    "",
		"tracestate: a=" + full + "\r\ntracestate: \r\nA: b\r\n": "a=" + full,
	} {
		var s Span
		s.SetState([]byte("tracestate: of=another\r\n"))
		s.SetState([]byte(headers))
		if got := string(s.State()); got != want {
			t.Errorf("%q: got %q, want %q", headers, got, want)
		}
	}
}

// Goal: ids are none of the two that mean nothing and do not repeat; the choices keep to the share.
func TestIDs(t *testing.T) {
	a, b := NewIDs(), NewIDs()
	trace, span := a.NewTrace(), a.NewSpan()
	if trace == b.NewTrace() || trace == a.NewTrace() || span == a.NewSpan() {
		t.Error("ids repeat")
	}
	const n = 100_000
	for _, share := range []float64{0, 0.01, 0.5, 1} {
		picked, threshold := 0, NewThreshold(share)
		for range n {
			if a.Picks(threshold) {
				picked++
			}
		}
		// Ten standard deviations: once in 10^23 runs.
		if deviation := math.Abs(float64(picked) - share*n); deviation > 10*math.Sqrt(share*(1-share)*n) {
			t.Errorf("share %v: %d of %d are picked", share, picked, n)
		}
	}
}

// Goal: spans come out in order, as they went in, from another goroutine; a full queue takes none, and has not lost one.
func TestQueue(t *testing.T) {
	var sink Sink
	q := sink.NewQueue()
	var s Span
	for i := range queueSpans {
		s.Client = uint64(i)
		if !q.Push(&s) {
			t.Fatalf("full after %d", i)
		}
	}
	if q.Push(&s) {
		t.Error("it takes more than it has room for")
	}
	for i := range queueSpans {
		if !q.Pop(&s) || s.Client != uint64(i) {
			t.Fatalf("got %d, want %d", s.Client, i)
		}
	}
	const n = 50_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < n; {
			if q.Push(&Span{Client: uint64(i)}) {
				i++
			}
		}
	})
	for i := 0; i < n; {
		if q.Pop(&s) {
			if s.Client != uint64(i) {
				t.Fatalf("got %d, want %d", s.Client, i)
			}
			i++
		}
	}
	wg.Wait()
	if q.Pop(&s) || len(sink.Queues()) != 1 {
		t.Error("something is left, or there are more queues than were made")
	}
}

// Goal: a request that is passed on costs no allocation, and neither does one that is traced.
func TestAllocations(t *testing.T) {
	q, ids, s, headers := new(Sink).NewQueue(), NewIDs(), new(Span), []byte("A: b\r\nTraceParent: "+example+"\r\ntracestate: a=b\r\n")
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(1000, func() {
		s.Context, _ = ParseHeaders(headers)
		s.Span, s.Trace = ids.NewSpan(), ids.NewTrace()
		s.SetState(headers)
		s.SetSubject([]byte("app.echo"))
		dst = AppendHeaders(dst[:0], headers, &s.Context, ids.Picks(1))
		q.Push(s)
		q.Pop(s)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
