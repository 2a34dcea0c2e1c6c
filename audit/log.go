package audit

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// linger is how long the log's goroutine leaves the rings alone after it has taken something, so that a write carries
	// many records and loops need not wake it for each.
	linger = 5 * time.Millisecond
	// retryEvery is the pause before a write that failed is tried again.
	retryEvery = 100 * time.Millisecond
	// othersEvery is how often it is looked whether other processes have closed their segments.
	othersEvery = 200 * time.Millisecond
	// recoverEvery is how often it is tried to close what earlier processes left: that may be a lot to read.
	recoverEvery = time.Second
	// complainEvery is the shortest time between two messages on a log that cannot be written.
	complainEvery = 10 * time.Second
)

// Log is an audit log that this process writes. One goroutine does it all; another one compresses and deletes.
type Log struct {
	// Set once by Open.
	cfg     Config
	log     *slog.Logger
	rings   []*Ring
	run     [runBytes]byte
	now     func() int64  // nanoseconds since 1970
	started time.Time     // what behind counts from
	wakes   chan struct{} // has room for one
	stop    chan struct{}
	tidy    chan struct{} // has room for one
	done    sync.WaitGroup

	// Owned by the log's goroutine.
	pending      []byte // whole records that belong into no segment yet
	pendingAt    int
	segment      *segment // nil: none could be made yet
	parents      []parent // of the next segment
	last         uint64   // number of the last segment; 0: there was none
	others       []other
	recovered    bool     // what earlier processes left is closed
	unmark       []parent // of the segment that is open, until its head is on the disk
	ending       bool
	othersDue    time.Time
	syncDue      time.Time
	recoverDue   time.Time
	recoverErr   error // of the last try
	complain     time.Time
	complainSync time.Time
	err          error // of Close

	// Atomic.
	parked  atomic.Bool  // the log's goroutine waits to be woken
	failing atomic.Bool  // the last write did not work
	behind  atomic.Int64 // since when records wait to be written that were taken, nanoseconds since started; 0: none do
	stats   counters
}

type counters struct {
	bytes, gaps, segments, writeErrors, syncErrors atomic.Uint64
}

// Stats is what a log counts.
type Stats struct {
	Records     uint64        // recorded by the loops: one for an answer without a request in flight, two for others
	Bytes       uint64        // written
	Lost        uint64        // requests that were not recorded
	Gaps        uint64        // in the log, for those
	RingFull    uint64        // times that a loop found no room after there was some
	Segments    uint64        // begun
	WriteErrors uint64        // writes that failed, tries included
	SyncErrors  uint64        // syncs that failed
	Lag         time.Duration // how long the oldest record that was taken from a ring waits to be written
}

// Open opens the log that cfg names for as many loops, after it has deleted what is not to be kept and closed what processes left
// that did not end well. If there is no room for that the log begins as one whose disk has become full: it tries again. cfg is valid.
// now returns nanoseconds since 1970, and may be called from any goroutine. Close is to be called.
func Open(cfg Config, loops int, now func() int64, log *slog.Logger) (*Log, error) {
	l := &Log{
		cfg: cfg, log: log, wakes: make(chan struct{}, 1), stop: make(chan struct{}), tidy: make(chan struct{}, 1),
		now: now, started: time.Now(),
	}
	if _, err := rand.Read(l.run[:]); err != nil {
		return nil, err
	}
	for i := range loops {
		l.rings = append(l.rings, newRing(l, i, cfg.RingBytes))
	}
	err := l.makeRoom()
	if err == nil {
		err = l.flush()
	}
	switch {
	case err == nil:
	case isFull(err):
		l.report(err)
	default:
		if l.segment != nil {
			_ = l.segment.file.Close()
		}
		return nil, fmt.Errorf("audit log %s: %w", cfg.Path, err)
	}
	l.done.Go(l.write)
	l.done.Go(l.keepTidy)
	return l, nil
}

// Ring returns the ring of a loop.
func (l *Log) Ring(loop int) *Ring { return l.rings[loop] }

