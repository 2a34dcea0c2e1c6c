package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	numberDigits   = 8
	compressedName = ".zst"
	filePermission = 0o600
)

// segmentFile is a segment as the folder has it.
type segmentFile struct {
	number     uint64
	path       string // without the ending of a compressed one
	compressed bool
}

func segmentPath(path string, number uint64) string {
	return fmt.Sprintf("%s.%0*d", path, numberDigits, number)
}

func (s *segmentFile) name() string {
	if s.compressed {
		return s.path + compressedName
	}
	return s.path
}

// listSegments returns the segments of the log at path, the oldest first. One that is there in both forms counts as not
// compressed.
func listSegments(path string) ([]segmentFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	prefix := filepath.Base(path) + "."
	found := map[uint64]segmentFile{}
	for _, entry := range entries {
		digits, ours := strings.CutPrefix(entry.Name(), prefix)
		digits, compressed := strings.CutSuffix(digits, compressedName)
		number, err := strconv.ParseUint(digits, 10, 64)
		if !ours || err != nil || len(digits) < numberDigits || digits[0] == '+' {
			continue
		}
		if before, both := found[number]; both && !before.compressed {
			continue
		}
		found[number] = segmentFile{number, segmentPath(path, number), compressed}
	}
	segments := make([]segmentFile, 0, len(found))
	for _, s := range found {
		segments = append(segments, s)
	}
	slices.SortFunc(segments, func(a, b segmentFile) int { return int(int64(a.number - b.number)) })
	return segments, nil
}

// open opens the segment for reading, whichever form it has by now. Closing it is the caller's.
func (s *segmentFile) open() (io.ReadCloser, error) {
	f, err := os.Open(s.name())
	if errors.Is(err, fs.ErrNotExist) && !s.compressed {
		s.compressed = true // since it was listed
		f, err = os.Open(s.name())
	}
	if err != nil {
		return nil, err
	}
	if !s.compressed {
		return f, nil
	}
	decoder, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &compressedSegment{decoder, f}, nil
}

// end returns the end of the segment, whichever form it has by now. closed is false if it has none.
func (s *segmentFile) end() (e end, closed bool, err error) {
	r, err := s.open()
	if err != nil {
		return e, false, err
	}
	defer r.Close()
	if f, plain := r.(*os.File); plain {
		e, closed = endOf(f)
		return e, closed, nil
	}
	found := examine(r, nil)
	return found.end, found.closed, nil
}

type compressedSegment struct {
	*zstd.Decoder
	file *os.File
}

func (c *compressedSegment) Close() error {
	c.Decoder.Close()
	return c.file.Close()
}

// lock takes the lock of a file that is open for writing, and reports whether nobody else has it. It belongs to the open file:
// closing that gives it back.
func lock(f *os.File) bool {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}) == nil
}

// isLocked reports whether a process writes the segment, or works on it. Asking disturbs nobody.
func isLocked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	answer := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &answer) == nil && answer.Type != unix.F_UNLCK
}

// endOf returns the end of an uncompressed segment. ok is false if it has none: it is not closed. Only its head and its last
// bytes are read. Those may be the payload of a client, so they must name the run that the head does.
func endOf(f *os.File) (e end, ok bool) {
	info, err := f.Stat()
	if err != nil || info.Size() < frameBytes+endBytes {
		return e, false
	}
	h, err := readHead(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return e, false
	}
	s := newScanner(io.NewSectionReader(f, info.Size()-frameBytes-endBytes, frameBytes+endBytes))
	s.begun = true
	framed, err := s.next()
	if err != nil || len(framed) != frameBytes+endBytes {
		return e, false
	}
	e, err = decodeEnd(framed[frameBytes:])
	return e, err == nil && e.run == h.run
}

// readHead reads the head of a segment.
func readHead(r io.Reader) (head, error) {
	framed, err := newScanner(r).next()
	if err != nil {
		return head{}, err
	}
	return decodeHead(framed[frameBytes:])
}

// summary is what a look through a whole segment tells.
type summary struct {
	head    head
	end     end
	closed  bool
	records uint64 // head and end do not count
	whole   int64  // bytes up to the end of the last good record
	problem error  // what is behind that; nil: nothing
	hash    hash.Hash
}

