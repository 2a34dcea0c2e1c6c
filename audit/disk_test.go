package audit

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
