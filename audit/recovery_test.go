package audit

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Goal: wherever a kill cuts a segment, the log opens again with every record that is whole, goes on, and is verified. Method: the
// last segment of a log, the first one or one that continues another, is cut at every byte.
func TestOpensAtTheLastWholeRecord(t *testing.T) {
	for _, before := range []int{0, 1} {
		cfg := testConfig(t)
		for range before {
			l := open(t, cfg)
			record(l, 50, 2)
			closeLog(t, l)
		}
		l := open(t, cfg)
		record(l, 0, 8)
		written(t, l)
		files := map[string][]byte{}
		for _, name := range segmentsOf(t, cfg.Path) {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(name)] = content
		}
		last := filepath.Base(segmentPath(cfg.Path, uint64(before+1)))
		whole := files[last]
		closeLog(t, l)
		for size := range len(whole) + 1 {
			cfg.Path = filepath.Join(memoryDir(t), "audit")
			files[last] = whole[:size]
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Path), name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cut := examine(strings.NewReader(string(whole[:size])), nil)
			l := open(t, cfg)
			record(l, 100, 3)
			closeLog(t, l)
			wantVerified(t, cfg.Path)
			reports, err := Verify(cfg.Path, nil)
			if err != nil || len(reports) != before+2 || !reports[before].Recovered || reports[before].found.records != cut.records {
				t.Fatalf("%d before, cut at byte %d: %+v, %v", before, size, reports, err)
			}
			if got := readAll(t, cfg.Path); !slices.Equal(got.requests[len(got.requests)-3:], subjects(100, 3)) || len(got.problems) != 0 {
				t.Fatalf("%d before, cut at byte %d: %+v", before, size, got)
			}
			if continued, segments := continuedSegments(t, cfg.Path); continued != segments-1 {
				t.Fatalf("%d before, cut at byte %d: of %d segments %d are continued", before, size, segments, continued)
			}
		}
	}
}

// Goal: what a client sends never passes for the log's own records, wherever a kill cuts its segment: neither for the end of that, when
// its payload is the last that was written, nor for records behind a torn one. Method: the last payload is an end with a right checksum,
// as its client can make it, and the segment is cut at every byte of its record.
func TestPayloadsAreNoRecords(t *testing.T) {
	forged := (&end{records: 2}).body()
	records := appendRecord(appendGap(appendGap(nil, 0, 1, 2), 0, 3, 4), forged[:])
	for _, payload := range [][]byte{appendRecord(nil, forged[:]), records} {
		cfg := testConfig(t)
		cfg.PayloadBytes = 1 << 10
		l := open(t, cfg)
		record(l, 0, 1)
		written(t, l)
		name := segmentPath(cfg.Path, 1)
		before, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		q := request(1)
		q.Headers, q.Payload = nil, payload
		l.Ring(0).Answered(&q, Outcome{})
		l.Ring(0).Flush()
		written(t, l)
		whole, err := os.ReadFile(name)
		if err != nil || !strings.HasSuffix(string(whole), string(payload)) {
			t.Fatalf("the payload is not the last of %d bytes, %v", len(whole), err)
		}
		closeLog(t, l)
		for size := int(before.Size()); size <= len(whole); size++ {
			cfg.Path = filepath.Join(memoryDir(t), "audit")
			if err := os.WriteFile(segmentPath(cfg.Path, 1), whole[:size], 0o600); err != nil {
				t.Fatal(err)
			}
			closeLog(t, open(t, cfg))
			wantVerified(t, cfg.Path)
			want := uint64(1)
			if size == len(whole) {
				want = 2
			}
			reports, err := Verify(cfg.Path, nil)
			if err != nil || len(reports) != 2 || !reports[0].Recovered || reports[0].Requests != want {
				t.Fatalf("cut at byte %d of %d: %+v, %v", size, len(whole), reports, err)
			}
		}
	}
}

