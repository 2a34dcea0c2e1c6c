package engine

// A session is paused while it makes no sense to take more from its client: what the client sent then waits
// in its socket, and the client itself waits once that is full. Nothing is refused, and nothing lost. room.go
// says when that is.

// pauseReasons says why a session is not read. There may be several reasons at a time.
type pauseReasons uint16

const (
	// pausedInflight: the connection has as many requests in flight as it may.
	pausedInflight pauseReasons = 1 << iota
	// pausedPeer: the clients under the same rule have.
	pausedPeer
	// pausedGateway: all clients together have.
	pausedGateway
	// pausedUpstream: as many bytes as may wait for NATS.
	pausedUpstream
	// pausedJetStream: as many bytes as may wait for acknowledgements.
	pausedJetStream
	// pausedAnswers: the client does not read its answers, or they wait for an earlier one.
	pausedAnswers
	// pausedHandover: the client is to be passed to another process.
	pausedHandover
	// pausedForTurn: the client has had its share for now, see fair.go.
	pausedForTurn
	// pausedAudit: the audit log takes no more records.
	pausedAudit

	// pausedUntilServed is set while a session that may go on has frames left that were read before. It
	// is not counted as a pause.
	pausedUntilServed

	// pausedForRoom are the reasons that another client's progress, or time, takes away.
	pausedForRoom = pausedInflight | pausedPeer | pausedGateway | pausedUpstream | pausedJetStream | pausedAudit
	// pausedForReal are those that are counted.
	pausedForReal = pausedForRoom | pausedAnswers | pausedHandover | pausedForTurn
)

// PauseLabels names the reasons for Stats.Pauses, in its order, which is that of the bits of pauseReasons.
var PauseLabels = [PauseCount]string{"inflight", "peer", "gateway", "upstream", "jetstream", "answers", "handover", "turn", "audit"}

// PauseCount is the number of reasons to pause a client.
const PauseCount = 9

// pausedCountEvery is how often, in nanoseconds, the time that clients are paused is added up at least.
const pausedCountEvery = int64(1e9)

// pause stops reading from s, and serving what was read, until resume has taken back every reason.
func (l *loop) pause(s *session, why pauseReasons) {
	l.touch(s)
	fresh := why &^ s.paused
	if s.paused&pausedForReal == 0 && why&pausedForReal != 0 {
		l.countPaused(+1)
	}
	s.paused |= why
	for i := range PauseCount {
		if fresh&(1<<i) != 0 {
			l.counters.pauses[i].Add(1)
		}
	}
}

// resume takes back reasons to pause s. If none is left, s goes on in the next pass.
func (l *loop) resume(s *session, why pauseReasons) {
	before := s.paused
	s.paused &^= why
	if before&pausedForReal != 0 && s.paused&pausedForReal == 0 {
		l.countPaused(-1)
	}
	if before != 0 && s.paused == 0 {
		// The frames that were read already come first. Here it may be too early for them: callers of
		// this may be in the middle of a delivery.
		l.serveLater(s)
	}
}

// endPause forgets the pause of a session that is not read any more.
func (l *loop) endPause(s *session) {
	if s.paused&pausedForReal != 0 {
		l.countPaused(-1)
	}
	s.paused = 0
}

// countPaused counts sessions that begin or end to be paused, and adds up the time that sessions were paused
// until now.
func (l *loop) countPaused(change int64) {
	paused := l.counters.paused.Load()
	l.counters.pausedNanos.Add(uint64(paused * (l.now - l.pausedCounted)))
	l.pausedCounted = l.now
	if change != 0 {
		l.counters.paused.Store(paused + change)
		l.rearm = true
	}
}

// serveLater has what s has left served in the next pass. Until then nothing is read.
func (l *loop) serveLater(s *session) {
	s.paused |= pausedUntilServed
	l.resumed = append(l.resumed, s)
}

// serveResumed serves what sessions that were paused have left, and lets them be read again.
func (l *loop) serveResumed() {
	n := len(l.resumed) // those that come to it now are for the next pass
	for _, s := range l.resumed[:n] {
		if s.doomed || s.paused&pausedUntilServed == 0 {
			continue
		}
		s.paused &^= pausedUntilServed
		l.touch(s)
		if s.paused == 0 && s.in != nil {
			l.serveHeld(s)
		}
	}
	left := copy(l.resumed, l.resumed[n:])
	clear(l.resumed[left:])
	l.resumed = l.resumed[:left]
}
