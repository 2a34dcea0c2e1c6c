package audit

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cutName ends the name of the file that has what was cut off a segment.
const cutName = ".cut"

// recoverSegment closes a segment that nobody writes any more: what is behind its last whole record is cut off. Bytes that
// are no torn record, as a kill leaves it, are kept in a file of their own; that they were there is said in the end, as it is if the
// segment had one before. One whose process was killed before it wrote the head gets fresh, and continues the one before it. It
// returns nil if there was nothing to do, or another process does it. After an error it may be called again, and finds out the same.
func recoverSegment(s *segmentFile, fresh head) (*end, error) {
	f, err := os.OpenFile(s.path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !lock(f) {
		return nil, nil
	}
	if _, closed := endOf(f); closed {
		return nil, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	found := examine(io.NewSectionReader(f, 0, 1<<62), nil)
	if found.problem != nil && !errors.Is(found.problem, ErrTorn) && !errors.Is(found.problem, ErrCorrupt) && !errors.Is(found.problem, errRecord) {
		return nil, found.problem
	}
	e := end{closing: closedLater, cut: uint32(min(info.Size()-found.whole, 1<<32-1)), time: fresh.time}
	if _, had, err := readMark(s.path); err != nil {
		return nil, err
	} else if had {
		e.closing |= closedTwice
	}
	corrupt, err := isCorrupt(f, &found, info.Size())
	if err != nil {
		return nil, err
	}
	if corrupt {
		if err := keepCut(f, s.path+cutName, found.whole, info.Size()-found.whole); err != nil {
			return nil, err
		}
	}
	// An earlier try may have cut it off, and found no room for the end.
	if kept, err := os.Stat(s.path + cutName); err == nil {
		e.closing |= closedCorrupt
		e.cut = max(e.cut, uint32(min(kept.Size(), 1<<32-1)))
	}
	if err := f.Truncate(found.whole); err != nil {
		return nil, err
	}
	again := &segment{file: f, number: s.number, hash: found.hash, records: found.records, written: found.whole}
	if found.whole == 0 {
		fresh.number = s.number
		if fresh.parents, err = closedBefore(s); err != nil {
			return nil, err
		}
		again = newSegment(f, &fresh)
	}
	again.appendEnd(e)
	if err := again.write(); err != nil {
		return nil, err
	}
	return &again.end, again.sync()
}

// closedBefore returns the last closed segment before s as a parent, if there is one.
func closedBefore(s *segmentFile) ([]parent, error) {
	segments, err := listSegments(strings.TrimSuffix(s.path, filepath.Ext(s.path)))
	if err != nil {
		return nil, err
	}
	for _, before := range slices.Backward(segments) {
		if before.number >= s.number {
			continue
		}
		if e, closed, err := before.end(); err == nil && closed {
			return []parent{{before.number, e.hash}}, nil
		}
	}
	return nil, nil
}

// isCorrupt reports whether what is behind the last whole record is something else than the beginning of a record that was being
// written.
func isCorrupt(f io.ReaderAt, found *summary, size int64) (bool, error) {
	if !errors.Is(found.problem, ErrTorn) {
		return found.problem != nil, nil
	}
	// A record whose length was changed looks torn, if that is more than there is. But nothing comes behind a torn one.
	torn := make([]byte, size-found.whole)
	if _, err := f.ReadAt(torn, found.whole); err != nil && err != io.EOF {
		return false, err
	}
	return containsRecord(torn[1:]), nil
}

// checksummedMax bounds the work of containsRecord on bytes that were made to look like records.
const checksummedMax = 64 << 20

// containsRecord reports whether there is a whole record anywhere in b.
func containsRecord(b []byte) bool {
	checksummed := 0
	for ; len(b) >= frameBytes+outcomeBytes; b = b[1:] {
		length, kind := uint64(binary.BigEndian.Uint32(b)), b[frameBytes]
		if length < outcomeBytes || length > uint64(len(b)-frameBytes) || kind < kindHead || kind > kindEnd {
			continue
		}
		framed := b[:frameBytes+length]
		checksummed += len(framed)
		if checksum(framed) == binary.BigEndian.Uint32(framed[4:]) || checksummed > checksummedMax {
			return true
		}
	}
	return false
}

// keepCut copies what is about to be cut off into a file of its own.
func keepCut(f *os.File, name string, at, bytes int64) error {
	kept, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, filePermission)
	if err != nil {
		return err
	}
	_, err = io.Copy(kept, io.NewSectionReader(f, at, bytes))
	return errors.Join(err, kept.Sync(), kept.Close())
}
