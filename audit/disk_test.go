package audit

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

// Goal: a process that finds the disk full when it begins, as after a kill on a full disk, starts all the same, and does to requests what the
// policy says; when there is room it closes what the other one left, and goes on. Method: the segment that was left ends within
// a record, and takes all the room there is.
func TestOpenOnAFullDisk(t *testing.T) {
	for _, policy := range []OnFull{Drop, Block, Fail} {
		t.Run(string(policy), func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Path, cfg.OnFull = filepath.Join(smallDisk(t), "audit"), policy
			left, recorded := leftOpenOnAFullDisk(t, cfg)
			l := open(t, cfg)
			r := l.Ring(0)
			if takes := r.Takes(10, 10); takes != (policy == Drop) || !l.failing.Load() || r.Roomy() {
				t.Errorf("a request may be served: %v; failing %v, roomy %v", takes, l.failing.Load(), r.Roomy())
			}
			if problems := problemsOf(t, cfg.Path); len(problems) == 0 {
				t.Errorf("%s was closed on a full disk", left)
			}
			record(l, recorded, 10) // into the ring
			if err := unix.Mount("", filepath.Dir(cfg.Path), "", unix.MS_REMOUNT, "size=64m"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the log is written", func() bool { return !l.failing.Load() })
			written(t, l)
			if !r.Takes(10, 10) || !r.Roomy() {
				t.Error("the log is written, and yet full")
			}
			closeLog(t, l)
			wantVerified(t, cfg.Path)
			if got := readAll(t, cfg.Path); !slices.Equal(got.requests[len(got.requests)-10:], subjects(recorded, 10)) || got.lost != 0 {
				t.Errorf("%d requests, %d lost", len(got.requests), got.lost)
			}
		})
	}
}

// leftOpenOnAFullDisk leaves what a kill on a full disk does: two closed segments, and one that ends within a record at the last byte there is
// room for.
func leftOpenOnAFullDisk(t *testing.T, cfg Config) (name string, recorded int) {
	t.Helper()
	cfg.SegmentBytes, cfg.OnFull = 64<<10, Drop
	l := open(t, cfg)
	for recorded = 0; !l.failing.Load(); recorded += 100 {
		record(l, recorded, 100)
	}
	_ = l.Close()
	names := segmentsOf(t, cfg.Path)
	name = names[len(names)-1]
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() == 0 { // it was full between two segments
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	filler, err := os.Create(filepath.Join(filepath.Dir(cfg.Path), "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	return name, recorded
}

// Goal: what is not to be kept is deleted before room is needed: a log with a bound on its size starts on a disk that it has filled itself.
func TestRetentionMakesRoomForTheStart(t *testing.T) {
	cfg := testConfig(t)
	cfg.Path, cfg.OnFull = filepath.Join(smallDisk(t), "audit"), Fail
	leftOpenOnAFullDisk(t, cfg)
	cfg.Keep = 2
	l := open(t, cfg)
	if !l.Ring(0).Takes(10, 10) {
		t.Error("no request may be served, though there was room to be made")
	}
	closeLog(t, l)
	wantVerified(t, cfg.Path)
}

// Goal: a segment that was half compressed, or half marked, when its process was killed leaves nothing behind.
func TestWhatIsHalfDoneIsRemoved(t *testing.T) {
	cfg := testConfig(t)
	closeLog(t, open(t, cfg))
	for _, number := range []uint64{1, 7} {
		for _, ending := range []string{compressedName + partialName, markName + partialName} {
			if err := os.WriteFile(segmentPath(cfg.Path, number)+ending, []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantVerified(t, cfg.Path)
	closeLog(t, open(t, cfg))
	wantVerified(t, cfg.Path)
	if left, err := filepath.Glob(cfg.Path + "*" + partialName); err != nil || len(left) > 0 {
		t.Errorf("%q are left, %v", left, err)
	}
}

// Goal: what could not be forced to the disk is tried again, and complained about now and then only.
func TestFailedSyncIsTriedAgain(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "segment")
	if err != nil {
		t.Fatal(err)
	}
	s := &segment{file: file, dirty: true}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(); err == nil || !s.dirty {
		t.Errorf("forced a closed file to the disk: %v; still to be done: %v", err, s.dirty)
	}
	var said strings.Builder
	cfg := testConfig(t)
	cfg.Sync, cfg.SyncEvery = SyncInterval, time.Millisecond
	l := &Log{cfg: cfg, log: slog.New(slog.NewTextHandler(&said, nil)), segment: s}
	for range 10 {
		if err := l.upkeep(); err != nil {
			t.Fatal(err)
		}
		if l.syncDue.IsZero() || l.untilDue() > time.Hour/2 {
			t.Fatal("it is not tried again")
		}
		l.syncDue = time.Now().Add(-time.Nanosecond)
	}
	if l.stats.syncErrors.Load() != 9 || strings.Count(said.String(), "cannot be forced") != 1 {
		t.Errorf("%d failures: %s", l.stats.syncErrors.Load(), said.String())
	}
}
