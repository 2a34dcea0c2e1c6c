package engine

import (
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// Answers of version 1 that are ready before their turn wait for a slower request, not for the client: it could not
// take them if it wanted to. They are counted in session.orderBytes as well, until they may be written, and close nobody. Like
// all bytes that wait they pause the client. What is in flight then may still be answered, up to a bound.

const (
	// orderFactor times MaxClientBufferBytes is what may wait for its turn. A reply over it is not kept: its client is
	// told so in its place.
	orderFactor = 4
	// smallAnswerBytes is the size up to which an answer is kept in any case: an error in its place is no smaller.
	smallAnswerBytes = 512
)

// mayWaitForTurn reports whether there is room for an answer of so many bytes to r, should it have to wait for its turn.
func (l *loop) mayWaitForTurn(h pool.Handle, r *request, bytes int) bool {
	s := r.session
	return r.version != codec.Version1 || s.orderFirst == h.Index()+1 || bytes <= smallAnswerBytes ||
		s.orderBytes+bytes <= orderFactor*l.policy.MaxClientBufferBytes
}

// nextTurn ends the first version 1 request in order, whose answer is in out, and every one behind
// it that is answered already.
func (l *loop) nextTurn(s *session) {
	for {
		h, r := l.slots.At(s.orderFirst - 1)
		if r.answer != nil {
			out := l.outBuffer(s)
			out.B = append(out.B, r.answer.B...)
		}
		if r.trailing != nil {
			out := l.outBuffer(s)
			out.B = append(out.B, r.trailing.B...)
		}
		s.orderFirst = r.orderNext
		l.releaseRequest(h, r)
		if s.orderFirst == 0 {
			s.orderLast = 0
			return
		}
		if _, r = l.slots.At(s.orderFirst - 1); r.state != waitsForTurn {
			return
		}
	}
}