// memoryDir is a folder in memory, where forcing to the disk takes no time.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "audit-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
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
	closeLog(t, open(t, cfg))
	problems := strings.Join(problemsOf(t, cfg.Path), "\n")
	if !strings.Contains(problems, "audit.00000001.cut has bytes") || !strings.Contains(problems, "the machine died") {
		t.Errorf("two starts later the problems are: %s", problems)
	}
	if err := os.Remove(name + cutName); err != nil {
		t.Fatal(err)
	}
	if problems := problemsOf(t, cfg.Path); len(problems) == 0 {
		t.Error("without what was cut off nothing says that it was")
	}
}

// Goal: a record whose length was changed, so that it seems to be longer than the segment, is no torn one.
func TestChangedLengthIsNoTornRecord(t *testing.T) {
	cfg := testConfig(t)
	l := open(t, cfg)
	record(l, 0, 10)
	written(t, l)
	name := segmentPath(cfg.Path, 1)
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if err := os.Remove(name + markName); err != nil { // as if it had been killed
		t.Fatal(err)
	}
	in, kinds := newScanner(bytes.NewReader(content)), map[byte]bool{}
	for at := len(magic); ; at = int(in.at) {
		framed, err := in.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[framed[frameBytes]] = true
		changed := slices.Clone(content)
		changed[at+1] |= 0x10 // a mebibyte more
		if err := os.WriteFile(name, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := recoverSegment(&segmentFile{number: 1, path: name}, head{}); err != nil {
			t.Fatal(err)
		}
		if problems := strings.Join(problemsOf(t, cfg.Path), "\n"); !strings.Contains(problems, "no torn record") {
			t.Errorf("record at byte %d: problems: %s", at, problems)
		}
		if err := os.Remove(name + cutName); err != nil {
			t.Fatal(err)
		}
	}
	if len(kinds) != 4 { // head, request, outcome, answered
		t.Errorf("kinds of records: %v", kinds)
	}
}

// Goal: who cuts the end off a log whose process ended well is found out, also when gateways have run since, whatever he cuts off, and
// also if he takes the newest segment away.
func TestCutEndShowsAfterRestarts(t *testing.T) {
	for _, test := range []struct {
		name string
		cut  func(name string) error
		want string
	}{
		{"the end", func(name string) error { return cutBytes(name, frameBytes+endBytes) }, "its end was cut off"},
		{"records", func(name string) error { return cutRecords(name, 5) }, "its end was cut off"},
		{"half a record", func(name string) error { return cutBytes(name, frameBytes+endBytes+30) }, "its end was cut off"},
		{"all but the head", func(name string) error { return os.Truncate(name, int64(len(magic)+frameBytes+headBytes)) }, "its end was cut off"},
		{"the segment", os.Remove, "segment 2"},
		{"records, and a new end made", func(name string) error {
			if err := cutRecords(name, 5); err != nil {
				return err
			}
			f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			found := examine(f, nil)
			forged := segment{file: f, run: found.head.run, hash: found.hash, records: found.records}
			forged.appendEnd(end{})
			_, err = f.Write(forged.out)
			return err
		}, "its process had closed it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testConfig(t)
			closeLog(t, open(t, cfg))
			l := open(t, cfg)
			record(l, 0, 10)
			closeLog(t, l)
			wantVerified(t, cfg.Path)
			names := segmentsOf(t, cfg.Path)
			if err := test.cut(names[len(names)-1]); err != nil {
				t.Fatal(err)
			}
			for starts := range 3 {
				if problems := strings.Join(problemsOf(t, cfg.Path), "\n"); !strings.Contains(problems, test.want) {
					t.Errorf("%d starts later the problems are: %s\nwant: %s", starts, problems, test.want)
				}
				l := open(t, cfg)
				record(l, 100, 3)
				closeLog(t, l)
			}
		})
	}
}

// cutRecords cuts so many records off a segment.
func cutRecords(name string, count int) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in, at := newScanner(f), []int64{}
	for _, err = in.next(); err == nil; _, err = in.next() {
		at = append(at, in.at)
	}
	return os.Truncate(name, at[len(at)-1-count])
}

