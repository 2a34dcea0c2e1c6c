package audit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// testTimeout bounds every wait of the tests. It is never slept through.
const testTimeout = 20 * time.Second

// testConfig is a log in a folder of its own that is as fast as can be.
func testConfig(t testing.TB) Config {
	cfg := Default()
	cfg.Path = filepath.Join(t.TempDir(), "audit")
	cfg.RingBytes = ringBytesMin
	cfg.Sync = SyncNone
	return cfg
}

// open opens a log for one loop.
func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	l, err := Open(cfg, 1, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func now() int64 { return time.Now().UnixNano() }

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// request is the nth request of a test.
func request(n int) Request {
	return Request{
		Time: int64(n), ID: uint64(n), Client: 7, CorrelationID: uint64(n) << 40, UID: 1000, GID: 100, PID: 4711, TimeoutMs: 30_000,
		Version: 2, Type: 9, TraceID: [16]byte{1, 2, 3}, SpanID: [8]byte{4, 5}, Subject: fmt.Appendf(nil, "app.%d", n),
		Headers: []byte("A: b\r\n"), Payload: fmt.Appendf(nil, "payload %d", n),
	}
}

// record records requests from first on, every other one as a request that was in flight.
func record(l *Log, first, count int) {
	r := l.Ring(0)
	for n := first; n < first+count; n++ {
		q := request(n)
		o := Outcome{Code: byte(n % 14), AnswerBytes: uint32(n), Duration: int64(n) * 1000}
		if n%2 == 0 {
			r.Answered(&q, o)
		} else if r.Begin(&q) {
			r.End(uint64(n), o)
		}
		if n%100 == 0 {
			r.Flush()
		}
	}
	r.Flush()
}

// written waits until all that was recorded is.
func written(t testing.TB, l *Log) {
	t.Helper()
	eventually(t, "all is written", func() bool { return !l.anyWaiting() && l.behind.Load() == 0 })
}

// contents is what a log tells of a reader.
type contents struct {
	requests []string // subjects
	unknown  []string // those without an outcome
	lost     uint64
	problems []string
}

func (c *contents) visitor() *Visitor {
	return &Visitor{
		Request: func(q *Request, o *Outcome) error {
			c.requests = append(c.requests, string(q.Subject))
			if o == nil {
				c.unknown = append(c.unknown, string(q.Subject))
			}
			return nil
		},
		Gap:     func(g Gap) error { c.lost += g.Requests; return nil },
		Problem: func(segment string, err error) { c.problems = append(c.problems, segment+": "+err.Error()) },
	}
}

func readAll(t testing.TB, path string) (c contents) {
	t.Helper()
	if err := Read(context.Background(), path, false, c.visitor()); err != nil {
		t.Fatal(err)
	}
	return c
}

// subjects are those of the requests from first on.
func subjects(first, count int) (list []string) {
	for n := first; n < first+count; n++ {
		list = append(list, fmt.Sprintf("app.%d", n))
	}
	return list
}

// problemsOf returns what Verify has against the log.
func problemsOf(t testing.TB, path string) (problems []string) {
	t.Helper()
	reports, err := Verify(path, nil)
	if err != nil {
		return []string{err.Error()}
	}
	for _, r := range reports {
		for _, p := range r.Problems {
			problems = append(problems, filepath.Base(r.Name)+": "+p)
		}
	}
	return problems
}

func wantVerified(t testing.TB, path string) {
	t.Helper()
	if problems := problemsOf(t, path); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
}

func segmentsOf(t testing.TB, path string) (names []string) {
	t.Helper()
	segments, err := listSegments(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		names = append(names, s.name())
	}
	return names
}

// Goal: what was recorded is read again, each field, with its outcome, over several segments; and the chain is whole.
func TestWhatIsRecordedIsRead(t *testing.T) {
	cfg := testConfig(t)
	cfg.PayloadBytes = 12
	cfg.SegmentBytes = 8 << 10
	l := open(t, cfg)
	const count = 500
	record(l, 0, count)
	inFlight := request(count)
	if !l.Ring(0).Begin(&inFlight) {
		t.Fatal("not recorded")
	}
	closeLog(t, l)
	next := 0
	check := func(q *Request, o *Outcome) error {
		want := request(next)
		want.HeaderBytes, want.PayloadBytes, want.Flags = uint32(len(want.Headers)), uint32(len(want.Payload)), FlagRecorded
		want.Payload = want.Payload[:min(12-len(want.Headers), len(want.Payload))]
		if fmt.Sprintf("%+v", *q) != fmt.Sprintf("%+v", want) {
			return fmt.Errorf("got %+v, want %+v", *q, want)
		}
		wantOutcome := Outcome{Code: byte(next % 14), AnswerBytes: uint32(next), Duration: int64(next) * 1000}
		if next == count {
			if o != nil {
				return fmt.Errorf("request in flight: %+v", *o)
			}
		} else if o == nil || *o != wantOutcome {
			return fmt.Errorf("request %d: got %+v, want %+v", next, o, wantOutcome)
		}
		next++
		return nil
	}
	for _, inOrder := range []bool{false, true} {
		next = 0
		err := Read(t.Context(), cfg.Path, false, &Visitor{
			Request: check, Gap: func(g Gap) error { return fmt.Errorf("gap %+v", g) }, InOrder: inOrder,
			Problem: func(segment string, err error) { t.Errorf("%s: %v", segment, err) },
		})
		if err != nil || next != count+1 {
			t.Errorf("%d requests, %v", next, err)
		}
	}
	wantVerified(t, cfg.Path)
	if n := len(segmentsOf(t, cfg.Path)); n < 5 {
		t.Errorf("%d segments", n)
	}
	if s := l.Stats(); s.Lost != 0 || s.Segments < 5 || s.Lag != 0 || s.Records != count+count/2+1 {
		t.Errorf("%+v", s)
	}
}

// Goal: a segment becomes old, and a new one is begun.
func TestRotationByAge(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentAge = 20 * time.Millisecond
	l := open(t, cfg)
	for n := range 3 {
		record(l, n, 1)
		eventually(t, "the segment is old", func() bool { return l.Stats().Segments == uint64(n+2) })
	}
	closeLog(t, l)
	wantVerified(t, cfg.Path)
	if got := readAll(t, cfg.Path); len(got.requests) != 3 {
		t.Errorf("%+v", got)
	}
}

// Goal: closed segments are compressed, can be read and verified as before, and are deleted when there are more than are kept;
// what is left is still verified.
func TestCompressionAndRetention(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.Compress = 4096, true
	l := open(t, cfg)
	record(l, 0, 400)
	compressed := func() (n int) {
		for _, name := range segmentsOf(t, cfg.Path) {
			if strings.HasSuffix(name, compressedName) {
				n++
			}
		}
		return n
	}
	eventually(t, "the closed segments are compressed", func() bool { return compressed() >= 8 && compressed() == len(segmentsOf(t, cfg.Path))-1 })
	wantVerified(t, cfg.Path)
	closeLog(t, l)
	if got := readAll(t, cfg.Path); len(got.requests) != 400 || len(got.problems) != 0 {
		t.Errorf("%d requests, problems %v", len(got.requests), got.problems)
	}
	change(t, segmentPath(cfg.Path, 3)+compressedName, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	if problems := problemsOf(t, cfg.Path); len(problems) == 0 {
		t.Error("a flipped bit in a compressed segment does not show")
	}
	cfg.Keep = 4
	l = open(t, cfg)
	eventually(t, "old segments are deleted", func() bool { return len(segmentsOf(t, cfg.Path)) == 5 })
	closeLog(t, l)
	wantVerified(t, cfg.Path)
	cfg.Keep, cfg.KeepAge = 0, time.Nanosecond
	l = open(t, cfg)
	eventually(t, "all closed segments are deleted", func() bool { return len(segmentsOf(t, cfg.Path)) == 1 })
	closeLog(t, l)
	wantVerified(t, cfg.Path)
}

// Goal: a log that was stopped for longer than its segments are kept does not begin anew: the next segment has another number, and
// continues the last one.
func TestLongStopDoesNotBreakTheChain(t *testing.T) {
	cfg := testConfig(t)
	cfg.KeepAge = time.Nanosecond
	var last SegmentReport
	for starts := range uint64(3) {
		l := open(t, cfg)
		record(l, 0, 3)
		closeLog(t, l)
		reports, err := Verify(cfg.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, want := reports[len(reports)-1], []parent(nil)
		if starts > 0 {
			want = []parent{{last.Number, last.found.sum()}}
		}
		if r.Number != starts+1 || !slices.Equal(r.found.head.parents, want) {
			t.Fatalf("behind segment %d comes %d, which continues %v", last.Number, r.Number, r.found.head.parents)
		}
		last = r
	}
	wantVerified(t, cfg.Path)
}

// Goal: a segment whose process was killed before it wrote the head does not have those deleted that it is to continue.
func TestSegmentWithoutAHeadKeepsTheOneBefore(t *testing.T) {
	cfg := testConfig(t)
	for range 2 {
		closeLog(t, open(t, cfg))
	}
	if err := os.WriteFile(segmentPath(cfg.Path, 3), []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Keep, cfg.KeepAge = 1, time.Nanosecond
	if err := (&Log{cfg: cfg}).makeRoom(); err != nil {
		t.Fatal(err)
	}
	if left := segmentsOf(t, cfg.Path); !slices.Equal(left, []string{segmentPath(cfg.Path, 2), segmentPath(cfg.Path, 3)}) {
		t.Fatalf("%q are left", left)
	}
	cfg.Keep, cfg.KeepAge = 0, 0
	closeLog(t, open(t, cfg))
	wantVerified(t, cfg.Path)
	if continued, segments := continuedSegments(t, cfg.Path); continued != 3 || segments != 3 { // 1, which is deleted, is one of them
		t.Errorf("%d segments are continued, %d are there", continued, segments)
	}
}

// Goal: a reader that follows sees every request once, over rotations and compression, until it is told to stop.
func TestFollowOverRotations(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.Compress = 4096, true
	l := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 1000)
	done := make(chan error, 1)
	var c contents
	v := c.visitor()
	v.Request = func(q *Request, _ *Outcome) error { seen <- string(q.Subject); return nil }
	go func() { done <- Read(ctx, cfg.Path, true, v) }()
	for n := 0; n < 300; n += 50 {
		record(l, n, 50)
		for _, want := range subjects(n, 50) {
			select {
			case got := <-seen:
				if got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
			case <-time.After(testTimeout):
				t.Fatalf("%s does not come", want)
			}
		}
	}
	cancel()
	if err := <-done; err != nil || len(c.problems) > 0 {
		t.Errorf("%v, %q", err, c.problems)
	}
	closeLog(t, l)
}

// Goal: a configuration that makes no sense is refused with all that is wrong, and a log in no folder does not open.
func TestWrongConfigurations(t *testing.T) {
	cfg := Config{Path: "/", PayloadBytes: -1, OnFull: "panic", Sync: "maybe", Keep: -1, KeepAge: -1, SegmentAge: 1}
	text := cfg.Validate().Error()
	for _, want := range []string{"audit is", "audit on full", "audit sync is", "audit payload", "audit ring", "audit max size", "audit max age",
		"audit keep is", "audit keep age", "audit sync interval"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in: %s", want, text)
		}
	}
	cfg = Default()
	cfg.Path = filepath.Join(t.TempDir(), "missing", "audit")
	if _, err := Open(cfg, 1, now, slog.Default()); err == nil {
		t.Error("opened in a folder that is not there")
	}
	if _, err := Verify(cfg.Path, nil); err == nil {
		t.Error("verified what is not there")
	}
}
