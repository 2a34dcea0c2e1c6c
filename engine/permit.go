package engine

import (
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// mayPublish reports whether the client of s may publish to a valid subject. The subject of a route is the
// operator's choice: a rule that lists subjects has to list it, and it is reserved to nobody else.
func (l *loop) mayPublish(s *session, label uint8, subject []byte, ofRoute bool) bool {
	if ofRoute {
		return s.rule.routes[label]
	}
	return l.permitted(s.rule.publish, subject)
}

// permitted reports whether a list, or if there is none the default, lets a valid subject or pattern through.
func (l *loop) permitted(list *subjectSet, subject []byte) bool {
	class := l.gateway.reserved.classOf(subject)
	if list == nil {
		return class == 0
	}
	return list.covers(subject, class)
}

// refuseSubject answers a frame whose client may not publish to its subject, or reach others by its headers.
func (l *loop) refuseSubject(s *session, f *codec.Frame, label uint8, why string) {
	s.rule.state.refusals[refusedSubject].Add(1)
	l.refusePublish(s, f, label, codec.CodeUnauthorized, why)
}

// subscribe answers SUBSCRIBE: those who may not subscribe there are told so, and those who may, that
// it is not served.
func (l *loop) subscribe(s *session, f *codec.Frame, label uint8) {
	if f.Version == codec.Version2 && codec.ValidatePattern(f.Subject) == nil && !l.permitted(s.rule.subscribe, f.Subject) {
		s.rule.state.refusals[refusedSubject].Add(1)
		l.refuse(s, f, label, codec.CodeUnauthorized, "this client may not subscribe to the subject")
		return
	}
	l.refuse(s, f, label, codec.CodeInvalidType, notServed)
}

// takeRate admits one frame that goes to NATS now, or counts that it comes too early.
func (r *peerRule) takeRate(now int64) bool {
	if r.rateInterval == 0 || r.state.takeRate(now, r.rateInterval, r.rateTolerance) {
		return true
	}
	r.state.refusals[refusedRate].Add(1)
	return false
}

// takeInflight admits one more request in flight, or counts that there are too many.
func (r *peerRule) takeInflight() bool {
	if r.inflightMax == 0 || r.state.takeInflight(r.inflightMax) {
		return true
	}
	r.state.refusals[refusedInflight].Add(1)
	return false
}

// inflightFull reports whether takeInflight would not admit a request.
func (r *peerRule) inflightFull() bool {
	return r.inflightMax != 0 && r.state.inflight.Load() >= r.inflightMax
}

// giveInflight ends what takeInflight admitted.
func (r *peerRule) giveInflight() { r.countInflight(-1) }

// countInflight counts requests that are in flight whatever the bound is.
func (r *peerRule) countInflight(n int) {
	if r.inflightMax != 0 {
		r.state.inflight.Add(int64(n))
	}
}

// boundRates makes the rates of a new policy count from now on. Every loop does it, so that nothing remains of what others
// have admitted meanwhile by the rates of before. Where those were the same it changes nothing, as l.now is not what it goes by: by
// that some loop may be ahead.
func (l *loop) boundRates() {
	now := int64(time.Since(l.gateway.started))
	for _, r := range l.policy.peers.rules {
		if r.rateInterval != 0 {
			r.state.boundRate(now, r.rateInterval, r.rateTolerance)
		}
	}
}

// applyRules gives every session its rule of a new policy.
func (l *loop) applyRules() {
	closed := 0
	for _, s := range l.watch.sessions {
		if s != nil && l.applyRule(s) {
			closed++
		}
	}
	if closed > 0 {
		l.log.Warn("clients are closed that may not connect any more", "clients", closed)
	}
}

// applyRule gives s its rule of the loop's policy, and takes along what is counted of it. A client that
// may not connect any more is told so and closed, once what is in flight is answered.
func (l *loop) applyRule(s *session) (closed bool) {
	before := s.rule
	if before.table == l.policy.peers {
		return false
	}
	s.rule = l.policy.peers.ruleFor(s.peer, s.fd)
	before.countInflight(-s.inflight)
	s.rule.countInflight(s.inflight)
	before.state.connections.Add(-1)
	s.rule.state.connections.Add(1)
	return l.turnOut(s)
}

// turnOut tells a client that may not connect, and yet has, that it may not, and closes it once what is in flight is answered.
func (l *loop) turnOut(s *session) (closed bool) {
	if !s.rule.refused || s.finishing || s.doomed {
		return false
	}
	f := codec.Frame{Version: codec.Version1}
	l.readAt = l.now
	l.refuse(s, &f, labelInvalid, codec.CodeUnauthorized, s.rule.whyRefused(s.peer))
	s.finish()
	return true
}
