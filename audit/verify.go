package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
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
	Recovered bool      // it was closed by a later process
	Cut       uint32    // bytes that this one cut off
	Hash      string    // of a closed segment, in hex
	Problems  []string

	number uint64 // as the file's name has it
	found  summary
}

// Verify looks through the log at path. anchors are hashes in hex, by the number of a segment, as an earlier call returned them:
// what was rewritten with all its hashes since then differs from them. A problem means that the log was changed, or cut, or that
// the process that wrote it was killed and no other one has opened the log since.
func Verify(path string, anchors map[uint64]string) ([]SegmentReport, error) {
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
	case found.problem == nil && !r.Live:
		r.problem("it is not closed, and nobody writes it: it was cut, or its gateway was killed; the next one closes it")
	case errors.Is(found.problem, ErrTorn) && !r.Live:
		r.problem("it ends within a record at byte %d, and nobody writes it: it was cut, or its gateway was killed; the next one closes it", found.whole)
	case found.problem != nil && !errors.Is(found.problem, ErrTorn):
		r.problem("byte %d: %v", found.whole, found.problem)
	}
	if found.whole > 0 && r.Number != s.number {
		r.problem("it was segment %d: segments were renamed", r.Number)
	}
}

// close checks the end of a segment that has one.
func (r *SegmentReport) close() {
	e := &r.found.end
	sum := r.found.sum()
	r.Closed, r.Recovered, r.Cut, r.Hash = time.Unix(0, e.time), e.recovered, e.cut, hex.EncodeToString(sum[:])
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
		if !found.closed || found.end.recovered || found.end.time >= time {
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