// Stats returns what was counted. It may be called from any goroutine.
func (l *Log) Stats() Stats {
	s := Stats{
		Bytes: l.stats.bytes.Load(), Gaps: l.stats.gaps.Load(), Segments: l.stats.segments.Load(),
		WriteErrors: l.stats.writeErrors.Load(), SyncErrors: l.stats.syncErrors.Load(),
	}
	for _, r := range l.rings {
		s.Records += r.recorded.Load()
		s.Lost += r.lostTotal.Load()
		s.RingFull += r.full.Load()
	}
	if behind := l.behind.Load(); behind != 0 {
		s.Lag = max(time.Since(l.started)-time.Duration(behind), 0)
	}
	return s
}

// Close writes what is left, closes the segment and ends the log. The loops must have stopped.
func (l *Log) Close() error {
	for _, r := range l.rings {
		r.Flush()
	}
	close(l.stop)
	l.done.Wait()
	return l.err
}

func (l *Log) wake() {
	select {
	case l.wakes <- struct{}{}:
	default: // it will look anyway
	}
}

// write is the log's goroutine.
func (l *Log) write() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		busy, err := l.turn()
		wait := l.untilDue()
		switch {
		case err != nil:
			wait = min(wait, retryEvery)
		case busy:
			wait = min(wait, linger)
		default:
			l.parked.Store(true)
			if l.anyWaiting() {
				wait = 0 // it came before loops could see that they are to wake us
			}
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.wakes:
			if err != nil {
				l.pause(timer, retryEvery)
			}
		case <-l.stop:
			l.err = l.finish()
			return
		}
		l.parked.Store(false)
	}
}

// pause waits, but not longer than until the log is stopped.
func (l *Log) pause(timer *time.Timer, wait time.Duration) {
	timer.Reset(wait)
	select {
	case <-timer.C:
	case <-l.stop:
	}
}

func (l *Log) anyWaiting() bool {
	for _, r := range l.rings {
		if r.waiting() {
			return true
		}
	}
	return false
}

// turn takes what the rings hold, ring by ring, and writes it. busy says that there was something.
func (l *Log) turn() (busy bool, err error) {
	for _, r := range l.rings {
		if l.pendingAt == len(l.pending) && r.waiting() {
			busy = true
			l.behind.CompareAndSwap(0, max(int64(time.Since(l.started)), 1))
			var gap bool
			l.pending, gap = r.take(l.pending[:0], l.now())
			l.pendingAt = 0
			if gap {
				l.stats.gaps.Add(1)
			}
		}
		if err = l.flush(); err != nil {
			break
		}
	}
	if err == nil {
		err = l.upkeep()
	}
	l.report(err)
	return busy, err
}

// report says when the log begins to fail, and when that is over.
func (l *Log) report(err error) {
	if err == nil {
		l.behind.Store(0)
		if l.failing.Swap(false) {
			l.log.Info("the audit log is written again", "audit", l.cfg.Path)
			l.complain = time.Time{}
		}
		return
	}
	l.stats.writeErrors.Add(1)
	l.failing.Store(true)
	if now := time.Now(); now.After(l.complain) {
		l.complain = now.Add(complainEvery)
		l.log.Error("the audit log cannot be written", "audit", l.cfg.Path, "reason", err, "requests_are", onFullWords[l.cfg.OnFull])
	}
}

var onFullWords = map[OnFull]string{
	Drop: "served and not recorded once the ring is full", Block: "paused, then refused", Fail: "refused",
}

// flush writes what is pending, into a new segment where the one that is open has no room. After an error it goes on where it
// stopped.
func (l *Log) flush() error {
	for {
		if l.segment == nil {
			if l.ending && l.pendingAt == len(l.pending) {
				return nil
			}
			if err := l.begin(); err != nil {
				return err
			}
		}
		before := l.segment.written
		err := l.segment.write()
		l.stats.bytes.Add(uint64(l.segment.written - before))
		if err != nil {
			return err
		}
		l.removeMarks()
		if l.segment.closing {
			l.finishSegment()
			continue
		}
		if l.pendingAt == len(l.pending) {
			return nil
		}
		n, records := l.fitting()
		if n == 0 {
			l.segment.appendEnd(end{time: l.now()})
			continue
		}
		l.segment.append(l.pending[l.pendingAt:l.pendingAt+n], records)
		l.pendingAt += n
	}
}

