package load

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// reasonLost is the reason of requests that failed with their connection.
const reasonLost = "connection lost"

// phase is a stretch of load: the warm-up, or what is measured.
type phase struct {
	startNs int64
	untilNs int64   // no request is sent after it; 0: count says when
	count   int64   // requests that this worker may send; 0: untilNs says when
	rate    float64 // requests per second that this worker sends; 0: closed loop
	firstNs int64   // when this worker sends its first one, with a rate
}

// tally is what came of a phase.
type tally struct {
	sent, right, failed, wrong int64
	byReason                   map[string]int64 // why requests failed
	firstError                 error
	latencies                  *hdrhistogram.Histogram // of right answers, ns
	late                       *hdrhistogram.Histogram // how long after its time a request was sent, ns; with a rate
	endNs                      int64                   // the last answer
}

func newTally() *tally {
	return &tally{byReason: map[string]int64{}, latencies: newHistogram(), late: newHistogram()}
}

// latencyRecordedMax is the longest latency that is told from longer ones. In the open loop a request may be late already when
// it is sent.
const latencyRecordedMax = time.Hour

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(latencyRecordedMax), 3) }

func record(h *hdrhistogram.Histogram, ns int64) {
	// The error would be a value out of range.
	_ = h.RecordValue(min(max(ns, 1), int64(latencyRecordedMax)))
}

func (t *tally) fail(requests int64, reason string, err error) {
	if requests > 0 {
		t.failed += requests
		t.byReason[reason] += requests
	}
	t.blame(err)
}

func (t *tally) blame(err error) {
	if t.firstError == nil {
		t.firstError = err
	}
}

// worker is one thread with its connections.
type worker struct {
	spec         *Spec
	conns        []*conn
	alive        int // of conns
	inflight     int
	epoll, timer int
	events       []unix.EpollEvent
	answered     atomic.Int64 // in this phase; read by whoever shows progress

	phase   phase
	tally   *tally
	expect  Expect
	nextDue int64 // number of the next request of the schedule
	checked int64 // when the timeouts were looked at last, ns
}

// timerMark is the timer's in the epoll set, where connections have their index.
const timerMark = -1

func newWorker(s *Spec, first, count int) (*worker, error) {
	w := &worker{spec: s, expect: s.Expect, epoll: -1, timer: -1, events: make([]unix.EpollEvent, min(count+1, 256))}
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return w, fmt.Errorf("epoll: %w", err)
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return w, fmt.Errorf("timer: %w", err)
	}
	if err := w.watch(unix.EPOLL_CTL_ADD, w.timer, unix.EPOLLIN, timerMark); err != nil {
		return w, err
	}
	for i := range count {
		c, err := dial(s, first+i)
		if err != nil {
			return w, fmt.Errorf("connection %d: %w", first+i, err)
		}
		w.conns = append(w.conns, c)
		if err := w.watch(unix.EPOLL_CTL_ADD, c.fd, unix.EPOLLIN, i); err != nil {
			return w, err
		}
	}
	w.alive = count
	return w, nil
}