// examine looks through a segment, and calls each with the body of every record but head and end, if it is not nil.
func examine(r io.Reader, each func(body []byte) error) (s summary) {
	in := newScanner(r)
	s.hash = sha256.New()
	_, _ = io.WriteString(s.hash, magic)
	for {
		framed, err := in.next()
		if err != nil {
			if err != io.EOF {
				s.problem = err
			}
			return s
		}
		if err := s.add(framed, each); err != nil {
			s.problem = err
			return s
		}
		s.whole = in.at
	}
}

func (s *summary) add(framed []byte, each func(body []byte) error) (err error) {
	body := framed[frameBytes:]
	switch {
	case s.closed:
		return fmt.Errorf("%w: there are records behind the end", ErrCorrupt)
	case s.whole == 0:
		s.head, err = decodeHead(body)
	case body[0] == kindHead:
		return fmt.Errorf("%w: a second head", ErrCorrupt)
	case body[0] == kindEnd:
		if s.end, err = decodeEnd(body); err != nil {
			return err // what is not whole is not part of the hash
		}
		if s.end.run != s.head.run {
			return fmt.Errorf("%w: it is the end of another segment", ErrCorrupt)
		}
		s.closed = true
		_, _ = s.hash.Write(body[:endHashOffset])
		return nil
	default:
		s.records++
		if each != nil {
			err = each(body)
		}
	}
	_, _ = s.hash.Write(framed)
	return err
}

// sum returns the hash of a closed segment, as its content makes it.
func (s *summary) sum() (sum [hashBytes]byte) {
	copy(sum[:], s.hash.Sum(nil))
	return sum
}

// segment is one that this process writes. It holds its lock.
type segment struct {
	file    *os.File
	number  uint64
	run     [runBytes]byte
	hash    hash.Hash // of all that was appended
	bytes   int       // appended
	records uint64    // appended
	out     []byte    // appended and not written: from outAt on
	outAt   int
	written int64
	opened  time.Time
	closing bool // the end is appended
	end     end
	dirty   bool // something was written since the last sync
}

// createSegment makes the first segment behind all others, with its head still to be written.
func createSegment(path string, h head) (*segment, error) {
	segments, err := listSegments(path)
	if err != nil {
		return nil, err
	}
	number := uint64(1)
	if len(segments) > 0 {
		number = segments[len(segments)-1].number + 1
	}
	// One that was deleted shows by its mark, unless another one gets its number.
	marked, err := numbersBeside(path, markName)
	if err != nil {
		return nil, err
	}
	for _, n := range marked {
		number = max(number, n+1)
	}
	for ; ; number++ {
		f, err := os.OpenFile(segmentPath(path, number), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, filePermission)
		if errors.Is(err, fs.ErrExist) {
			continue // another process was faster
		}
		if err != nil {
			return nil, err
		}
		// It may also have been faster to lock it, and take it for one that nobody writes any more.
		locked := lock(f)
		if info, err := f.Stat(); err != nil || !locked || info.Size() != 0 {
			_ = f.Close()
			continue
		}
		h.number = number
		return newSegment(f, &h), nil
	}
}

func newSegment(f *os.File, h *head) *segment {
	s := &segment{file: f, number: h.number, run: h.run, hash: sha256.New(), opened: time.Now()}
	s.append(appendHead([]byte(magic), h), 0)
	return s
}

// append takes whole records to be written.
func (s *segment) append(b []byte, records uint64) {
	s.out = append(s.out, b...)
	_, _ = s.hash.Write(b)
	s.bytes += len(b)
	s.records += records
}

// appendEnd closes the segment: when all is written, finish may be called.
func (s *segment) appendEnd(e end) {
	e.records, e.run = s.records, s.run
	body := e.body()
	_, _ = s.hash.Write(body[:endHashOffset])
	copy(e.hash[:], s.hash.Sum(nil))
	body = e.body()
	s.out = appendRecord(s.out, body[:])
	s.closing, s.end = true, e
}

// write writes what was appended. After an error it goes on where it stopped.
func (s *segment) write() error {
	for s.outAt < len(s.out) {
		n, err := s.file.WriteAt(s.out[s.outAt:], s.written)
		s.outAt += n
		s.written += int64(n)
		s.dirty = s.dirty || n > 0
		if err != nil {
			return err
		}
	}
	s.out, s.outAt = s.out[:0], 0
	return nil
}

// sync forces what was written to the disk.
func (s *segment) sync() error {
	if !s.dirty {
		return nil
	}
	err := unix.Fdatasync(int(s.file.Fd()))
	s.dirty = err != nil
	return err
}

// syncFolder makes the names of new segments last.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