// fitting returns how many of the pending bytes and records the segment still takes: one record at least if it has none.
func (l *Log) fitting() (n int, records uint64) {
	pending := l.pending[l.pendingAt:]
	for n < len(pending) {
		next := n + frameBytes + int(binary.BigEndian.Uint32(pending[n:]))
		if l.segment.bytes+next > l.cfg.SegmentBytes && l.segment.records+records > 0 {
			break
		}
		n = next
		records++
	}
	return n, records
}

// begin makes the next segment, after what earlier processes left is closed.
func (l *Log) begin() error {
	if !l.recovered {
		if err := l.recover(); err != nil {
			return err
		}
		l.recovered = true
	}
	h := head{time: l.now(), pid: uint32(os.Getpid()), run: l.run, parents: l.parents}
	s, err := createSegment(l.cfg.Path, h)
	if err != nil {
		return err
	}
	l.segment, l.unmark, l.parents = s, l.parents, nil
	for number := l.last + 1; l.last != 0 && number < s.number; number++ {
		l.others = append(l.others, other{segmentFile: segmentFile{number: number, path: segmentPath(l.cfg.Path, number)}})
	}
	l.last = s.number
	l.stats.segments.Add(1)
	if l.cfg.Sync != SyncNone {
		l.countSync(syncFolder(l.cfg.Path))
	}
	return nil
}

// removeMarks deletes the marks of the segments that the open one continues, whose hashes it has now.
func (l *Log) removeMarks() {
	for _, p := range l.unmark {
		removeMark(segmentPath(l.cfg.Path, p.number), p.hash)
	}
	l.unmark = nil
}

// finishSegment closes the segment, whose end is written.
func (l *Log) finishSegment() {
	s := l.segment
	if l.cfg.Sync != SyncNone || l.ending {
		l.countSync(s.sync())
	}
	if l.ending {
		l.markEnd(s)
	}
	_ = s.file.Close()
	l.parents = append(l.parents, parent{s.number, s.end.hash})
	l.segment = nil
	l.adoptOthers()
	select {
	case l.tidy <- struct{}{}:
	default:
	}
}

// markEnd leaves the mark of the last segment, before another process can take that for its parent.
func (l *Log) markEnd(s *segment) {
	path := segmentPath(l.cfg.Path, s.number)
	if err := writeMark(path, s.number, mark{s.written, s.end.hash}); err != nil {
		l.log.Warn("the end of the audit log cannot be marked: whether it is cut off will not show", "segment", path, "reason", err)
	}
}

