package engine

import (
	"context"
	"log/slog"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// A circuit breaker keeps clients from waiting for a service that does not answer. There is one for each subject
// and loop, and only while requests to it fail:
//
//	closed     requests pass. BreakerThreshold failures in a row open it; a success ends it.
//	open       requests are refused at once, for BreakerOpenTime.
//	half-open  BreakerProbes requests at a time pass, as probes. BreakerSuccesses of them close it, and so end it;
//	           one that fails opens it again. While all of them wait, one more passes each BreakerOpenTime: a
//	           message that was lost must not keep the service shut out until its deadline.
//
// A deadline of at least BreakerMinTimeout that passed without a reply is a failure, and so is a lost connection to
// NATS, once for all the requests to a subject that it takes along. Any reply is a success, that of a server which
// knows nobody who listens as well. What was in flight when a breaker opened tells nothing about the time after:
// it counts neither way. A message that wants no reply is not counted, and never refused.

// verdict is what the outcome of a request says about its subject.
type verdict uint8

const (
	saysNothing verdict = iota
	success
	failure
)

var verdicts = func() (table [CodeCount]verdict) {
	table[outcomeOK] = success
	for _, code := range []codec.ErrorCode{codec.CodeServiceError, codec.CodeNoResponders, codec.CodeFrameTooLarge} {
		table[outcomeOf(code)] = success
	}
	table[outcomeOf(codec.CodeTimeout)] = failure
	table[outcomeOf(codec.CodeConnectionClosed)] = failure
	return table
}()

// breakerRefuses answers a frame whose subject has a breaker that does not let it pass.
func (l *loop) breakerRefuses(s *session, f *codec.Frame, label uint8, subject []byte, mode Mode) bool {
	if l.breakers.tracked == 0 || mode == ModePublish {
		return false
	}
	e := l.breakers.find(hashSubject(subject))
	if e == nil {
		return false
	}
	e.learn(subject)
	wait := l.breakerWait(e)
	if wait <= 0 {
		return false
	}
	l.counters.breakerRefused.Add(1)
	message := "requests to the subject go unanswered: its circuit breaker is open"
	if e.state == BreakerHalfOpen {
		message = "requests to the subject went unanswered: its circuit breaker is trying whether that is over"
	}
	l.scratch = codec.AppendRetryError(l.scratch[:0], codec.CodeUnavailable, message, false, (wait+999_999)/1_000_000)
	l.answerFrame(s, f, label, outcomeOf(codec.CodeUnavailable), codec.TypeResponseError, l.scratch)
	return true
}

// shutOut reports whether f would be refused by the breaker of its subject, for which it need not wait.
func (l *loop) shutOut(f *codec.Frame) bool {
	if l.breakers.tracked == 0 || f.Flags&codec.FlagNoReply != 0 {
		return false
	}
	route := &l.policy.routes[labels[f.Type]]
	if route.mode == ModePublish && !l.isDurable(f) {
		return false
	}
	subject := f.Subject
	if len(subject) == 0 {
		subject = route.subject
	}
	e := l.breakers.find(hashSubject(subject))
	return e != nil && l.breakerWait(e) > 0
}

// breakerWait returns 0 if a request may pass e now, else how long its client should wait, in nanoseconds.
func (l *loop) breakerWait(e *breaker) int64 {
	switch e.state {
	case BreakerOpen:
		if l.now < e.until {
			return e.until - l.now
		}
		l.halfOpen(e)
	case BreakerHalfOpen:
		if int(e.probes) >= l.policy.BreakerProbes && l.now < e.until {
			// A probe may be answered any moment.
			return min(e.until-l.now, int64(l.policy.BreakerOpenTime)/10)
		}
	}
	return 0
}

// watchOutcome notes the subject of a fresh request, and makes its outcome count for it if there are breakers.
func (l *loop) watchOutcome(r *request, subject []byte, mode Mode) {
	if mode == ModePublish {
		return
	}
	r.subject = hashSubject(subject)
	if l.policy.BreakerThreshold == 0 {
		return
	}
	r.watched |= watchedByBreaker
	l.breakers.recent.remember(r.subject, subject)
	if l.breakers.tracked == 0 {
		return
	}
	if e := l.breakers.find(r.subject); e != nil && e.state == BreakerHalfOpen {
		r.probe = e.generation
		e.probes++
		e.until = l.now + int64(l.policy.BreakerOpenTime)
	}
}

// judge counts the outcome of a request for its subject.
func (l *loop) judge(r *request, outcome uint8) {
	v := verdicts[outcome]
	if r.watched&watchedByBreaker == 0 || l.breakers.tracked == 0 && v != failure {
		return
	}
	switch {
	case v == success:
		l.succeeded(r)
	case v == failure && l.policy.BreakerThreshold != 0:
		l.failed(r, outcome == outcomeOf(codec.CodeConnectionClosed))
	}
	l.withdraw(r)
}

// withdraw makes the outcome of a request say nothing about its subject.
func (l *loop) withdraw(r *request) {
	if r.probe != 0 {
		if e := l.breakers.find(r.subject); e != nil && e.state == BreakerHalfOpen && e.generation == r.probe {
			e.probes--
		}
	}
	r.watched, r.probe = r.watched&^watchedByBreaker, 0
}

func (l *loop) succeeded(r *request) {
	e := l.breakers.find(r.subject)
	switch {
	case e == nil:
	case e.state == BreakerClosed:
		l.breakers.remove(e)
	case e.state == BreakerHalfOpen && e.generation == r.probe:
		e.successes++
		if int(e.successes) >= l.policy.BreakerSuccesses {
			l.closeBreaker(e)
		}
	}
}

// failed counts a failure. lost says that it came of a lost connection.
func (l *loop) failed(r *request, lost bool) {
	e := l.breakers.find(r.subject)
	if e == nil {
		if e = l.breakers.add(r.subject); e == nil {
			return
		}
	}
	switch {
	case e.state == BreakerHalfOpen && e.generation == r.probe:
		e.failures++
		l.openBreaker(e)
	case e.state == BreakerClosed && (!lost || e.loss != l.breakers.losses):
		if lost {
			e.loss = l.breakers.losses
		}
		e.failures++
		l.breakers.touch(e)
		if int(e.failures) >= l.policy.BreakerThreshold {
			l.openBreaker(e)
		}
	}
}

func (l *loop) openBreaker(e *breaker) {
	b, level := l.breakers, slog.LevelDebug
	if e.state == BreakerClosed {
		level = slog.LevelWarn
	}
	b.generation++
	e.generation, e.probes, e.successes = b.generation, 0, 0
	e.until = l.now + int64(l.policy.BreakerOpenTime)
	if b.dueAt == 0 || e.until < b.dueAt {
		b.dueAt = e.until
	}
	l.rearm = true
	l.enterState(e, BreakerOpen)
	l.log.Log(context.Background(), level, "circuit breaker is open: requests to the subject go unanswered, and are refused for a while",
		"subject", e.String(), "failures", e.failures, "open_time", l.policy.BreakerOpenTime)
}

func (l *loop) halfOpen(e *breaker) {
	l.enterState(e, BreakerHalfOpen)
	l.log.Debug("circuit breaker is half-open: the next requests are probes", "subject", e.String())
}

// closeBreaker ends a breaker, and forgets the requests that were in flight since before it opened.
func (l *loop) closeBreaker(e *breaker) {
	l.slots.Each(func(_ pool.Handle, r *request) {
		if r.subject == e.hash && r.probe != e.generation {
			r.watched, r.probe = r.watched&^watchedByBreaker, 0
		}
	})
	l.enterState(e, BreakerClosed)
	l.log.Info("circuit breaker is closed: requests to the subject are answered again", "subject", e.String())
	l.breakers.remove(e)
}

func (l *loop) enterState(e *breaker, state BreakerState) {
	l.breakers.setState(e, state)
	l.counters.breakerTransitions[state].Add(1)
}

// turnBreakers makes those breakers half-open whose time has come.
func (l *loop) turnBreakers() {
	b := l.breakers
	if b.dueAt == 0 || l.now < b.dueAt {
		return
	}
	b.dueAt = 0
	for i := range b.entries[1:] {
		e := &b.entries[1+i]
		switch {
		case e.state != BreakerOpen:
		case e.until <= l.now:
			l.halfOpen(e)
		case b.dueAt == 0 || e.until < b.dueAt:
			b.dueAt = e.until
		}
	}
}

// followBreakers makes the breakers go on by a new policy.
func (l *loop) followBreakers() {
	if l.policy.BreakerThreshold != 0 {
		return
	}
	if l.breakers.tracked > 0 {
		l.log.Info("circuit breakers are switched off", "dropped", l.breakers.tracked)
		l.breakers.clear()
	}
	l.slots.Each(func(_ pool.Handle, r *request) { l.withdraw(r) })
}

// BreakerInfo describes the circuit breaker of one subject in one loop. Only subjects with recent failures have one.
type BreakerInfo struct {
	Loop     int
	Subject  string // its first 96 bytes; empty if more subjects are in use than are remembered
	State    BreakerState
	Failures int       // in a row
	Until    time.Time // open: when it will be half-open; else zero
}

// Breakers lists the circuit breakers of all loops. If loops do not answer before ctx ends, the error names them, and the
// rest is returned.
func (g *Gateway) Breakers(ctx context.Context) ([]BreakerInfo, error) {
	return gather(ctx, g, func(l *loop) []BreakerInfo { return l.listBreakers() })
}

func (l *loop) listBreakers() (list []BreakerInfo) {
	b := l.breakers
	for _, head := range b.buckets {
		for n := head; n != 0; n = b.entries[n].chain {
			e := &b.entries[n]
			info := BreakerInfo{Loop: l.index, Subject: e.String(), State: e.state, Failures: int(e.failures)}
			if e.state == BreakerOpen {
				info.Until = l.gateway.started.Add(time.Duration(e.until))
			}
			list = append(list, info)
		}
	}
	return list
}
