package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nuid"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/upstream"
)

// A message for JetStream is kept until it is acknowledged, and sent again when the acknowledgement may be
// lost: after a reconnect, after Config.AckWait, and while the stream has no leader. All copies have the same
// Nats-Msg-Id, by which the stream stores only the first of them.

const (
	headerMsgID          = "Nats-Msg-Id:"
	headerExpectedStream = "Nats-Expected-Stream:"

	// noStreamWait is the pause before a message that no stream took is sent again, and noStreamPatience
	// how long that may go on: a stream that elects a leader comes back, one that does not exist should be
	// told soon. nats.go waits as long, but gives up after two tries, which an election outlasts.
	noStreamWait     = 250 * time.Millisecond
	noStreamPatience = 2 * time.Second
)

// heldMessage is a message that waits for its acknowledgement.
type heldMessage struct {
	bytes    *pool.Buffer // as it goes to NATS; nil: the request is none for JetStream
	total    uint32       // what counts against max_payload
	attempts uint32       // times that it was queued for NATS
	deadline int64        // of the request, in nanoseconds since Gateway.started
	refused  int64        // when the first copy found no stream, likewise; 0: it may have found one
}

// durable is what a loop knows of all its held messages.
type durable struct {
	held      int           // messages
	heldBytes int           // their bytes
	epoch     uint64        // of the link in which they were last sent
	idPrefix  string        // of the ids that we give; unique in the world
	messages  *pool.Buffers // apart from others, which grow to what a read or many answers take
	ids       uint64        // given so far
}

func newDurable() durable {
	return durable{idPrefix: nuid.Next() + "-", messages: pool.NewBuffers(buffersKept, bufferBytesMax, bufferBytesTotal)}
}

// headerLine returns the value of the first header line that begins with name, which includes the colon,
// without the space around it. Unlike HTTP's, these names are compared by case: so does the server.
func headerLine(headers []byte, name string) (value []byte, found bool) {
	for len(headers) > 0 {
		line, rest, _ := bytes.Cut(headers, []byte("\r\n"))
		if len(line) >= len(name) && string(line[:len(name)]) == name {
			return bytes.TrimSpace(line[len(name):]), true
		}
		headers = rest
	}
	return nil, false
}

// wantsAck reports whether a PUBLISH is to be answered with the acknowledgement of a stream: its headers
// ask for that, or the configuration does.
func (l *loop) wantsAck(f *codec.Frame) bool {
	if l.policy.durable != nil && l.policy.durable.covers(f.Subject, 0) {
		return true
	}
	_, found := headerLine(f.Headers, headerExpectedStream)
	return found
}

// holdMessage makes the message of r, gives it an id if it has none, and queues it for NATS. After an error
// nothing is held.
func (l *loop) holdMessage(h pool.Handle, r *request, subject []byte, f *codec.Frame) (end uint64, err error) {
	headers := l.messageHeaders(f)
	switch id, found := headerLine(headers, headerMsgID); {
	case !found:
		headers = l.withMsgID(headers)
	case len(id) == 0:
		return 0, errMsgID
	}
	if len(subject)+len(headers)+len(f.Payload)+l.durable.heldBytes > l.policy.MaxHeldBytes {
		return 0, errHeldFull
	}
	total := upstream.MessageBytes(headers, f.Payload)
	b := l.durable.messages.Acquire()
	b.B = slices.Grow(b.B, len(subject)+total+upstreamOverhead)
	b.B = l.link.AppendMessage(b.B, subject, headers, f.Payload, uint64(h))
	if end, err = l.link.PublishAppended(b.B, total); err != nil {
		l.durable.messages.Release(b)
		return 0, err
	}
	r.held = heldMessage{bytes: b, total: uint32(total), attempts: 1}
	l.countHeld(+1, len(b.B))
	if l.durable.held == 1 { // else sendHeldAgain may still have to see that the epoch is another
		l.durable.epoch = l.link.Epoch()
	}
	return end, nil
}

var (
	// errHeldFull says that as many bytes wait for acknowledgements as may.
	errHeldFull = errors.New("engine: too many bytes wait for acknowledgements of JetStream")
	// errMsgID says that a stream could not tell copies of the message from other messages.
	errMsgID = errors.New("engine: the header Nats-Msg-Id is empty: give it a value, or leave it out to be given one")
)

