package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// SegmentReport is what [Verify] finds out about a segment.
type SegmentReport struct {
	Name      string
	Number    uint64
	Requests  uint64 // recorded
	Lost      uint64 // not recorded, by the gaps
	Bytes     int64  // up to the end of the last whole record, not compressed
	Created   time.Time
	Closed    time.Time // zero: it is not closed
	Live      bool      // a process writes it
	Recovered bool      // its process was killed, and a later one closed it
	Cut       uint32    // bytes that this one cut off: a torn record, unless there is a problem
	Hash      string    // of a closed segment, in hex
	Problems  []string

	number uint64 // as the file's name has it
	found  summary
}

// Verify looks through the log at path. anchors are hashes in hex, by the number of a segment, as an earlier call returned them:
// what was rewritten with all its hashes since then differs from them. A problem means that the log was changed, or cut, or that
// the process that wrote it was killed and no other one has opened the log since. Only the last goes away when one does.
func Verify(path string, anchors map[uint64]string) ([]SegmentReport, error) {
	// Marks before segments: those that are there are of segments that are closed by then.
	marked, err := numbersBeside(path, markName)
	if err != nil {
		return nil, err
	}
	segments, err := segmentsAt(path)
	if err != nil {
		return nil, err
	}
	reports := make([]SegmentReport, len(segments))
	for i := range segments {
		reports[i].examine(&segments[i])
	}
	checkChain(reports)
	for i := range reports {
		r := &reports[i]
		if want, known := anchors[r.number]; known {
			delete(anchors, r.number)
			if r.Hash != want {
				r.problem("its hash is not %s", want)
			}
		}
	}
	last := &reports[len(reports)-1]
	for _, number := range marked {
		// One before all that are left is being deleted.
		if number > reports[0].number && !slices.ContainsFunc(segments, func(s segmentFile) bool { return s.number == number }) {
			last.problem("segment %d, whose end was marked, is not there", number)
		}
	}
	for number := range anchors {
		last.problem("segment %d, whose hash is to be checked, is not there", number)
	}
	return reports, nil
}

func (r *SegmentReport) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *SegmentReport) examine(s *segmentFile) {
	r.Name, r.number = s.name(), s.number
	marked, isMarked, err := readMark(s.path)
	if err != nil {
		r.problem("its mark: %v", err)
	}
	r.Live = !s.compressed && isLocked(s.path)
	in, err := s.open()
	if err != nil {
		r.problem("%v", err)
		return
	}
	defer in.Close()
	r.Name = s.name()
	r.found = examine(in, r.count)
	found := &r.found
	r.Number, r.Bytes, r.Created = found.head.number, found.whole, time.Unix(0, found.head.time)
	switch {
	case found.problem == nil && found.closed:
		r.close()
	case isMarked && !errors.Is(found.problem, ErrCorrupt):
		r.problem("its process had closed it, with %d bytes and the hash %s: its end was cut off", marked.bytes, marked.String())
	case found.problem == nil && !r.Live:
		r.problem("it is not closed, and nobody writes it: it was cut, or its gateway was killed; the next one closes it")
	case errors.Is(found.problem, ErrTorn) && !r.Live:
		r.problem("it ends within a record at byte %d, and nobody writes it: it was cut, or its gateway was killed; the next one closes it", found.whole)
	case found.problem != nil && !errors.Is(found.problem, ErrTorn):
		r.problem("byte %d: %v", found.whole, found.problem)
	}
	if r.Hash != "" && isMarked && marked.hash != found.sum() {
		r.problem("its process had closed it with the hash %s", marked.String())
	}
	if _, err := os.Stat(s.path + cutName); err == nil {
		r.problem("%s has bytes that were cut off it, and are no torn record", s.path+cutName)
	}
	if found.whole > 0 && r.Number != s.number {
		r.problem("it was segment %d: segments were renamed", r.Number)
	}
}

// close checks the end of a segment that has one.
func (r *SegmentReport) close() {
	e := &r.found.end
	sum := r.found.sum()
	r.Closed, r.Recovered, r.Cut, r.Hash = time.Unix(0, e.time), e.closing != 0, e.cut, hex.EncodeToString(sum[:])
	if e.closing&closedCorrupt != 0 {
		r.problem("bytes behind its last record were changed, or the machine died as they were written: a later process cut off %d bytes that are no torn record", e.cut)
	}
	if e.closing&closedTwice != 0 {
		r.problem("its process had closed it, and its end was cut off since: a later process closed it again")
	}
	if sum != e.hash {
		r.problem("its content has another hash than its end says")
	}
	if e.records != r.found.records {
		r.problem("it has %d records, its end says %d", r.found.records, e.records)
	}
}

// count is told of every record.
func (r *SegmentReport) count(body []byte) (err error) {
	switch body[0] {
	case kindRequest, kindAnswered:
		r.Requests++
		_, _, err = decodeRequest(body)
	case kindOutcome:
		_, _, _, err = decodeOutcome(body)
	case kindGap:
		var g Gap
		g, err = decodeGap(body)
		r.Lost += g.Requests
	default:
		err = errRecord
	}
	return err
}

// checkChain checks that every segment is there and continues those that it says it does.
func checkChain(reports []SegmentReport) {
	byNumber := map[uint64]*SegmentReport{}
	for i := range reports {
		byNumber[reports[i].number] = &reports[i]
	}
	for i := range reports {
		r := &reports[i]
		for missing := r.number - 1; i > 0 && missing > reports[i-1].number; missing-- {
			r.problem("segment %d is missing", missing)
		}
		for _, p := range r.found.head.parents {
			before := byNumber[p.number]
			switch {
			case before == nil: // deleted, if it is older than all that are there; else it was named above
			case before.found.problem == nil && !before.found.closed:
				r.problem("it continues segment %d as one that is closed, which it is not: its end was cut off", p.number)
			case before.found.closed && before.found.sum() != p.hash:
				r.problem("it continues segment %d with hash %x, which has %s: one of them was changed", p.number, p.hash[:], before.Hash)
			}
		}
		if i > 0 && r.found.whole > 0 && len(r.found.head.parents) == 0 && !anyOpenAt(reports[:i], r.found.head.time) {
			r.problem("it continues no other segment")
		}
	}
}

// anyOpenAt reports whether one of the segments was still open then, so that the one of another process could not continue it.
func anyOpenAt(reports []SegmentReport, time int64) bool {
	for i := range reports {
		found := &reports[i].found
		if !found.closed || found.end.closing != 0 || found.end.time >= time {
			return true
		}
	}
	return false
}

// ParseHash checks that text is the hash of a segment.
func ParseHash(text string) (string, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != hashBytes {
		return "", fmt.Errorf("%q is no hash: want %d hexadecimal digits", text, 2*hashBytes)
	}
	return hex.EncodeToString(b), nil
}
