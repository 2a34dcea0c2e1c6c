package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

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

// Goal: one flipped bit, wherever it is, shows, in a compressed segment as well. Method: every byte of the second segment of three has each
// of its bits flipped once in eight positions.
func TestFlippedBitShows(t *testing.T) {
	for _, compressed := range []bool{false, true} {
		t.Run(fmt.Sprintf("compressed=%v", compressed), func(t *testing.T) {
			cfg := closedLog(t)
			if compressed {
				if err := compress(&segmentFile{number: 2, path: segmentPath(cfg.Path, 2)}); err != nil {
					t.Fatal(err)
				}
			}
			flipEachByte(t, cfg.Path, segmentsOf(t, cfg.Path)[1])
		})
	}
}

// contentOf is what a segment says, compressed or not; nil if it has no whole content.
func contentOf(t *testing.T, name string) []byte {
	t.Helper()
	plain, compressed := strings.CutSuffix(name, compressedName)
	in, err := (&segmentFile{path: plain, compressed: compressed}).open()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	content, err := io.ReadAll(in)
	if err != nil {
		return nil
	}
	return content
}

func flipEachByte(t *testing.T, path, name string) {
	original, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content := contentOf(t, name)
	for i := range original {
		changed := slices.Clone(original)
		changed[i] ^= 1 << (i % 8)
		if err := os.WriteFile(name, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		// In a compressed one there are bits that mean nothing.
		if len(problemsOf(t, path)) == 0 && !bytes.Equal(contentOf(t, name), content) {
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
	for _, name := range append(names[1:], names[2]+markName) {
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
		{"cut within the last record of the log", func(names []string) error { return cutBytes(names[2], 10) }, "its end was cut off"},
		{"cut behind a record", func(names []string) error { return cutBytes(names[2], frameBytes+endBytes) }, "its end was cut off"},
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
