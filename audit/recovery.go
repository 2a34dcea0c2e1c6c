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
// segment had one before. One whose process was killed before it wrote the head gets fresh, and continues the one before it; the run in
// fresh is ours. It returns nil if there was nothing to do, or another process does it. After an error it may be called again, and
// finds out the same.
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
	again := &segment{file: f, number: s.number, run: found.head.run, hash: found.hash, records: found.records, written: found.whole}
	if found.whole == 0 {
		fresh.number = s.number
		if fresh.parents, fresh.run, err = closedBefore(s, fresh.run); err != nil {
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

// closedBefore returns the last closed segment before s as a parent, if there is one, and its run, if that is neither ours nor that
// of another process which writes a segment: then the process that made s most likely was in this run, and who reads the end of
// s is told that the run is over.
func closedBefore(s *segmentFile, ours [runBytes]byte) (parents []parent, run [runBytes]byte, err error) {
	segments, err := listSegments(strings.TrimSuffix(s.path, filepath.Ext(s.path)))
	if err != nil {
		return nil, run, err
	}
	alive := map[[runBytes]byte]bool{ours: true}
	for _, other := range segments {
		if other.number != s.number && !other.compressed && isLocked(other.path) {
			if h, err := headOf(&other); err == nil {
				alive[h.run] = true
			}
		}
	}
	for _, before := range slices.Backward(segments) {
		if before.number >= s.number {
			continue
		}
		if e, closed, err := before.end(); err == nil && closed {
			if !alive[e.run] {
				run = e.run
			}
			return []parent{{before.number, e.hash}}, run, nil
		}
	}
	return nil, run, nil
}

// isCorrupt reports whether what is behind the last whole record is something else than the beginning of a record that was being
// written.
func isCorrupt(f io.ReaderAt, found *summary, size int64) (bool, error) {
	if !errors.Is(found.problem, ErrTorn) {
		return found.problem != nil, nil
	}
	at, isHead := found.whole, found.whole == 0
	if isHead {
		at = min(size, int64(len(magic)))
	}
	torn := make([]byte, min(size-at, frameBytes+requestBytes))
	if _, err := f.ReadAt(torn, at); err != nil && err != io.EOF {
		return false, err
	}
	return !beginsRecord(torn, isHead), nil
}

// beginsRecord reports whether torn may be the beginning of a record that is longer: its length is one that its kind has, and
// goes with the other lengths in it, as far as they are there. So one whose length was changed is found. That records come
// behind it says nothing: a client may have sent a payload that looks like them.
func beginsRecord(torn []byte, isHead bool) bool {
	if len(torn) <= frameBytes {
		return true
	}
	be := binary.BigEndian
	length, body := uint64(be.Uint32(torn)), torn[frameBytes:]
	if isHead != (body[0] == kindHead) {
		return false
	}
	switch body[0] {
	case kindHead:
		return len(body) < 4 || length == headBytes+parentBytes*uint64(be.Uint16(body[2:]))
	case kindRequest, kindAnswered:
		if len(body) < requestBytes {
			return length >= requestBytes
		}
		headers := uint64(be.Uint32(body[80:]))
		least := requestBytes + uint64(be.Uint16(body[6:])) + headers
		return headers <= uint64(be.Uint32(body[56:])) && length >= least && length-least <= uint64(be.Uint32(body[60:]))
	case kindOutcome:
		return length == outcomeBytes
	case kindGap:
		return length == gapBytes
	case kindEnd:
		return length == endBytes
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
