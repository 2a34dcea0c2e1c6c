package engine

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// ticker wakes loops when their deadlines are due. It is one goroutine for all loops, which sleeps
// until the earliest deadline and is only disturbed by an earlier one: an idle gateway runs nothing.
type ticker struct {
	gateway *Gateway
	target  atomic.Int64 // nanoseconds since Gateway.started until which run sleeps
	kick    chan struct{}
	stop    chan struct{}
	running sync.WaitGroup
}

func newTicker(g *Gateway) *ticker {
	return &ticker{gateway: g, kick: make(chan struct{}, 1), stop: make(chan struct{})}
}

func (t *ticker) start() { t.running.Go(t.run) }

func (t *ticker) run() {
	labelGoroutine(partLabel, "ticker")
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		// A loop stores its wakeAt, then reads target; this goes the other way round, so that
		// one of the two sees the other's store.
		t.target.Store(math.MaxInt64)
		now := int64(time.Since(t.gateway.started))
		earliest := int64(math.MaxInt64)
		for _, l := range t.gateway.loops {
			at := l.wakeAt.Load()
			if at == 0 {
				continue
			}
			if at <= now {
				// Until the loop has looked, and set a new time, it is not woken again.
				l.wakeAt.CompareAndSwap(at, 0)
				l.Wake()
				continue
			}
			earliest = min(earliest, at)
		}
		t.target.Store(earliest)
		sleep := time.Hour
		for _, l := range t.gateway.loops {
			if at := l.wakeAt.Load(); at != 0 {
				sleep = min(sleep, time.Duration(at-now))
			}
		}
		timer.Reset(max(sleep, 0))
		select {
		case <-timer.C:
		case <-t.kick:
		case <-t.stop:
			return
		}
	}
}

// close ends run.
func (t *ticker) close() {
	close(t.stop)
	t.running.Wait()
}

// armTicker tells the ticker when this loop has to be woken. A time that has become too early
// because its request was answered is left alone: one idle wake is cheaper than telling the ticker
// of every request that comes and goes.
func (l *loop) armTicker() {
	at := int64(0)
	if tick, ok := l.deadlines.next(); ok {
		at = int64(tick) * wheelTickNanos
	}
	if len(l.lingering) > 0 {
		at = earlier(at, true, l.lingering[0].until)
	}
	at = earlier(at, len(l.waiting) > 0, l.waitingLook)
	at = earlier(at, len(l.fair.parked) > 0, l.fair.tickEnds)
	at = earlier(at, len(l.partials) > 0, l.partialsLook)
	at = earlier(at, len(l.peeker.sessions) > 0, l.peeker.look)
	at = earlier(at, len(l.stuck) > 0, l.stuckLook)
	at = earlier(at, l.counters.paused.Load() > 0, l.pausedCounted+pausedCountEvery)
	at = earlier(at, l.breakers.dueAt != 0, l.breakers.dueAt)
	if armed := l.wakeAt.Load(); at == 0 || armed != 0 && armed <= at {
		return
	}
	l.wakeAt.Store(at)
	if t := l.gateway.ticker; at < t.target.Load() {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// earlier returns the earlier of two times, of which at may be none, 0, and other counts only if there is one.
func earlier(at int64, there bool, other int64) int64 {
	if there && (at == 0 || other < at) {
		return max(other, 1)
	}
	return at
}

// setDeadline arms the deadline of slot index, in nanoseconds since Gateway.started. It never fires
// early: the tick is the first that lies wholly behind it.
func (l *loop) setDeadline(index uint32, at int64) {
	l.deadlines.insert(index, uint64(at+wheelTickNanos-1)/wheelTickNanos)
	if armed := l.wakeAt.Load(); armed == 0 || at < armed {
		l.rearm = true
	}
}

// fireDeadlines answers the requests whose deadline has passed, ends sessions that lingered, and turns circuit breakers.
func (l *loop) fireDeadlines() {
	for _, index := range l.deadlines.advance(uint64(l.now) / wheelTickNanos) {
		h, r := l.slots.At(index)
		if r.state == waitsForAck {
			l.ackOverdue(h, r)
			continue
		}
		l.timeOut(h, r)
	}
	for len(l.lingering) > 0 && l.lingering[0].until <= l.now {
		l.doom(l.lingering[0].session)
		l.lingering = l.lingering[1:]
	}
	l.timeOutPartials()
	l.endIdlePeeking()
	l.closeStuck()
	if l.counters.paused.Load() > 0 {
		l.countPaused(0)
	}
	l.turnBreakers()
	l.rearm = true
}