// withMsgID returns headers with an id behind them, in the loop's text buffer.
func (l *loop) withMsgID(headers []byte) []byte {
	l.durable.ids++
	l.text = append(append(l.text[:0], headers...), headerMsgID...)
	l.text = append(append(l.text, ' '), l.durable.idPrefix...)
	l.text = strconv.AppendUint(l.text, l.durable.ids, 36)
	l.text = append(l.text, "\r\n"...)
	return l.text
}

func (l *loop) countHeld(messages, bytes int) {
	l.durable.held += messages
	l.durable.heldBytes += bytes
	l.counters.jetStreamHeldBytes.Store(uint64(l.durable.heldBytes))
}

// dropMessage gives back what r holds for JetStream.
func (l *loop) dropMessage(r *request) {
	l.countHeld(-1, -len(r.held.bytes.B))
	l.durable.messages.Release(r.held.bytes)
	r.held.bytes = nil
}

// ackDeadline returns when something has to be done about the message of r if nothing is heard.
func (l *loop) ackDeadline(r *request, wait time.Duration) int64 {
	return min(r.held.deadline, l.now+int64(wait))
}

// ackOverdue runs when the acknowledgement of r has not come in time: the message is sent again, or its
// deadline has passed.
func (l *loop) ackOverdue(h pool.Handle, r *request) {
	if l.now >= r.held.deadline {
		l.timeOut(h, r)
		return
	}
	if err := l.sendAgain(r); errors.Is(err, upstream.ErrTooLarge) {
		l.fail(h, r, codec.CodeFrameTooLarge, "the NATS server that is reached now has a smaller max_payload than the message needs", true)
		return
	}
	// Whatever else kept it from being sent may be over by the next time.
	l.setDeadline(h.Index(), l.ackDeadline(r, l.policy.AckWait))
}

// sendAgain queues another copy of the message of r, unless the last one is still to be written.
func (l *loop) sendAgain(r *request) error {
	if !l.link.WrittenTo(r.end) {
		return nil
	}
	end, err := l.link.PublishAppended(r.held.bytes.B, int(r.held.total))
	if err != nil {
		return err
	}
	r.end = end
	r.held.attempts++
	l.counters.jetStreamResends.Add(1)
	return nil
}

// sendHeldAgain sends every held message again if the link is a new one since they were sent.
func (l *loop) sendHeldAgain() {
	epoch := l.link.Epoch()
	if l.durable.held == 0 || l.durable.epoch == epoch || !l.link.Ready() {
		return
	}
	l.durable.epoch = epoch
	l.slots.Each(func(h pool.Handle, r *request) {
		if r.held.bytes == nil || r.state != waitsForAck {
			return
		}
		l.deadlines.remove(h.Index())
		l.ackOverdue(h, r)
	})
}

// acknowledge ends r with the reply that came for its message, or waits on.
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

// noStream waits for a stream that may come back. If the first copy of the message was not told so, there
// was one, and it is waited for until the deadline.
func (l *loop) noStream(h pool.Handle, r *request) {
	if r.held.attempts == 1 {
		r.held.refused = l.now
	}
	if r.held.refused != 0 && l.now >= r.held.refused+int64(noStreamPatience) {
		l.fail(h, r, codec.CodeNoResponders, "no stream takes messages on the subject", true)
		return
	}
	l.deadlines.remove(h.Index())
	l.setDeadline(h.Index(), l.ackDeadline(r, noStreamWait))
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

// refuseAck ends r with the error that JetStream answered with.
func (l *loop) refuseAck(h pool.Handle, r *request, payload []byte) {
	var answer struct {
		Error struct {
			Code        int    `json:"code"`
			ErrCode     int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	code, message := "0", "the reply is no acknowledgement of JetStream: somebody else listens on the subject"
	if json.Unmarshal(payload, &answer) == nil && answer.Error.Code != 0 {
		code, message = strconv.Itoa(answer.Error.Code), answer.Error.Description
		if answer.Error.ErrCode != 0 {
			code = strconv.Itoa(answer.Error.ErrCode)
		}
	}
	l.scratch = codec.AppendServiceError(l.scratch[:0], []byte(code), []byte(message))
	l.answerScratch(h, r, codec.CodeServiceError, nil)
}
