package audit

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// partialName ends the name of a compressed segment, or a mark, that is not finished.
const partialName = ".partial"

// tidyEvery is how often it is looked for segments that have become too old.
const tidyEvery = time.Minute

// keepTidy compresses closed segments and deletes those that are not kept any longer, of other processes as well.
func (l *Log) keepTidy() {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		if err := l.tidyUp(); err != nil {
			l.log.Error("the audit log cannot be tidied up", "audit", l.cfg.Path, "reason", err)
		}
		select {
		case <-l.tidy:
		case <-ticker.C:
		case <-l.stop:
			return
		}
	}
}

func (l *Log) tidyUp() error {
	closed, err := l.removeOld()
	for i := range closed {
		if s := &closed[i]; l.cfg.Compress && !s.compressed && !l.stopped() {
			err = errors.Join(err, compress(s))
		}
	}
	return err
}

// makeRoom deletes what is not to be kept, and what a process left that was killed while it compressed a segment or marked its end.
func (l *Log) makeRoom() (err error) {
	for _, ending := range []string{compressedName + partialName, markName + partialName} {
		numbers, e := numbersBeside(l.cfg.Path, ending)
		err = errors.Join(err, e)
		for _, number := range numbers {
			err = errors.Join(err, removePartial(segmentPath(l.cfg.Path, number), ending))
		}
	}
	_, e := l.removeOld()
	return errors.Join(err, e)
}

// removePartial deletes what is unfinished beside a segment, unless a process works on that.
func removePartial(path, ending string) error {
	plain, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err == nil {
		defer plain.Close()
		if !lock(plain) {
			return nil
		}
	}
	return ignoreMissing(os.Remove(path + ending))
}

// removeOld deletes the closed segments that are not to be kept, and returns the others.
func (l *Log) removeOld() (closed []segmentFile, err error) {
	segments, err := listSegments(l.cfg.Path)
	if err != nil {
		return nil, err
	}
	oldest := 0 // of the closed ones, how many are older than all that are open
	for _, s := range segments {
		if isLocked(s.name()) {
			continue
		}
		if len(closed) == int(s.number-segments[0].number) {
			oldest++ // none may be missing between those that are left
		}
		closed = append(closed, s)
	}
	keepFrom := newestContinued(segments)
	left := closed[:0:0]
	for i := range closed {
		s := &closed[i]
		mayGo := i < oldest && s.number <= keepFrom
		if mayGo && (l.cfg.Keep > 0 && i < len(closed)-l.cfg.Keep || l.cfg.KeepAge > 0 && olderThan(s, l.cfg.KeepAge)) {
			err = errors.Join(err, remove(s))
			continue
		}
		left = append(left, *s)
	}
	return left, err
}

// newestContinued returns the number of the newest segment that a newer one continues; 0: there is none. Those behind it are the only
// place that has their hashes, and say which numbers were given: without them a log that was stopped for longer than its segments are
// kept would begin anew, and whoever took them away would not be found out.
func newestContinued(segments []segmentFile) uint64 {
	continued := map[uint64]bool{}
	for _, s := range slices.Backward(segments) {
		if continued[s.number] {
			return s.number
		}
		h, err := headOf(&s)
		if err != nil {
			continue // it has none yet, or will get a new one
		}
		for _, p := range h.parents {
			continued[p.number] = true
		}
	}
	return 0
}

func (l *Log) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func olderThan(s *segmentFile, age time.Duration) bool {
	info, err := os.Stat(s.name())
	return err == nil && time.Since(info.ModTime()) > age
}

// remove deletes a closed segment in both its forms, and what is beside it.
func remove(s *segmentFile) (err error) {
	for _, name := range []string{s.path + markName, s.path + cutName, s.path, s.path + compressedName} {
		if e := os.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// compress replaces a closed segment by its compressed form, which has the time of the plain one. The plain one is there until
// the other one is whole and on the disk.
func compress(s *segmentFile) error {
	in, err := os.OpenFile(s.path, os.O_RDWR|unix.O_NOFOLLOW, 0) // a lock needs a file that can be written
	if err != nil {
		return ignoreMissing(err)
	}
	defer in.Close()
	if !lock(in) {
		return nil // another process does it
	}
	if _, closed := endOf(in); !closed {
		return nil
	}
	partial := s.path + compressedName + partialName
	if err := compressTo(partial, in); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(partial)))
	}
	if info, err := in.Stat(); err == nil {
		_ = os.Chtimes(partial, time.Time{}, info.ModTime())
	}
	if err := os.Rename(partial, s.path+compressedName); err != nil {
		return err
	}
	if err := syncFolder(s.path); err != nil {
		return err
	}
	return ignoreMissing(os.Remove(s.path))
}

func compressTo(name string, in io.Reader) error {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, filePermission)
	if err != nil {
		return err
	}
	// One thread at the cheapest level: the CPUs are the loops'.
	encoder, err := zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true))
	if err == nil {
		_, err = io.Copy(encoder, in)
		err = errors.Join(err, encoder.Close())
	}
	return errors.Join(err, out.Sync(), out.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
