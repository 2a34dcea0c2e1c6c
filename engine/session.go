package engine

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/pool"
)

// lingerTime is how long a client whose connection was ended by us has to take its last answer and
// close. Closing at once, with bytes of the client unread, would turn the EOF into a reset.
const lingerTime = 2 * time.Second

// session is one client's connection. Its loop owns it, and its descriptor.
type session struct {
	loop *loop
	id   uint64 // unique in the gateway
	peer peerCredentials
	rule *peerRule // of loop.policy; what it counts is counted of s

	fd      int
	watched uint32 // the events that fd is watched for

	in            *pool.Buffer // the frame that is incomplete, or from inAt on all that was read and not served when s was paused; nil if there is nothing
	inAt          int          // 0 unless s is paused
	inReadAt      int64        // when the frames in it were read that are whole, in nanoseconds since Gateway.started
	out           *pool.Buffer // answers to be written, from outAt on; nil if none are
	outAt         int
	bufferedBytes int // answers in out and held in requests
	orderBytes    int // no more of them than came before their turn, and may still have to be written: see order.go

	requests   uint32 // first of the requests in flight, as slot index + 1
	inflight   int    // length of that list
	orderFirst uint32 // version 1 requests in the order in which they came, as slot index + 1
	orderLast  uint32

	// Of peek.go: frames, and their bytes, that were served and are still in the socket; reads up to now after which
	// the client waited for the answer; what comes is peeked; in peeker.sessions; when that was taken out because nothing more came,
	// in nanoseconds since Gateway.started, until the next read; how often in a row the client went on at once then.
	peekedFrames, peekedBytes int
	rhythm                    uint8
	peeks, inPeeker           bool
	takenAt                   int64
	stalls                    uint8

	usage sessionUsage // for the console

	// Of fair.go: the last tick, and the round, in which something was served, and how much; the last tick in which that was
	// too much.
	fairTick, fairRound, greedyAt uint32
	tickServed, roundServed       int

	tookAt int64 // when its client last took a part of an answer, in nanoseconds since Gateway.started

	waitingSince int64 // nanoseconds since Gateway.started, of the frame that waits for room; 0: there was room for the last one
	waitingUntil int64 // likewise, the deadline of that frame
	partialSince int64 // likewise, of the first byte of an incomplete frame

	paused     pauseReasons // why nothing is read and served; 0: it is
	waits      bool         // in loop.waiting
	impatient  bool         // has waited for too long: is refused until there is room
	inPartials bool         // in loop.partials
	inStuck    bool         // in loop.stuck

	dirty     bool // in loop.dirty
	blocked   bool // the socket takes no more; an event will tell when it does
	eof       bool // the client has shut down its writing side
	finishing bool // no more frames are read: what is in flight is answered, then the connection ends
	lingers   bool // the last answer is out, and the end of our stream with it
	doomed    bool // closed, or about to be: nothing is read or written any more
}

// lingerer is a session that is closed at until, if its client does not do it first.
type lingerer struct {
	until   int64 // nanoseconds since Gateway.started
	session *session
}

// open takes a connection, which the caller has counted, here and for its rule, and its descriptor into the
// loop.
func (l *loop) open(fd int, id uint64, peer peerCredentials, rule *peerRule) {
	s := &session{loop: l, id: id, peer: peer, rule: rule, fd: fd, watched: unix.EPOLLIN}
	s.usage.opened(l.now)
	l.enter(s, nil, nil)
}

// enter takes s, which nothing is in flight of, into the loop. in was read from it and is to be served, and out is to be
// written; both may be nil.
func (l *loop) enter(s *session, in, out []byte) {
	if err := l.watch.add(s.fd, s); err != nil {
		l.gateway.acceptErrors.Add(1)
		l.log.Error("client is closed: cannot watch its socket", "error", err)
		_ = unix.Close(s.fd)
		l.leave(s)
		return
	}
	l.follow()
	if len(out) > 0 {
		b := l.outBuffer(s)
		b.B = append(b.B, out...)
		s.bufferedBytes += len(out)
		l.buffered += len(out)
		l.noteBuffered(s)
	}
	// During a reload the rule may be newer than what the loop works by, or older.
	l.applyRule(s)
	// And of another process come clients that only that one lets connect.
	if l.turnOut(s) {
		l.log.Warn("client is closed that was taken over and may not connect here", "client", s.id, "peer", s.peer, "rule", s.rule.name)
	}
	if len(in) > 0 && !s.finishing {
		l.hold(s, in)
		l.serveLater(s)
	}
	l.touch(s)
}

// doom closes s at the end of the pass. Closing at once would pull the ground from under the
// work on s, and free a descriptor whose events of this pass are still to be looked at.
func (l *loop) doom(s *session) {
	if s.doomed {
		return
	}
	s.doomed = true
	l.doomed = append(l.doomed, s)
}

// reap closes the doomed sessions.
func (l *loop) reap() {
	for i := 0; i < len(l.doomed); i++ {
		s := l.doomed[i]
		l.doomed[i] = nil
		l.takePeeked(s) // a close with something unread would be a reset
		l.watch.remove(s.fd)
		_ = unix.Close(s.fd)
		l.release(s)
	}
	l.doomed = l.doomed[:0]
}

// waitsForAnswers reports whether anything is in flight or unwritten.
func (s *session) waitsForAnswers() bool { return s.inflight > 0 || s.out != nil }

// finish stops reading frames from s. The connection ends when everything in flight is answered.
func (s *session) finish() {
	l := s.loop
	s.finishing = true
	l.endPause(s)
	if s.in != nil {
		l.buffers.Release(s.in)
		s.in = nil
	}
	l.touch(s)
}

// touch makes sure that s is looked at in endPass.
func (l *loop) touch(s *session) {
	if !s.dirty {
		s.dirty = true
		l.dirty = append(l.dirty, s)
	}
}

// end runs when a finishing session has nothing left to be written. If the client can still write,
// it first sees the end of our stream, and has a moment to close by itself.
func (l *loop) end(s *session) {
	if s.eof {
		l.doom(s)
		return
	}
	if s.lingers {
		return
	}
	s.lingers = true
	if unix.Shutdown(s.fd, unix.SHUT_WR) != nil {
		l.doom(s)
		return
	}
	l.lingering = append(l.lingering, lingerer{until: l.now + int64(lingerTime), session: s})
	l.rearm = true
}

// release gives back all that s holds. Replies to its requests will find their slots gone.
func (l *loop) release(s *session) {
	for s.requests != 0 {
		h, r := l.slots.At(s.requests - 1)
		l.counters.abandoned.Add(1)
		l.releaseRequest(h, r)
	}
	l.counters.clientBytesDropped.Add(uint64(s.bufferedBytes))
	l.giveBuffers(s)
	l.leave(s)
}

// giveBuffers gives back the buffers of s with what is in them.
func (l *loop) giveBuffers(s *session) {
	if s.in != nil {
		l.buffers.Release(s.in)
	}
	if s.out != nil {
		l.buffers.Release(s.out)
	}
	s.in, s.out = nil, nil
	l.endPause(s)
	l.buffered -= s.bufferedBytes
	l.counters.clientBytesBuffered.Store(uint64(l.buffered))
	s.bufferedBytes, s.orderBytes = 0, 0
}

// leave counts a connection of this loop as gone.
func (l *loop) leave(s *session) {
	l.clients.Add(-1)
	l.gateway.connections.Add(-1)
	s.rule.state.connections.Add(-1)
}
