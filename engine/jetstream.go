package engine

import (
	"bytes"
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
// Nats-Msg-Id, by which the stream stores only the first of them. jetstreamack.go says what the answers mean.

const (
	headerMsgID          = "Nats-Msg-Id:"
	headerExpectedStream = "Nats-Expected-Stream:"
)

// heldMessage is a message that waits for its acknowledgement.
type heldMessage struct {
	bytes    *pool.Buffer // as it goes to NATS; nil: the request is none for JetStream
	total    uint32       // what counts against max_payload
	attempts uint32       // copies that were queued for NATS
	refusals uint32       // those of them that surely were not stored
	deadline int64        // of the request, in nanoseconds since Gateway.started
	noStream int64        // when the first of them found no stream, likewise; 0: none so far
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
	switch err := l.sendAgain(r); {
	case errors.Is(err, upstream.ErrTooLarge):
		l.fail(h, r, codec.CodeFrameTooLarge, "the NATS server that is reached now has a smaller max_payload than the message needs", true)
		return
	case errors.Is(err, upstream.ErrNoHeaders):
		l.fail(h, r, codec.CodeInvalidPayload, "the NATS server that is reached now takes no headers, and so none of the message's copies", true)
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