// Goal: whenever a process is killed as it ends, there is a whole mark or none. Method: the kernel tells what happens in the folder: the
// mark's name is given to a file that nobody writes to any more.
func TestMarkIsWholeOrMissing(t *testing.T) {
	cfg := testConfig(t)
	l := open(t, cfg)
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(watch) })
	if _, err := unix.InotifyAddWatch(watch, filepath.Dir(cfg.Path), unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	events := make([]byte, 64<<10)
	n, err := unix.Read(watch, events)
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint32
	for events = events[:n]; len(events) > 0; {
		mask, size := binary.NativeEndian.Uint32(events[4:]), binary.NativeEndian.Uint32(events[12:])
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:][:size]), "\x00")
		if strings.HasSuffix(name, markName) {
			seen = append(seen, mask)
		}
		events = events[unix.SizeofInotifyEvent+size:]
	}
	if !slices.Equal(seen, []uint32{unix.IN_MOVED_TO}) {
		t.Errorf("what happened to the mark: %#x, want %#x", seen, unix.IN_MOVED_TO)
	}
	wantVerified(t, cfg.Path)
}

// Goal: a process that ends well leaves one mark, however many there were before.
func TestOneMarkIsLeft(t *testing.T) {
	cfg := testConfig(t)
	for range 3 {
		l := open(t, cfg)
		record(l, 0, 3)
		closeLog(t, l)
	}
	marks, err := numbersBeside(cfg.Path, markName)
	if err != nil || !slices.Equal(marks, []uint64{3}) {
		t.Errorf("marks of %v, %v", marks, err)
	}
}

// Goal: two processes that write the same log at the same time, as in a takeover, each have segments of their own; when the first
// has ended, segments of the second one continue those of both.
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
	closeLog(t, first)
	// The second one finds the last segments of the first as it begins its own, one after the other.
	next := 1060
	eventually(t, "segments of the second one continue all of the first", func() bool {
		record(second, next, 60)
		next += 60
		written(t, second)
		continued, segments := continuedSegments(t, cfg.Path)
		return continued >= segments-1
	})
	closeLog(t, second)
	wantVerified(t, cfg.Path)
	got := readAll(t, cfg.Path)
	slices.Sort(got.requests)
	want := append(subjects(0, 120), subjects(1000, next-1000)...)
	slices.Sort(want)
	if !slices.Equal(got.requests, want) || len(got.unknown) != 0 {
		t.Errorf("%d requests, %d without outcome; want %d", len(got.requests), len(got.unknown), len(want))
	}
	if continued, segments := continuedSegments(t, cfg.Path); continued < segments-1 {
		t.Errorf("of %d segments only %d are continued", segments, continued)
	}
}

// Goal: a process that began while another one had a segment open continues that as soon as the other one has ended, and not
// only when its own is full.
func TestContinuesSoonWhatAnotherHadOpen(t *testing.T) {
	cfg := testConfig(t)
	first := open(t, cfg)
	record(first, 0, 10)
	written(t, first)
	second := open(t, cfg)
	record(second, 1000, 10)
	written(t, second)
	begun := second.Stats().Segments
	closeLog(t, first)
	eventually(t, "the second one begins another segment", func() bool { return second.Stats().Segments > begun })
	closeLog(t, second)
	wantVerified(t, cfg.Path)
	if continued, segments := continuedSegments(t, cfg.Path); segments != 3 || continued != 2 {
		t.Errorf("of %d segments %d are continued, want 2 of 3", segments, continued)
	}
}

// continuedSegments returns how many segments another one continues, and how many there are.
func continuedSegments(t *testing.T, path string) (continued, segments int) {
	t.Helper()
	reports, err := Verify(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[uint64]bool{}
	for _, r := range reports {
		for _, p := range r.found.head.parents {
			numbers[p.number] = true
		}
	}
	return len(numbers), len(reports)
}
