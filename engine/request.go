package engine

import (
	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// requestState says what a request in flight waits for.
type requestState uint8

const (
	waitsForReply requestState = iota // of NATS
	waitsForWrite                     // of its message to the NATS connection
	waitsForAck                       // of JetStream, for the message in held
	waitsForTurn                      // answered, behind earlier version 1 requests of its session
)

// watchers are those who are told when a request is over.
type watchers uint8

const (
	watchedByAudit   watchers = 1 << iota // the audit log has its beginning
	watchedByTrace                        // it has a span: see loop.span
	watchedByBreaker                      // its outcome counts for its subject
)

// request is a slot: one frame from its admission to its answer.
type request struct {
	session       *session
	correlationID uint64
	readAt        int64  // when its frame was read, in nanoseconds since Gateway.started; its clock runs since then
	startedAt     int64  // when it was taken into flight, likewise
	end           uint64 // offset of the message's end in the link's stream
	timeoutMs     uint32
	version       byte
	label         uint8 // index into TypeLabels
	state         requestState
	watched       watchers // who is told when it is over

	// Lists by slot index + 1; 0 ends them.
	previous, next uint32 // all requests of the session
	orderNext      uint32 // version 1 requests of the session, in the order in which they came

	probe   uint32 // the opening of a circuit breaker that this request is a probe of; 0: it is none
	subject uint64 // hash of its subject, if a reply is waited for

	held     heldMessage
	answer   *pool.Buffer // the answer frame, while it waits for its turn
	trailing *pool.Buffer // answers to later version 1 frames that did not need NATS
}

// pendingWrite is a publish-mode request in the order in which messages are written.
type pendingWrite struct {
	handle pool.Handle
	end    uint64
}

// timeoutOf returns how long f may take, in milliseconds.
func (l *loop) timeoutOf(f *codec.Frame) uint32 {
	if f.TimeoutMs != 0 {
		return min(f.TimeoutMs, uint32(TimeoutMax.Milliseconds()))
	}
	return l.policy.routes[labels[f.Type]].timeoutMs
}

// deadlineOf returns until when the frame that is being served is to be answered, in nanoseconds since Gateway.started.
func (l *loop) deadlineOf(f *codec.Frame) int64 { return l.readAt + int64(l.timeoutOf(f))*1_000_000 }

// isOverdue reports whether the deadline of the frame that is being served has passed while it waited.
func (l *loop) isOverdue(f *codec.Frame) bool {
	return l.readAt != l.now && f.Flags&codec.FlagNoReply == 0 && l.now >= l.deadlineOf(f)
}

// begin enters a fresh slot into the lists of its session, and arms its deadline. It has a session from when on it is to
// be answered.
func (l *loop) begin(h pool.Handle, r *request, s *session, f *codec.Frame, label uint8) {
	index := h.Index()
	if f.Version != codec.Version1 {
		l.addID(idKey{s.id, f.CorrelationID}, index)
	}
	r.session, r.correlationID, r.readAt, r.startedAt = s, f.CorrelationID, l.readAt, l.now
	r.timeoutMs, r.version, r.label = l.timeoutOf(f), f.Version, label
	r.next = s.requests
	if r.next != 0 {
		_, next := l.slots.At(r.next - 1)
		next.previous = index + 1
	}
	s.requests = index + 1
	s.inflight++
	if f.Version == codec.Version1 {
		if s.orderLast == 0 {
			s.orderFirst = index + 1
		} else {
			_, last := l.slots.At(s.orderLast - 1)
			last.orderNext = index + 1
		}
		s.orderLast = index + 1
	}
	at := l.deadlineOf(f)
	if r.held.bytes != nil {
		r.held.deadline = at
		at = l.ackDeadline(r, l.policy.AckWait)
	}
	l.setDeadline(index, at)
}

// giveSlot gives back the slot of a request that was not begun, and what was taken for it.
func (l *loop) giveSlot(h pool.Handle, r *request, s *session) {
	if r.held.bytes != nil {
		l.dropMessage(r)
	}
	l.slots.Release(h)
	l.budget.give()
	s.rule.giveInflight()
}

// releaseRequest takes a request out of everything it is in, but for the order of version 1, and
// gives its slot back.
func (l *loop) releaseRequest(h pool.Handle, r *request) {
	s, index := r.session, h.Index()
	l.deadlines.remove(index)
	if r.watched&watchedByTrace != 0 { // it was not answered
		l.endTrace(h, r, outcomeAbandoned, 0)
	}
	if r.version != codec.Version1 {
		l.removeID(idKey{s.id, r.correlationID}, index)
	}
	if r.previous != 0 {
		_, previous := l.slots.At(r.previous - 1)
		previous.next = r.next
	} else {
		s.requests = r.next
	}
	if r.next != 0 {
		_, next := l.slots.At(r.next - 1)
		next.previous = r.previous
	}
	s.inflight--
	s.rule.giveInflight()
	l.noteAnswered(s)
	if r.held.bytes != nil {
		l.dropMessage(r)
	}
	if r.probe != 0 {
		l.withdraw(r)
	}
	if r.watched&watchedByAudit != 0 { // it was not answered
		l.auditOver(h, r, audit.CodeAbandoned, 0)
	}
	for _, b := range [...]*pool.Buffer{r.answer, r.trailing} {
		if b != nil {
			l.buffers.Release(b)
		}
	}
	l.slots.Release(h)
	l.budget.give()
}