func (w *worker) watch(operation, fd int, events uint32, index int) error {
	if err := unix.EpollCtl(w.epoll, operation, fd, &unix.EpollEvent{Events: events, Fd: int32(index)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

func (w *worker) close() {
	for _, c := range w.conns {
		_ = unix.Close(c.fd)
	}
	for _, fd := range []int{w.timer, w.epoll} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// nowNs is the monotonic clock.
func nowNs() int64 { return int64(time.Since(clockStart)) + 1 }

var clockStart = time.Now()

// run puts the load of p on and returns when the last answer is there, or is given up.
//
// REQUIRES: the goroutine is locked to its thread.
func (w *worker) run(p phase) *tally {
	w.phase, w.tally = p, newTally()
	w.nextDue, w.checked = 0, p.startNs
	w.answered.Store(0)
	for _, c := range w.conns {
		c.unsent, c.scheduled = 0, 0
	}
	w.begin()
	for w.inflight > 0 || w.moreIsDue() {
		w.pass()
	}
	if w.alive == 0 {
		w.failRest()
	}
	return w.tally
}

// begin fills the windows, in the closed loop.
func (w *worker) begin() {
	if w.phase.rate > 0 {
		w.sendDue(nowNs())
		return
	}
	for _, c := range w.conns {
		for c.dead == nil && len(c.free) > 0 && w.maySend(nowNs()) {
			now := nowNs()
			w.send(c, now, now)
		}
		w.flush(c)
	}
}

// maySend is for the closed loop.
func (w *worker) maySend(now int64) bool {
	if w.phase.count > 0 {
		return w.tally.sent < w.phase.count
	}
	return now < w.phase.untilNs
}

func (w *worker) send(c *conn, fromNs, nowNs int64) {
	c.append(fromNs, nowNs)
	w.inflight++
	w.tally.sent++
}

// dueNs is when request i of the schedule is due.
func (w *worker) dueNs(i int64) int64 {
	return w.phase.firstNs + int64(float64(i)*1e9/w.phase.rate)
}

// scheduled says whether request i belongs to the schedule.
func (w *worker) scheduled(i int64) bool {
	if w.phase.count > 0 {
		return i < w.phase.count
	}
	return w.dueNs(i) < w.phase.untilNs
}

// moreIsDue says whether the schedule goes on. Requests that wait for a slot wait for answers too.
func (w *worker) moreIsDue() bool {
	return w.phase.rate > 0 && w.alive > 0 && w.scheduled(w.nextDue)
}

// sendDue sends all requests whose time has come, in turns over the connections. One whose connection has no slot
// free is sent when one is, and counts from its own time nevertheless.
func (w *worker) sendDue(now int64) {
	first := w.nextDue
	for w.scheduled(w.nextDue) && w.dueNs(w.nextDue) <= now {
		c := w.conns[w.nextDue%int64(len(w.conns))]
		w.nextDue++
		if c.dead != nil {
			w.tally.sent++
			w.tally.fail(1, reasonLost, c.dead)
			continue
		}
		c.unsent++
		w.catchUp(c, now)
	}
	for i := range min(w.nextDue-first, int64(len(w.conns))) {
		w.flush(w.conns[(first+i)%int64(len(w.conns))])
	}
}

// catchUp sends what is due on c, as long as it has slots.
func (w *worker) catchUp(c *conn, now int64) {
	for c.unsent > 0 && len(c.free) > 0 {
		due := w.dueNs(int64(c.number-w.conns[0].number) + c.scheduled*int64(len(w.conns)))
		record(w.tally.late, now-due)
		c.unsent--
		c.scheduled++
		w.send(c, due, now)
	}
}

// flush writes, and arranges to be told when the kernel takes more.
func (w *worker) flush(c *conn) {
	if c.dead != nil {
		return
	}
	if err := c.flush(); err != nil {
		w.bury(c, c.lastWords(err))
		return
	}
	if blocked := len(c.out) > 0; blocked != c.writeBlocked {
		c.writeBlocked = blocked
		events := uint32(unix.EPOLLIN)
		if blocked {
			events |= unix.EPOLLOUT
		}
		if err := w.watch(unix.EPOLL_CTL_MOD, c.fd, events, c.number-w.conns[0].number); err != nil {
			w.bury(c, err)
		}
	}
}

// timeoutsEvery is how often connections are looked at for answers that do not come.
const timeoutsEvery = 100 * time.Millisecond

// pass waits for something to do, and does it.
func (w *worker) pass() {
	if w.moreIsDue() {
		w.wakeAt(w.dueNs(w.nextDue))
	}
	n, err := unix.EpollWait(w.epoll, w.events, int(timeoutsEvery.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		panic(fmt.Sprintf("load: epoll: %v", err))
	}
	for _, e := range w.events[:max(n, 0)] {
		if e.Fd == timerMark {
			var expirations [8]byte
			_, _ = unix.Read(w.timer, expirations[:])
			continue
		}
		w.serve(w.conns[e.Fd])
	}
	now := nowNs()
	if w.phase.rate > 0 {
		w.sendDue(now)
	}
	if now-w.checked >= int64(timeoutsEvery) {
		w.checked = now
		w.giveUpLate(now)
	}
}

// wakeAt sets the timer. A time that has passed wakes at once.
func (w *worker) wakeAt(ns int64) {
	wait := max(ns-nowNs(), 1)
	when := unix.ItimerSpec{Value: unix.NsecToTimespec(wait)}
	if err := unix.TimerfdSettime(w.timer, 0, &when, nil); err != nil {
		panic(fmt.Sprintf("load: timer: %v", err))
	}
}

// serve reads the answers that are there and sends what may follow them.
func (w *worker) serve(c *conn) {
	if c.dead != nil {
		return
	}
	if err := c.fill(); err != nil {
		w.bury(c, err)
		return
	}
	now := nowNs()
	for {
		f, more, err := c.take()
		if err != nil {
			w.tally.wrong++
			w.bury(c, err)
			return
		}
		if !more {
			break
		}
		if err := c.uncalled(&f); err != nil {
			w.bury(c, err)
			return
		}
		s, err := c.settle(&f)
		if err != nil {
			w.tally.wrong++
			w.tally.blame(err)
			continue
		}
		w.inflight--
		w.answered.Add(1)
		w.tally.endNs = now
		if name, err := refusal(&f); err != nil {
			w.tally.fail(1, name, err)
		} else if w.expect, err = c.check(&f, s.seq, w.expect); err != nil {
			w.tally.wrong++
			w.tally.blame(err)
		} else {
			w.tally.right++
			record(w.tally.latencies, now-s.fromNs)
		}
		if w.phase.rate == 0 && w.maySend(now) {
			w.send(c, now, now)
		}
	}
	if w.phase.rate > 0 {
		w.catchUp(c, now)
	}
	w.flush(c)
}

// giveUpLate gives up the connections with a request that has waited for too long since it was sent: that it was sent late is
// not the gateway's silence.
func (w *worker) giveUpLate(now int64) {
	for _, c := range w.conns {
		if c.dead != nil {
			continue
		}
		for i := range c.slots {
			if s := &c.slots[i]; s.used && now-s.sentNs > int64(w.spec.Timeout) {
				w.bury(c, fmt.Errorf("request %d has no answer after %v", s.seq, w.spec.Timeout))
				break
			}
		}
	}
}

// bury takes c out. What was in flight on it, and what is due, has failed.
func (w *worker) bury(c *conn, err error) {
	c.dead = fmt.Errorf("connection %d: %w", c.number, err)
	lost := int64(c.inflight() + c.unsent)
	w.inflight -= c.inflight()
	w.tally.sent += int64(c.unsent)
	c.unsent = 0
	w.alive--
	w.tally.fail(lost, reasonLost, c.dead)
	// The error would be that it was not watched.
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
}

// failRest counts what could not be sent since no connection was left: a schedule, or a number of
// requests, is kept or has failed.
func (w *worker) failRest() {
	rest := int64(0)
	switch {
	case w.phase.count > 0:
		rest = w.phase.count - w.tally.sent
	case w.phase.rate > 0:
		for w.scheduled(w.nextDue) {
			w.nextDue++
			rest++
		}
	}
	if rest > 0 {
		w.tally.sent += rest
		w.tally.fail(rest, reasonLost, errors.New("no connection is left"))
	}
}
