package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	l, err := Open(cfg, 1, time.Now(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

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
		Version: 2, Type: 9, TraceID: [16]byte{1, 2, 3}, Subject: fmt.Appendf(nil, "app.%d", n),
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

// closedLog is a log of three segments in which every other request was in flight.
func closedLog(t testing.TB) Config {
	cfg := testConfig(t)
	cfg.SegmentBytes = 4096
	l := open(t, cfg)
	record(l, 0, 60)
	closeLog(t, l)
	if n := len(segmentsOf(t, cfg.Path)); n != 3 {
		t.Fatalf("%d segments", n)
	}
	wantVerified(t, cfg.Path)
	return cfg
}

// change replaces the content of a file.
func change(t testing.TB, name string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, f(slices.Clone(b)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Goal: one flipped bit, wherever it is, shows. Method: every byte of the second segment of three has each of its bits flipped once
// in eight positions.
func TestFlippedBitShows(t *testing.T) {
	cfg := closedLog(t)
	name := segmentsOf(t, cfg.Path)[1]
	original, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range original {
		changed := slices.Clone(original)
		changed[i] ^= 1 << (i % 8)
		if err := os.WriteFile(name, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(problemsOf(t, cfg.Path)) == 0 {
			t.Fatalf("bit %d of byte %d was flipped, and it does not show", i%8, i)
		}
	}
}

// Goal: who changes a record and puts its checksum right is found out by the hash of the segment; who puts that right too, by the
// next segment; and who rewrites all segments, by a hash that was noted before.
func TestForgedRecordShows(t *testing.T) {
	cfg := closedLog(t)
	names := segmentsOf(t, cfg.Path)
	before, err := Verify(cfg.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(b []byte) []byte {
		in := newScanner(strings.NewReader(string(b)))
		for {
			framed, err := in.next()
			if err != nil {
				t.Fatal(err)
			}
			if framed[frameBytes] == kindAnswered {
				at := int(in.at) - len(framed)
				b[at+frameBytes+40]++ // the uid
				seal(b[at:int(in.at)])
				return b
			}
		}
	}
	change(t, names[0], forge)
	if problems := fmt.Sprint(problemsOf(t, cfg.Path)); !strings.Contains(problems, "another hash than its end says") {
		t.Errorf("problems: %s", problems)
	}
	rehash := func(b []byte) []byte {
		found := examine(strings.NewReader(string(b)), nil)
		e := found.end
		e.hash = found.sum()
		body := e.body()
		return appendRecord(b[:len(b)-frameBytes-endBytes], body[:])
	}
	change(t, names[0], rehash)
	problems := problemsOf(t, cfg.Path)
	if len(problems) != 1 || !strings.Contains(problems[0], "it continues segment 1 with hash") {
		t.Errorf("problems: %q", problems)
	}
	for _, name := range names[1:] {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	wantVerified(t, cfg.Path) // nothing is left that knows better
	for _, anchor := range before[:2] {
		reports, err := Verify(cfg.Path, map[uint64]string{anchor.Number: anchor.Hash})
		if err != nil || len(reports[0].Problems) != 1 {
			t.Errorf("the hash of segment %d was noted, and yet: %v, %v", anchor.Number, reports, err)
		}
	}
}

// Goal: segments that are missing, swapped, cut, or doubled show.
func TestChangedFilesShow(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(names []string) error
		want   string
	}{
		{"removed", func(names []string) error { return os.Remove(names[1]) }, "segment 2 is missing"},
		{"swapped", func(names []string) error {
			return errors.Join(os.Rename(names[0], names[0]+".x"), os.Rename(names[1], names[0]), os.Rename(names[0]+".x", names[1]))
		}, "it was segment 2: segments were renamed"},
		{"cut within a record", func(names []string) error { return os.Truncate(names[1], 3000) }, "ends within a record"},
		{"cut within the last record of the log", func(names []string) error { return cutBytes(names[2], 10) }, "ends within a record"},
		{"cut behind a record", func(names []string) error { return cutBytes(names[2], frameBytes+endBytes) }, "it is not closed"},
		{"the end of an older one cut off", func(names []string) error { return cutBytes(names[0], frameBytes+endBytes) }, "which it is not"},
		{"emptied", func(names []string) error { return os.Truncate(names[1], 0) }, "it is not closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := closedLog(t)
			if err := test.change(segmentsOf(t, cfg.Path)); err != nil {
				t.Fatal(err)
			}
			if problems := strings.Join(problemsOf(t, cfg.Path), "\n"); !strings.Contains(problems, test.want) {
				t.Errorf("problems: %s\nwant: %s", problems, test.want)
			}
		})
	}
}

func cutBytes(name string, bytes int64) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, info.Size()-bytes)
}

// Goal: wherever a kill cuts a segment, the log opens again with every record that is whole, goes on, and is verified. Method: a
// segment that is not closed is cut at every byte.
func TestOpensAtTheLastWholeRecord(t *testing.T) {
	cfg := testConfig(t)
	l := open(t, cfg)
	record(l, 0, 8)
	written(t, l)
	whole, err := os.ReadFile(segmentPath(cfg.Path, 1))
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	for size := range len(whole) + 1 {
		cfg.Path = filepath.Join(t.TempDir(), "audit")
		if err := os.WriteFile(segmentPath(cfg.Path, 1), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		before := examine(strings.NewReader(string(whole[:size])), nil)
		l := open(t, cfg)
		record(l, 100, 3)
		closeLog(t, l)
		wantVerified(t, cfg.Path)
		reports, err := Verify(cfg.Path, nil)
		if err != nil || len(reports) != 2 || !reports[0].Recovered || reports[0].found.records != before.records {
			t.Fatalf("cut at byte %d: %+v, %v", size, reports, err)
		}
		if got := readAll(t, cfg.Path); !slices.Equal(got.requests[len(got.requests)-3:], subjects(100, 3)) || len(got.problems) != 0 {
			t.Fatalf("cut at byte %d: %+v", size, got)
		}
	}
}

// Goal: what is no torn record is not thrown away when a log is opened again, but kept beside it.
func TestChangedBytesAreKept(t *testing.T) {
	cfg := testConfig(t)
	l := open(t, cfg)
	record(l, 0, 10)
	written(t, l)
	name := segmentPath(cfg.Path, 1)
	open1, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	open1[len(open1)/2] ^= 1
	if err := os.WriteFile(name, open1, 0o600); err != nil {
		t.Fatal(err)
	}
	closeLog(t, open(t, cfg))
	cut, err := os.ReadFile(name + ".cut")
	if err != nil || !strings.HasSuffix(string(open1), string(cut)) || len(cut) < len(open1)/2-200 {
		t.Errorf("%d bytes are kept, %v", len(cut), err)
	}
	wantVerified(t, cfg.Path)
}

// Goal: two processes that write the same log at the same time, as in a takeover, each have segments of their own; when the first
// has ended, a segment of the second one continues those of both.
func TestTwoWritersAtOnce(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 4096
	first := open(t, cfg)
	record(first, 0, 60)
	written(t, first)
	second := open(t, cfg)
	record(second, 1000, 60)
	record(first, 60, 60)
	written(t, first)
	written(t, second)
	wantVerified(t, cfg.Path)
	begun := second.Stats().Segments
	closeLog(t, first)
	eventually(t, "the second one continues the segments of the first", func() bool { return second.Stats().Segments > begun })
	record(second, 1060, 60)
	closeLog(t, second)
	wantVerified(t, cfg.Path)
	got := readAll(t, cfg.Path)
	slices.Sort(got.requests)
	want := append(subjects(0, 120), subjects(1000, 120)...)
	slices.Sort(want)
	if !slices.Equal(got.requests, want) || len(got.unknown) != 0 {
		t.Errorf("%d requests, %d without outcome; want %d", len(got.requests), len(got.unknown), len(want))
	}
	continued := map[uint64]int{}
	reports, err := Verify(cfg.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		for _, p := range r.found.head.parents {
			continued[p.number]++
		}
	}
	if len(continued) < len(reports)-1 {
		t.Errorf("of %d segments only %v are continued", len(reports), continued)
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

// smallDisk mounts a file system of a few hundred KiB, if this user may.
func smallDisk(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Goal: on a full disk each policy holds; when there is room again the log goes on where it stopped, with a gap that says how many
// requests are missing, and is verified.
func TestFullDisk(t *testing.T) {
	for _, policy := range []OnFull{Drop, Block, Fail} {
		t.Run(string(policy), func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Path, cfg.OnFull = filepath.Join(smallDisk(t), "audit"), policy
			l := open(t, cfg)
			r := l.Ring(0)
			recorded := 0
			for !l.failing.Load() || r.lost.Load() == 0 {
				record(l, recorded, 100)
				recorded += 100
			}
			if takes := r.Takes(10, 10); takes != (policy == Drop) {
				t.Errorf("a request may be served: %v", takes)
			}
			if r.Waits() != (policy == Block) || r.Roomy() {
				t.Error("clients would not wait, or not stop to")
			}
			if s := l.Stats(); s.WriteErrors == 0 || s.Lost == 0 || s.RingFull == 0 || s.Lag == 0 {
				t.Errorf("%+v", s)
			}
			if err := unix.Mount("", filepath.Dir(cfg.Path), "", unix.MS_REMOUNT, "size=64m"); err != nil {
				t.Fatal(err)
			}
			written(t, l)
			if !r.Takes(10, 10) || !r.Roomy() {
				t.Error("the log is written again, and yet full")
			}
			record(l, recorded, 10)
			closeLog(t, l)
			wantVerified(t, cfg.Path)
			got := readAll(t, cfg.Path)
			if int(got.lost)+len(got.requests) != recorded+10 || got.lost != l.Stats().Lost || l.Stats().Gaps == 0 {
				t.Errorf("%d requests and %d lost of %d; %+v", len(got.requests), got.lost, recorded+10, l.Stats())
			}
			if !slices.Equal(got.requests[len(got.requests)-10:], subjects(recorded, 10)) {
				t.Error("the last ones are not there")
			}
		})
	}
}

// Goal: a log that cannot be written at its end says so, and what is on the disk is whole.
func TestCloseOnAFullDisk(t *testing.T) {
	cfg := testConfig(t)
	cfg.Path = filepath.Join(smallDisk(t), "audit")
	l := open(t, cfg)
	for n := 0; !l.failing.Load(); n += 100 {
		record(l, n, 100)
	}
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "could not be written") {
		t.Errorf("got %v", err)
	}
	if got := readAll(t, cfg.Path); len(got.requests) == 0 || len(got.problems) > 1 {
		t.Errorf("%d requests, %q", len(got.requests), got.problems)
	}
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
	if _, err := Open(cfg, 1, time.Now(), slog.Default()); err == nil {
		t.Error("opened in a folder that is not there")
	}
	if _, err := Verify(cfg.Path, nil); err == nil {
		t.Error("verified what is not there")
	}
}
