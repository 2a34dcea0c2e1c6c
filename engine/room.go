package engine

import (
	"math"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// A frame for which there is no room waits, with all that its client sent behind it, until there is. What is
// short for many clients has a gate: it closes when there is no room, and opens again when there is some, so that
// clients go on in turns and many frames at a time. A client waits for Config.PauseMax at most: from then
// on its frames are refused, until there is room for one. A frame whose deadline passes meanwhile is answered TIMEOUT, and never sent.

const (
	// waitingLookEvery is how often, in nanoseconds, it is looked whether clients that wait can go on. What their
	// own loop does is seen at once; this is for what other loops give back, and for PauseMax.
	waitingLookEvery = int64(5 * time.Millisecond)

	// A session is paused while more than MaxClientBufferBytes/answersHighPart bytes wait for its client, until
	// less than MaxClientBufferBytes/answersLowPart do. What is in flight then has the rest for its answers.
	answersHighPart, answersLowPart = 2, 4

	// Frames wait while more than MaxUpstreamBufferBytes/upstreamHighPart bytes wait for NATS, until less than
	// MaxUpstreamBufferBytes/upstreamLowPart do: more would be no faster. The rest is for those that have waited too long.
	upstreamHighPart, upstreamLowPart = 16, 32
)

// forNATS tells the frame types that need room.
var forNATS = [256]bool{
	codec.TypeTaskSubmit: true, codec.TypeTaskQuery: true, codec.TypeTaskCancel: true,
	codec.TypePublish: true, codec.TypeRequest: true,
}

// mustWait pauses s if there is no room for f now and it is worth waiting for. Then f is to be kept.
func (l *loop) mustWait(s *session, f *codec.Frame) bool {
	if !forNATS[f.Type] {
		return false
	}
	if l.policy.PauseMax == 0 || l.draining || !l.link.Ready() || l.shutOut(f) {
		s.waitingSince, s.impatient = 0, false // its wait is over: the next one begins anew
		return false
	}
	if l.isOverdue(f) {
		s.waitingSince = 0
		return false
	}
	why := l.noRoom(s, f)
	if why == 0 {
		s.waitingSince, s.impatient = 0, false
		return false
	}
	if s.impatient {
		return false
	}
	if s.waitingSince == 0 {
		s.waitingSince = l.now
	}
	s.waitingUntil = math.MaxInt64
	if f.Flags&codec.FlagNoReply == 0 {
		s.waitingUntil = l.deadlineOf(f)
	}
	l.pause(s, why)
	if !s.waits {
		s.waits = true
		l.waiting = append(l.waiting, s)
		l.rearm = true
	}
	return true
}

// noRoom says what f would have to wait for, and closes the gate where there is one.
func (l *loop) noRoom(s *session, f *codec.Frame) (why pauseReasons) {
	if l.audit != nil && l.auditMustWait(f) {
		return pausedAudit
	}
	if f.Flags&codec.FlagNoReply == 0 {
		switch {
		case s.inflight >= l.policy.MaxInflightPerConnection:
			return pausedInflight
		case l.gates&pausedGateway != 0:
			return pausedGateway
		case !l.budget.reserve():
			l.gates |= pausedGateway
			l.budget.shared.starving.Add(1)
			l.gateway.wakeLoops(l) // some may have some in hand
			return pausedGateway
		}
	}
	if l.gates&pausedUpstream != 0 {
		return pausedUpstream
	}
	bytes := len(f.Subject) + len(f.Headers) + len(f.Payload)
	if waiting := l.link.PendingBytes(); waiting > 0 && waiting+bytes+upstreamOverhead > l.policy.MaxUpstreamBufferBytes/upstreamHighPart {
		l.gates |= pausedUpstream
		return pausedUpstream
	}
	if held := l.durable.heldBytes; held > 0 && held+bytes+upstreamOverhead > l.policy.MaxHeldBytes && l.isDurable(f) {
		l.gates |= pausedJetStream
		return pausedJetStream
	}
	if f.Flags&codec.FlagNoReply == 0 && !l.reservePeer(s) {
		return pausedPeer
	}
	return 0
}

// reservePeer makes sure that publish can take a request of s into flight by the rule of its peer, whatever other loops
// do meanwhile; giveReserved must follow.
func (l *loop) reservePeer(s *session) bool {
	if s.rule.inflightMax == 0 {
		return true
	}
	l.peerReserved = s.rule.state.takeInflight(s.rule.inflightMax)
	return l.peerReserved
}

// takePeer takes a request of s into flight by the rule of its peer, or counts that there are too many.
func (l *loop) takePeer(s *session) bool {
	if l.peerReserved {
		l.peerReserved = false
		return true
	}
	return s.rule.takeInflight()
}

// giveReserved gives back what reservePeer took and publish had no use for.
func (l *loop) giveReserved(s *session) {
	if l.peerReserved {
		l.peerReserved = false
		s.rule.giveInflight()
	}
}

// upstreamOverhead is more than what a message has beside subject, headers and payload, where the route's subject is
// what is sent: the names of PUB and HPUB, the reply subject, lengths, line ends, and the longest id that we give.
const upstreamOverhead = 512

// isDurable reports whether f waits for an acknowledgement of JetStream.
func (l *loop) isDurable(f *codec.Frame) bool {
	if f.Flags&codec.FlagNoReply != 0 {
		return false
	}
	if l.policy.routes[labels[f.Type]].mode == ModeJetStream {
		return true
	}
	return f.Type == codec.TypePublish && l.wantsAck(f)
}

// wakeLoops wakes all loops but one.
func (g *Gateway) wakeLoops(but *loop) {
	for _, l := range g.loops {
		if l != but {
			l.Wake()
		}
	}
}

// openGates opens the gates behind which there is room again, and reports whether it did.
func (l *loop) openGates() bool {
	before := l.gates
	if l.gates&pausedGateway != 0 && l.budget.available() >= max(1, int64(l.gateway.cfg.MaxInflight/16)) {
		l.gates &^= pausedGateway
		l.budget.shared.starving.Add(-1)
		l.gateway.wakeLoops(l)
	}
	if l.gates&pausedUpstream != 0 && l.link.PendingBytes() <= l.policy.MaxUpstreamBufferBytes/upstreamLowPart {
		l.gates &^= pausedUpstream
	}
	if l.gates&pausedJetStream != 0 && l.durable.heldBytes <= l.policy.MaxHeldBytes/4*3 {
		l.gates &^= pausedJetStream
	}
	if l.gates&pausedAudit != 0 && l.audit.Roomy() {
		l.gates &^= pausedAudit
	}
	return l.gates != before
}

// resumeWaiting lets go on who can, in the order in which they came, and who has waited for too long, or until the
// deadline of its frame.
func (l *loop) resumeWaiting() {
	opened := l.openGates()
	if len(l.waiting) == 0 {
		return
	}
	hopeless := l.draining || !l.link.Ready() // they are to be told so
	if !opened && !hopeless && l.now < l.waitingLook {
		return
	}
	l.waitingLook = l.now + waitingLookEvery
	l.rearm = true
	kept := l.waiting[:0]
	for _, s := range l.waiting {
		free := l.freed(s)
		if hopeless {
			free = pausedForRoom
		}
		if s.doomed || s.paused&pausedForRoom&^free == 0 {
			s.waits = false
			l.resume(s, pausedForRoom)
			continue
		}
		kept = append(kept, s)
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
}

// freed returns the reasons for which s needs to wait no longer.
func (l *loop) freed(s *session) pauseReasons {
	if l.now >= s.waitingUntil {
		return pausedForRoom
	}
	if l.now-s.waitingSince >= int64(l.policy.PauseMax) {
		s.impatient = true
		return pausedForRoom
	}
	free := (pausedGateway | pausedUpstream | pausedJetStream | pausedAudit) &^ l.gates
	if s.inflight <= l.inflightLow() {
		free |= pausedInflight
	}
	if !s.rule.inflightFull() {
		free |= pausedPeer
	}
	return free
}

// inflightLow is the number of requests in flight from which on a connection that had too many is read again.
func (l *loop) inflightLow() int {
	most := l.policy.MaxInflightPerConnection
	return most - max(1, most/4)
}

// noteAnswered lets s go on if it was paused because of its own requests in flight, and few are left.
func (l *loop) noteAnswered(s *session) {
	if s.paused&pausedInflight != 0 && s.inflight <= l.inflightLow() {
		l.resume(s, pausedInflight)
	}
}

// noteBuffered pauses s when many bytes wait for its client, and lets it go on when few do.
func (l *loop) noteBuffered(s *session) {
	switch {
	case s.bufferedBytes > l.policy.MaxClientBufferBytes/answersHighPart:
		if s.paused&pausedAnswers == 0 && !s.finishing {
			l.pause(s, pausedAnswers)
		}
	case s.paused&pausedAnswers != 0 && s.bufferedBytes < l.policy.MaxClientBufferBytes/answersLowPart:
		l.resume(s, pausedAnswers)
	}
}
