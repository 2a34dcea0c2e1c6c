package audit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// follower is a reader that follows, whose rounds the test makes.
type follower struct {
	reader
	contents
}

func follow(t *testing.T, path string) *follower {
	f := &follower{}
	f.reader = reader{path: path, visitor: f.contents.visitor(), flights: map[flightKey]*flight{}, known: map[uint64]bool{}}
	t.Cleanup(f.close)
	return f
}

func (f *follower) look(t *testing.T) {
	t.Helper()
	if err := f.findSegments(); err != nil {
		t.Fatal(err)
	}
	if err := f.round(); err != nil {
		t.Fatal(err)
	}
}

// Goal: who follows a log whose gateway is killed in a write, wherever that is, learns that the gateway's requests in flight have no
// outcome, sees no fault, and goes on with the next gateway. Method: the first segment, or one behind it, is cut at each byte of its head
// and of its last record and followed; then the next process opens the log. Who reads all of it afterwards sees the same.
func TestFollowOverAKill(t *testing.T) {
	for _, before := range []int{0, 1} {
		cfg := testConfig(t)
		cfg.SegmentBytes = 4096
		l := open(t, cfg)
		inFlight := request(1000)
		if !l.Ring(0).Begin(&inFlight) {
			t.Fatal("not recorded")
		}
		record(l, 0, 4+30*before)
		inFlight = request(1002)
		if !l.Ring(0).Begin(&inFlight) {
			t.Fatal("not recorded")
		}
		l.Ring(0).Flush()
		written(t, l)
		names, files := segmentsOf(t, cfg.Path), map[string][]byte{}
		if len(names) != before+1 {
			t.Fatalf("segments %q", names)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(name)] = content
		}
		closeLog(t, l)
		last := filepath.Base(names[before])
		whole := files[last]
		head := len(magic) + frameBytes + headBytes + before*parentBytes
		for size := range len(whole) + 1 {
			if size > head && size < len(whole)-frameBytes-requestBytes-len("app.1002") {
				continue
			}
			cfg.Path = filepath.Join(memoryDir(t), "audit")
			files[last] = whole[:size]
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Path), name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := follow(t, cfg.Path)
			f.look(t)
			f.look(t)
			next := open(t, cfg)
			f.look(t)
			unknown := slices.Clone(f.unknown)
			record(next, 100, 3)
			closeLog(t, next)
			f.look(t)
			all := readAll(t, cfg.Path)
			slices.Sort(f.requests)
			slices.Sort(all.requests)
			if len(f.problems) > 0 || !slices.Equal(f.requests, all.requests) || !slices.Equal(unknown, all.unknown) || !slices.Equal(f.unknown, all.unknown) {
				t.Fatalf("%d before, cut at byte %d of %d: who follows sees %+v,\nwho reads it afterwards %+v", before, size, len(whole), f.contents, all)
			}
			if before > 0 && !slices.Contains(unknown, "app.1000") {
				t.Fatalf("cut at byte %d of %d: without an outcome are %q", size, len(whole), unknown)
			}
		}
	}
}

// Goal: a record that is cut off while it is read, so that the beginning of one and the end of another seem to be one that was changed, is
// no fault. Method: what was read of the torn record goes on in a file that has been closed in the meantime, within one look.
func TestFollowWhileATornRecordIsReplaced(t *testing.T) {
	cfg := testConfig(t)
	l := open(t, cfg)
	record(l, 0, 4) // the last one is an outcome, which is shorter than an end
	written(t, l)
	name := segmentPath(cfg.Path, 1)
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	cfg.Path = filepath.Join(t.TempDir(), "audit")
	torn := segmentPath(cfg.Path, 1)
	if err := os.WriteFile(torn, content[:len(content)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	f := follow(t, cfg.Path)
	if err := f.findSegments(); err != nil {
		t.Fatal(err)
	}
	tail := f.tails[0]
	for err == nil {
		_, err = tail.in.next() // it keeps what it has of the torn record
	}
	tail.begun = true
	closeLog(t, open(t, cfg))
	if err := f.round(); err != nil || len(f.problems) > 0 || len(f.tails) > 0 {
		t.Errorf("%v, %q, %d segments are still read", err, f.problems, len(f.tails))
	}
}

// Goal: the requests of a process that goes on are not given up when it closes a segment that another one was killed over before it wrote
// the head.
func TestHeadlessSegmentEndsNoRunThatGoesOn(t *testing.T) {
	cfg := testConfig(t)
	cfg.SegmentBytes = 4096
	l := open(t, cfg)
	inFlight := request(1000)
	if !l.Ring(0).Begin(&inFlight) {
		t.Fatal("not recorded")
	}
	if err := os.WriteFile(segmentPath(cfg.Path, 2), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := follow(t, cfg.Path)
	record(l, 0, 30)
	written(t, l)
	f.look(t)
	headless := segmentFile{number: 2, path: segmentPath(cfg.Path, 2)}
	eventually(t, "the other one's segment is closed", func() bool {
		_, closed, err := headless.end()
		return err == nil && closed
	})
	f.look(t)
	l.Ring(0).End(1000, Outcome{})
	closeLog(t, l)
	f.look(t)
	if len(f.unknown) > 0 || len(f.requests) != 31 || len(f.problems) > 0 {
		t.Errorf("%+v", f.contents)
	}
	wantVerified(t, cfg.Path)
}
