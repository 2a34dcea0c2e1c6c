package audit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// followEvery is how often a reader that follows looks for more.
const followEvery = 100 * time.Millisecond

// Visitor is told what a log holds. What it is given is borrowed until it returns. An error of Request or Gap ends the reading.
type Visitor struct {
	// Request is told of a request once its outcome is known, and at the end of those without one: they were in flight when
	// their gateway was killed, or still are; outcome is nil then.
	Request func(q *Request, outcome *Outcome) error
	// Gap is told that requests are missing.
	Gap func(g Gap) error
	// Problem is told what is wrong with a segment: the rest of that is left out.
	Problem func(segment string, err error)
	// Waiting is told, if it is not nil, that the log which is to be followed is not there yet.
	Waiting func(err error)
	// InOrder has requests told in the order in which they came, each loop's for itself exactly, instead of that in which they
	// were answered. One without an answer then holds up those behind it.
	InOrder bool
}

// ErrNoLog says that there is no log, nor a segment, of that name.
var ErrNoLog = errors.New("there is no audit log")

// Read tells v what the log at path holds, or a single segment of it. With follow it goes on with what is written to it until
// ctx ends, which is no error; it waits for a log that is not there yet, once it has called v.Waiting.
func Read(ctx context.Context, path string, follow bool, v *Visitor) error {
	r := &reader{path: path, visitor: v, flights: map[flightKey]*flight{}, known: map[uint64]bool{}}
	defer r.close()
	for {
		err := r.findSegments()
		switch {
		case follow && len(r.known) == 0 && (errors.Is(err, ErrNoLog) || errors.Is(err, fs.ErrNotExist)):
			if waits := v.Waiting; waits != nil && !r.waits {
				r.waits = true
				waits(err)
			}
		case err != nil:
			return err
		}
		if err := r.round(); err != nil {
			return err
		}
		if !follow {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
	for _, t := range r.tails {
		if t.torn && !isLocked(t.file.name()) {
			r.problem(t, ErrTorn)
		}
	}
	return r.giveUp(nil)
}

// flightKey names a request that waits for its outcome.
type flightKey struct {
	run  [runBytes]byte
	loop uint16
	id   uint64
}

type flight struct {
	key     flightKey
	body    []byte // the reader's own
	outcome *Outcome
	over    bool // nothing more will come
}

// reader joins requests with their outcomes.
type reader struct {
	path    string
	visitor *Visitor
	known   map[uint64]bool // segments, by number
	tails   []*tail         // segments that may have more to read, the oldest first
	flights map[flightKey]*flight
	order   []*flight // for InOrder
	waits   bool      // for a log that is not there yet
}

// tail is a segment that is read.
type tail struct {
	file   segmentFile
	reader io.ReadCloser
	in     *scanner
	run    [runBytes]byte
	begun  bool // the head was read
	torn   bool // it ended within a record when last looked at
}

// findSegments opens those segments that are new.
func (r *reader) findSegments() error {
	segments, err := segmentsAt(r.path)
	if err != nil {
		return err
	}
	for _, s := range segments {
		if r.known[s.number] {
			continue
		}
		r.known[s.number] = true
		in, err := s.open()
		if err != nil {
			r.visitor.Problem(s.name(), err)
			continue
		}
		r.tails = append(r.tails, &tail{file: s, reader: in, in: newScanner(in)})
	}
	return nil
}

// segmentsAt returns the segments of the log at path, or the one that path itself is.
func segmentsAt(path string) ([]segmentFile, error) {
	segments, err := listSegments(path)
	if err != nil || len(segments) > 0 {
		return segments, err
	}
	plain, compressed := bytes.CutSuffix([]byte(path), []byte(compressedName))
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w at %s: no file %s", ErrNoLog, path, segmentPath(path, 1))
	}
	single := segmentFile{path: string(plain), compressed: compressed}
	h, err := headOf(&single)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	single.number = h.number
	return []segmentFile{single}, nil
}

// round reads what there is of every segment.
func (r *reader) round() error {
	left := r.tails[:0]
	for _, t := range r.tails {
		more, err := r.readTail(t)
		if err != nil {
			return err
		}
		if more {
			left = append(left, t)
			continue
		}
		_ = t.reader.Close()
	}
	r.tails = left
	return nil
}

// readTail reads on in t, and reports whether there may be more later.
func (r *reader) readTail(t *tail) (more bool, err error) {
	doubted := false
	for {
		framed, err := t.in.next()
		t.torn = errors.Is(err, ErrTorn)
		if err == io.EOF {
			return true, nil
		}
		// If its writer was killed another process puts an end in the place of the torn record, or a head and an end. What was read of
		// that is no part of those. They may even come while it is read, and make it look like a record that was changed.
		if plain, ok := t.reader.(*os.File); ok && (t.torn || errors.Is(err, ErrCorrupt) && !doubted) {
			if back := t.in.goBack(plain, t.begun); back != nil {
				err, t.torn = back, false
			} else if !t.torn {
				doubted = true
				continue
			}
		}
		if t.torn {
			return true, nil
		}
		if err != nil {
			r.problem(t, err)
			return false, nil
		}
		body := framed[frameBytes:]
		if body[0] == kindEnd {
			if e, err := decodeEnd(body); err == nil && e.closing != 0 {
				return false, r.giveUp(&t.run)
			}
			return false, nil
		}
		err = r.take(t, body)
		if errors.Is(err, errRecord) {
			r.problem(t, err)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func (r *reader) problem(t *tail, err error) {
	r.visitor.Problem(t.file.name(), fmt.Errorf("byte %d: %w", t.in.at, err))
}

func (r *reader) take(t *tail, body []byte) error {
	if !t.begun {
		h, err := decodeHead(body)
		t.run, t.begun = h.run, err == nil
		return err
	}
	switch body[0] {
	case kindRequest:
		return r.begin(t, body)
	case kindOutcome:
		return r.end(t, body)
	case kindAnswered:
		return r.answered(body)
	case kindGap:
		g, err := decodeGap(body)
		if err != nil {
			return err
		}
		return r.visitor.Gap(g)
	}
	return errRecord
}

func (r *reader) begin(t *tail, body []byte) error {
	q, _, err := decodeRequest(body)
	if err != nil {
		return err
	}
	f := &flight{key: flightKey{t.run, q.Loop, q.ID}, body: bytes.Clone(body)}
	r.flights[f.key] = f
	if r.visitor.InOrder {
		r.order = append(r.order, f)
	}
	return nil
}

func (r *reader) end(t *tail, body []byte) error {
	loop, id, outcome, err := decodeOutcome(body)
	if err != nil {
		return err
	}
	f := r.flights[flightKey{t.run, loop, id}]
	if f == nil {
		return nil // its request is in a segment that was deleted
	}
	f.outcome = &outcome
	return r.settle(f)
}

func (r *reader) answered(body []byte) error {
	q, outcome, err := decodeRequest(body)
	if err != nil {
		return err
	}
	if len(r.order) == 0 {
		return r.visitor.Request(&q, &outcome)
	}
	r.order = append(r.order, &flight{body: bytes.Clone(body), outcome: &outcome, over: true})
	return nil
}

// settle tells of a request that nothing more will come of, now or in its turn.
func (r *reader) settle(f *flight) error {
	delete(r.flights, f.key)
	f.over = true
	if !r.visitor.InOrder {
		return r.tell(f)
	}
	for len(r.order) > 0 && r.order[0].over {
		first := r.order[0]
		r.order[0] = nil
		r.order = r.order[1:]
		if err := r.tell(first); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) tell(f *flight) error {
	q, _, err := decodeRequest(f.body)
	if err != nil {
		return err
	}
	return r.visitor.Request(&q, f.outcome)
}

// giveUp tells of the requests of a run that have no outcome, in the order in which they came, or of all runs.
func (r *reader) giveUp(run *[runBytes]byte) error {
	var left []*flight
	for key, f := range r.flights {
		if run == nil || key.run == *run {
			left = append(left, f)
		}
	}
	sortFlights(left)
	for _, f := range left {
		if err := r.settle(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) close() {
	for _, t := range r.tails {
		_ = t.reader.Close()
	}
}

func sortFlights(flights []*flight) {
	slices.SortFunc(flights, func(a, b *flight) int { return cmp.Compare(timeOf(a.body), timeOf(b.body)) })
}

// timeOf returns the time of a request.
func timeOf(body []byte) int64 { return int64(binary.BigEndian.Uint64(body[16:])) }
