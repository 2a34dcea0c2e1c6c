package engine

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/upstream"
)

// An answer is about one copy of a message. An acknowledgement settles the matter: it is stored. That a copy was refused does
// not, as long as another one is without an answer: that one may be stored, or be stored yet. The second copy may
// have come to a limit, or find that the last sequence is not the expected one any more, because of the first. So an
// error is the outcome only once every copy was refused; until then the message waits, to the deadline if need be.
//
// While the link moves from one server to another, both bring each answer, and which copy it is about is not told: of two
// refusals the second may be the first once more. Refusals of one of several copies do not count then.
//
// And some errors are no refusals at all, see refused.

const (
	// noStreamWait is the pause before a message that no stream took is sent again, and noStreamPatience
	// how long that may go on: a stream that elects a leader comes back, one that does not exist should be
	// told soon. nats.go waits as long, but gives up after two tries, which an election outlasts.
	noStreamWait     = 250 * time.Millisecond
	noStreamPatience = 2 * time.Second

	// refusedWaits times Config.AckWait is how long the answers to other copies are waited for before one more is sent. It is
	// more than 1, as their answers may come as far apart as they were sent: each sets the wait anew.
	refusedWaits = 2
)

// Codes of errors of JetStream, as err_code.
const (
	errCodeSequenceMismatch = 10063
	errCodeStoreFailed      = 10077
	errCodeDuplicate        = 10158
)

// storeClosed is the description of errCodeStoreFailed if a server that shuts down has closed the stream.
const storeClosed = "store is closed"

// ackError is what JetStream answers instead of an acknowledgement.
type ackError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// refused reports whether e says that the copy surely is not stored. These do not say it:
//
//   - "duplicate message id is in process": a copy with the same id was proposed to the replicas and is not committed yet,
//     as while there is no quorum. It may be a client's own, of an earlier request.
//   - "expected stream sequence does not match", and "store is closed": the leader could not apply what the replicas
//     have agreed on, and they may have stored it.
//
// All others come before the copy is proposed, or from a check in which all replicas agree: limits that are reached, of the
// stream, the account or the server ("insufficient resources", after which another leader is elected; "too many requests"),
// headers that are wrong or expect something else, a sealed stream. An offline stream does not listen: see noStream.
func (e *ackError) refused() bool {
	switch e.ErrCode {
	case errCodeDuplicate, errCodeSequenceMismatch:
		return false
	case errCodeStoreFailed:
		return e.Description != storeClosed
	}
	return true
}

// serviceCode is what the client is told: the code that tells most.
func (e *ackError) serviceCode() string {
	if e.ErrCode != 0 {
		return strconv.Itoa(e.ErrCode)
	}
	return strconv.Itoa(e.Code)
}

// acknowledge ends r with the reply that came for a copy of its message, or waits on.
func (l *loop) acknowledge(h pool.Handle, r *request, m *upstream.Message) {
	switch {
	case m.Status == statusNoResponders && len(m.Payload) == 0:
		l.noStream(h, r)
	case isAck(m.Payload):
		l.scratch = appendAck(l.scratch[:0], m.Payload)
		l.succeed(h, r, nil, l.scratch)
	default:
		l.refuseAck(h, r, m.Payload)
	}
}

// noStream waits for a stream that may come back. If a copy of the message was not told so, there was one, and it is
// waited for until the deadline. This answer comes once, also while the link moves: the server gives it to the connection
// that the copy came on.
func (l *loop) noStream(h pool.Handle, r *request) {
	r.held.refusals++
	if r.held.noStream == 0 {
		r.held.noStream = l.now
	}
	if r.held.refusals >= r.held.attempts && l.now >= r.held.noStream+int64(noStreamPatience) {
		l.fail(h, r, codec.CodeNoResponders, "no stream takes messages on the subject", true)
		return
	}
	l.awaitAck(h, r, noStreamWait)
}

// refuseAck ends r with an answer that is no acknowledgement, if that is the outcome.
func (l *loop) refuseAck(h pool.Handle, r *request, payload []byte) {
	var answer struct {
		Error ackError `json:"error"`
	}
	e := &answer.Error
	switch {
	case json.Unmarshal(payload, &answer) != nil || e.Code == 0:
		l.endRefused(h, r, "0", "the reply is no acknowledgement of JetStream: somebody else listens on the subject")
	case !e.refused():
		l.awaitAck(h, r, l.policy.AckWait)
	default:
		if r.held.attempts == 1 || !l.link.Overlaps() {
			r.held.refusals++
		}
		if r.held.refusals >= r.held.attempts {
			l.endRefused(h, r, e.serviceCode(), e.Description)
			return
		}
		l.awaitAck(h, r, refusedWaits*l.policy.AckWait)
	}
}

// endRefused ends r with an error of JetStream.
func (l *loop) endRefused(h pool.Handle, r *request, code, message string) {
	l.scratch = codec.AppendServiceError(l.scratch[:0], []byte(code), []byte(message))
	if l.replyFits(h, r, nil, l.scratch) {
		l.answerScratch(h, r, codec.CodeServiceError, nil)
	}
}

// awaitAck sends another copy of the message of r after wait, unless there is an answer before.
func (l *loop) awaitAck(h pool.Handle, r *request, wait time.Duration) {
	l.deadlines.remove(h.Index())
	l.setDeadline(h.Index(), l.ackDeadline(r, wait))
}

// isAck reports whether a reply says that the message is stored. The server encodes the name of the
// stream with its quotes escaped, so that these bytes are the keys that they seem to be.
func isAck(payload []byte) bool {
	return len(payload) > 0 && payload[len(payload)-1] == '}' && bytes.HasPrefix(payload, []byte(`{"stream":`)) &&
		bytes.Contains(payload, []byte(`"seq":`))
}

// appendAck appends an acknowledgement, which the server leaves duplicate out of if it is false.
func appendAck(dst, payload []byte) []byte {
	if bytes.Contains(payload, []byte(`"duplicate":`)) {
		return append(dst, payload...)
	}
	dst = append(dst, payload[:len(payload)-1]...)
	return append(dst, `,"duplicate":false}`...)
}
