package engine

import "time"

// A client that sends without end fills every queue behind the gateway, and all others wait in them. So shares are
// limited, but only where it helps: while one client takes far more than the others, *and* the others' requests take
// longer for it. What a service is slow with by itself is nobody's fault, and slows nobody down.
//
// Time goes in ticks, and rounds of them. The share of a tick is twice what the average client had served in a tick of the
// round before, what is over the share not counted. A client that has more in a round than its share is greedy. As long
// as none is, the loop learns how long requests to each subject take. Once one is, the requests of the others are
// compared with that: if they take a quarter longer, every client gets its share in a tick, and no more, for a while. Then
// the limit is lifted step by step, until the others suffer again, or it is gone. The more often that comes to nothing,
// the longer the while.

const (
	fairTick = int64(250 * time.Microsecond)
	// shareMin is the share, in frames of up to costBytes bytes, below which nobody is limited.
	shareMin  = 1
	costBytes = 4096
	// roundTicks are the ticks of a round. A client also counts as greedy for so many after it was: its requests are
	// still in flight.
	roundTicks = 128

	// A comparison takes sampleCount requests; or what comes in sampleTime, if that is sampleMin at least; or fewer that
	// take many times as long as usual: sampleSoon and sampleSooner.
	sampleCount  = 128
	sampleSoon   = 32 // that take twice as long
	sampleMin    = 16
	sampleSooner = 8 // that take four times as long
	sampleTime   = int64(20 * time.Millisecond)

	// harmNumerator/harmDenominator is how many times as long requests take that suffer.
	harmNumerator, harmDenominator = 5, 4
	// usualWeight is that of one request in what is usual: 1/usualWeight.
	usualWeight = 256
	// subjectsKept is how many subjects are told apart, by their hash.
	subjectsKept = 256

	// limitMin and limitMax bound how long shares are limited at a time.
	limitMin, limitMax = int64(50 * time.Millisecond), int64(3200 * time.Millisecond)
	// slackMax is how many shares a client gets in the last step before the limit is gone.
	slackMax = 1024
)

// fairness is what a loop knows about who takes how much.
type fairness struct {
	tick     uint32 // counts on with each tick, and begins at 1
	tickEnds int64  // nanoseconds since Gateway.started, as all times here
	round    uint32 // tick in which it began
	share    int    // of a client in a tick of this round
	clients  int    // that had something served in this round
	served   int    // for them, up to the share of each
	crowded  bool   // there was more than one client in the round before

	greedyAt uint32 // the last tick in which a client was greedy

	usual  [subjectsKept]int64 // how long requests take, by hash of the subject; 0: not known
	took   int64               // the requests of the comparison, together
	should int64               // what is usual for them
	sample int                 // their number
	untold int                 // requests for which nothing is usual yet
	since  int64               // begin of the comparison

	slack  int   // shares that a client may have in a tick; 0: any number
	until  int64 // when the slack grows
	limit  int64 // how long shares are limited the next time
	parked []*session
}

// mayHave reports whether s may have a frame of so many bytes served in this tick. If not it is paused until the next one.
func (l *loop) mayHave(s *session, bytes int) bool {
	f := &l.fair
	if s.fairTick != f.tick {
		s.fairTick, s.tickServed = f.tick, 0
	}
	if s.fairRound != f.round {
		s.fairRound, s.roundServed = f.round, 0
		f.clients++
	}
	cost := 1 + bytes/costBytes
	if f.slack > 0 && (f.crowded || f.clients > 1) && s.tickServed >= f.share*f.slack {
		l.pause(s, pausedForTurn)
		f.parked = append(f.parked, s)
		l.rearm = true
		return false
	}
	s.tickServed += cost
	s.roundServed += cost
	if s.roundServed <= f.share*roundTicks {
		f.served += cost
	} else {
		s.greedyAt, f.greedyAt = f.tick, f.tick
	}
	return true
}

// turnTick begins a new tick if it is time.
func (l *loop) turnTick() {
	f := &l.fair
	if l.now < f.tickEnds {
		return
	}
	f.tick++
	f.tickEnds = l.now + fairTick
	if f.tick-f.round >= roundTicks {
		f.share = max(shareMin, 2*f.served/(max(f.clients, 1)*roundTicks))
		f.round, f.crowded = f.tick, f.clients > 1
		f.clients, f.served = 0, 0
	}
	if f.slack > 0 && l.now >= f.until {
		l.loosen()
	}
	for _, s := range f.parked {
		l.resume(s, pausedForTurn)
	}
	clear(f.parked)
	f.parked = f.parked[:0]
}

// loosen is one step towards no limit.
func (l *loop) loosen() {
	f := &l.fair
	if f.slack *= 2; f.slack > slackMax {
		f.slack = 0
		f.limit = max(f.limit/2, limitMin)
	}
	f.until = l.now + sampleTime
	l.compareAnew()
}

// noteReply takes a request of s that was answered by NATS into the comparison, and learns from it.
func (l *loop) noteReply(s *session, r *request) {
	f := &l.fair
	if f.isGreedy(s) {
		return
	}
	took := max(l.now-r.startedAt, 1)
	usual := &f.usual[r.subject%subjectsKept]
	if *usual == 0 {
		f.untold++
		if l.isFair() {
			*usual = took
		}
	} else {
		f.took += took
		f.should += *usual
		f.sample++
		if l.isFair() {
			*usual += (took - *usual) / usualWeight
		}
	}
	n := f.sample + f.untold
	soon := f.sample >= sampleSoon && f.took > 2*f.should || f.sample >= sampleSooner && f.took > 4*f.should
	if soon || n >= sampleCount || n >= sampleMin && l.now-f.since >= sampleTime {
		l.compare()
	}
}

// isGreedy reports whether s had too much a short while ago.
func (f *fairness) isGreedy(s *session) bool { return f.tick-s.greedyAt < roundTicks }

// isFair reports whether requests take as long as they should now: nobody is greedy, or those who are get their share, and
// what they had before that is done with.
func (l *loop) isFair() bool {
	f := &l.fair
	return f.tick-f.greedyAt >= roundTicks || f.slack == 1 && f.until-l.now < f.limit-sampleTime
}

// compare ends a comparison, and limits shares if others suffer from a client that is greedy.
func (l *loop) compare() {
	f := &l.fair
	greedy := f.tick-f.greedyAt < roundTicks
	suffers := f.took*harmDenominator > f.should*harmNumerator
	unknown := f.untold > f.sample
	if greedy && (suffers || unknown) && f.slack != 1 {
		f.limit = min(max(2*f.limit, limitMin), limitMax)
		f.slack, f.until = 1, l.now+f.limit
	}
	l.compareAnew()
}

func (l *loop) compareAnew() {
	f := &l.fair
	f.took, f.should, f.sample, f.untold, f.since = 0, 0, 0, 0, l.now
}
