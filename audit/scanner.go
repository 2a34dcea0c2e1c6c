package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrMagic says that a file is no segment of an audit log.
	ErrMagic = errors.New("audit: no segment of an audit log")
	// ErrTorn says that a segment ends within a record: it is being written, its writer was killed, or it was cut.
	ErrTorn = errors.New("audit: the segment ends within a record")
	// ErrCorrupt says that a record is not what was written.
	ErrCorrupt = errors.New("audit: the record was changed: its checksum is wrong")
)

// scanner reads the records of a segment. After io.EOF and ErrTorn it goes on when there is more to read.
type scanner struct {
	r      io.Reader
	buffer []byte
	start  int   // buffer[start:stop] was read and not handed out
	stop   int   //
	at     int64 // offset of buffer[start] in the segment
	begun  bool  // the magic was read
}

const scanBytes = 64 << 10

func newScanner(r io.Reader) *scanner { return &scanner{r: r, buffer: make([]byte, scanBytes)} }

// next returns the next record with its frame, valid until the next call. io.EOF means that there is none yet.
func (s *scanner) next() (framed []byte, err error) {
	if !s.begun {
		if err := s.fill(len(magic)); err != nil {
			return nil, err
		}
		if string(s.buffer[s.start:s.start+len(magic)]) != magic {
			return nil, ErrMagic
		}
		s.skip(len(magic))
		s.begun = true
	}
	if err := s.fill(frameBytes); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(s.buffer[s.start:])
	if length == 0 || length > bodyBytesMax {
		return nil, fmt.Errorf("%w: it states %d bytes", ErrCorrupt, length)
	}
	n := frameBytes + int(length)
	if err := s.fill(n); err != nil {
		return nil, err
	}
	framed = s.buffer[s.start : s.start+n]
	if checksum(framed) != binary.BigEndian.Uint32(framed[4:]) {
		return nil, ErrCorrupt
	}
	s.skip(n)
	return framed, nil
}

func (s *scanner) skip(n int) {
	s.start += n
	s.at += int64(n)
}

// goBack has what is behind the last record that was handed out read anew from f, which is what s reads; without a head, that is
// all of it.
func (s *scanner) goBack(f io.Seeker, hasHead bool) error {
	if !hasHead {
		s.at, s.begun = 0, false
	}
	s.start, s.stop = 0, 0
	_, err := f.Seek(s.at, io.SeekStart)
	return err
}

// fill makes sure that n bytes are there to be handed out.
func (s *scanner) fill(n int) error {
	for s.stop-s.start < n {
		if s.start > 0 && s.start+n > len(s.buffer) {
			s.stop, s.start = copy(s.buffer, s.buffer[s.start:s.stop]), 0
		}
		if s.stop == len(s.buffer) {
			// Only as much as has come is made room for: the length may be wrong.
			s.buffer = append(s.buffer, make([]byte, len(s.buffer))...)
		}
		read, err := s.r.Read(s.buffer[s.stop:])
		s.stop += read
		if err == io.EOF && read == 0 {
			if s.stop == s.start {
				return io.EOF
			}
			return ErrTorn
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