// isFull reports whether an error means that there will be room some time.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// upkeep does what is due by time. REQUIRES: there is a segment, all is written.
func (l *Log) upkeep() error {
	now := time.Now()
	if len(l.others) > 0 && now.After(l.othersDue) {
		l.othersDue = now.Add(othersEvery)
		if l.adoptOthers() {
			// The next segment is the place for their hashes.
			l.segment.appendEnd(end{time: l.now()})
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
	s := l.segment
	if l.cfg.SegmentAge != 0 && s.records > 0 && now.Sub(s.opened) >= l.cfg.SegmentAge {
		s.appendEnd(end{time: l.now()})
		return l.flush()
	}
	if !s.dirty {
		return nil
	}
	switch {
	case l.cfg.Sync == SyncAlways:
		l.countSync(s.sync())
	case l.cfg.Sync == SyncInterval && !l.syncDue.IsZero() && !now.Before(l.syncDue):
		l.countSync(s.sync())
		l.syncDue = time.Time{}
	}
	if s.dirty && l.cfg.Sync != SyncNone && l.syncDue.IsZero() {
		l.syncDue = now.Add(l.cfg.SyncEvery) // the first time, or again
	}
	return nil
}

// untilDue returns how long upkeep has nothing to do.
func (l *Log) untilDue() time.Duration {
	now, wait := time.Now(), time.Hour
	due := func(at time.Time) { wait = min(wait, max(at.Sub(now), 0)) }
	if len(l.others) > 0 {
		due(l.othersDue)
	}
	if s := l.segment; s != nil {
		if l.cfg.SegmentAge != 0 && s.records > 0 {
			due(s.opened.Add(l.cfg.SegmentAge))
		}
		if s.dirty && !l.syncDue.IsZero() {
			due(l.syncDue)
		}
	}
	return wait
}

func (l *Log) countSync(err error) {
	if err == nil {
		return
	}
	l.stats.syncErrors.Add(1)
	now := time.Now()
	if now.Before(l.complainSync) {
		return
	}
	l.complainSync = now.Add(complainEvery)
	l.log.Error("the audit log cannot be forced to the disk", "audit", l.cfg.Path, "reason", err)
}

// finish writes what is left when the log ends.
func (l *Log) finish() error {
	for l.anyWaiting() || l.pendingAt < len(l.pending) {
		if _, err := l.turn(); err != nil {
			break
		}
	}
	l.ending = true
	if l.segment != nil && !l.segment.closing {
		l.segment.appendEnd(end{time: l.now()})
	}
	err := l.flush()
	if l.segment != nil {
		_ = l.segment.file.Close()
	}
	if err != nil {
		left := len(l.pending) - l.pendingAt
		for _, r := range l.rings {
			left += int(r.published.Load() - r.tail.Load())
		}
		return fmt.Errorf("audit log %s: %d bytes of records could not be written: %w", l.cfg.Path, left, err)
	}
	return nil
}

// recover closes the segments that processes left which did not end well, and finds out which ones the next segment
// continues.
func (l *Log) recover() (err error) {
	if l.recoverErr != nil && time.Now().Before(l.recoverDue) {
		return l.recoverErr
	}
	defer func() { l.recoverErr, l.recoverDue = err, time.Now().Add(recoverEvery) }()
	segments, err := listSegments(l.cfg.Path)
	if err != nil {
		return err
	}
	if len(segments) > parentsMax {
		segments = segments[len(segments)-parentsMax:] // older ones have long been continued
	}
	continued := map[uint64]bool{}
	for i := range segments {
		s := &segments[i]
		if !s.compressed {
			e, err := recoverSegment(s, head{time: l.now(), pid: uint32(os.Getpid()), run: l.run})
			if err != nil {
				return fmt.Errorf("closing %s, which its process has left: %w", s.path, err)
			}
			if e != nil {
				l.log.Warn("a segment of the audit log was left open, it is closed now", "segment", s.path, "records", e.records,
					"bytes_cut_off", e.cut, "corrupt", e.closing&closedCorrupt != 0, "had_an_end", e.closing&closedTwice != 0)
			}
		}
		h, err := headOf(s)
		if err != nil {
			continue // it may have been deleted meanwhile; audit verify judges
		}
		for _, p := range h.parents {
			continued[p.number] = true
		}
	}
	for _, s := range segments {
		if !continued[s.number] {
			l.others = append(l.others, other{s, true})
		}
	}
	l.adoptOthers()
	return nil
}

// other is a segment of another process, which is to be a parent of one of ours once it is closed.
type other struct {
	segmentFile
	// soon: it was open when this process began, and probably is the last of its own. Else its process goes on, and two that
	// would each begin a segment for the other's sake would never stop.
	soon bool
}

// adoptOthers makes the segments of others that are closed by now parents of the next segment, and reports whether that should
// begin soon.
func (l *Log) adoptOthers() (soon bool) {
	left := l.others[:0]
	for _, s := range l.others {
		e, state := l.endOfOther(&s.segmentFile)
		switch state {
		case otherOpen:
			left = append(left, s)
		case otherClosed:
			if len(l.parents) < parentsMax {
				l.parents = append(l.parents, parent{s.number, e.hash})
			}
			soon = soon || s.soon
		}
	}
	l.others = left
	return soon
}

type otherState uint8

const (
	otherOpen otherState = iota
	otherClosed
	otherGone
)

// endOfOther looks whether the segment of another process is closed, and closes it if that process is gone.
func (l *Log) endOfOther(s *segmentFile) (end, otherState) {
	if !s.compressed {
		if isLocked(s.path) {
			return end{}, otherOpen
		}
		if _, err := recoverSegment(s, head{time: l.now(), pid: uint32(os.Getpid()), run: l.run}); err != nil && !errors.Is(err, os.ErrNotExist) {
			return end{}, otherOpen
		}
	}
	e, closed, err := s.end()
	switch {
	case closed:
		return e, otherClosed
	case err != nil || s.compressed:
		return end{}, otherGone
	default:
		return end{}, otherOpen
	}
}

// headOf returns the head of a segment.
func headOf(s *segmentFile) (head, error) {
	r, err := s.open()
	if err != nil {
		return head{}, err
	}
	defer r.Close()
	return readHead(r)
}
