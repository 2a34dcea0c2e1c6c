package engine

import (
	"strconv"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/upstream"
)

// statusNoResponders is the status that a NATS server sends, without a payload, in the place of a
// reply when nobody listens on the request's subject.
const statusNoResponders = 503

// Deliver implements upstream.Handler: it answers the request that token names.
func (l *loop) Deliver(token uint64, m *upstream.Message) {
	h := pool.Handle(token)
	r := l.slots.Get(h)
	if r == nil || r.state != waitsForReply && r.state != waitsForAck {
		if !l.link.Overlaps() { // else it is the second copy of a reply, most likely
			l.counters.lateReplies.Add(1)
		}
		return
	}
	defer l.recoverDelivery(h)
	if r.watched&watchedByTrace != 0 {
		span := l.span(h)
		span.Delivered = l.clock(span)
	}
	l.noteReply(r.session, r)
	if r.state == waitsForAck {
		l.acknowledge(h, r, m)
		return
	}
	if m.Status == statusNoResponders && len(m.Payload) == 0 {
		l.fail(h, r, codec.CodeNoResponders, "nobody listens on the subject", true)
		return
	}
	headers := m.Headers
	switch {
	case r.version == codec.Version1:
		headers = nil
	case m.Status != 0:
		headers = l.statusHeaders(m)
	}
	if code, failed := m.Header("Nats-Service-Error-Code"); failed {
		text, _ := m.Header("Nats-Service-Error")
		l.scratch = codec.AppendServiceError(l.scratch[:0], code, text)
		if l.replyFits(h, r, headers, l.scratch) {
			l.answerScratch(h, r, codec.CodeServiceError, headers)
		}
		return
	}
	l.succeed(h, r, headers, m.Payload)
}

// replyFits reports whether there is room for a reply to r; else r is answered with an error.
func (l *loop) replyFits(h pool.Handle, r *request, headers, payload []byte) bool {
	switch {
	case !fits(r.version, headers, payload):
		l.fail(h, r, codec.CodeFrameTooLarge, "the reply does not fit a frame", true)
	case !l.mayWaitForTurn(h, r, codec.HeaderBytesV1+len(payload)):
		l.fail(h, r, codec.CodeOverloaded, "the reply was dropped: too many answers wait for an earlier request of the connection", true)
	default:
		return true
	}
	return false
}

// fits reports whether an answer can be framed.
func fits(version byte, headers, payload []byte) bool {
	if version == codec.Version1 {
		return codec.HeaderBytesV1+len(payload) <= codec.FrameBytesMax
	}
	return len(headers) <= codec.HeadersBytesMax && codec.HeaderBytesV2+len(headers)+len(payload) <= codec.FrameBytesMax
}

// succeed answers r with a reply. Version 1 has no headers.
func (l *loop) succeed(h pool.Handle, r *request, headers, payload []byte) {
	if !l.replyFits(h, r, headers, payload) {
		return
	}
	b := l.answerBuffer(h, r)
	if r.version == codec.Version1 {
		b.B = codec.AppendHeaderV1(b.B, codec.TypeResponseOK, len(payload))
	} else {
		b.B = codec.AppendHeaderV2(b.B, &codec.Frame{
			Version: codec.Version2, Type: codec.TypeResponseOK, CorrelationID: r.correlationID, Headers: headers,
		}, len(payload))
	}
	b.B = append(b.B, payload...)
	l.answered(h, r, outcomeOK)
}

// statusHeaders puts the status of a reply before its headers, as nats.go does.
func (l *loop) statusHeaders(m *upstream.Message) []byte {
	l.text = append(l.text[:0], "Status: "...)
	l.text = appendDecimal(l.text, uint64(m.Status))
	if len(m.Description) > 0 {
		l.text = append(l.text, "\r\nDescription: "...)
		l.text = append(l.text, m.Description...)
	}
	l.text = append(l.text, "\r\n"...)
	l.text = append(l.text, m.Headers...)
	return l.text
}

// publishedV1 is the payload of the answer to a version 1 frame whose route publishes.
var publishedV1 = []byte(`{"ok":true}`)

// Written implements upstream.Handler: it answers the publishes whose messages are written.
func (l *loop) Written(written uint64) {
	if l.tracer != nil && len(l.tracer.unwritten) > 0 {
		l.traceWritten(written)
	}
	for l.unwrittenAt < len(l.unwritten) && l.unwritten[l.unwrittenAt].end <= written {
		h := l.unwritten[l.unwrittenAt].handle
		l.unwrittenAt++
		r := l.slots.Get(h)
		switch {
		case r == nil || r.state != waitsForWrite:
			// Timed out, or its client is gone.
		case r.version == codec.Version1:
			l.succeed(h, r, nil, publishedV1)
		default:
			l.succeed(h, r, nil, nil)
		}
	}
	switch {
	case l.unwrittenAt == len(l.unwritten):
		l.unwritten, l.unwrittenAt = l.unwritten[:0], 0
	case l.unwrittenAt > len(l.unwritten)/2:
		l.unwritten = l.unwritten[:copy(l.unwritten, l.unwritten[l.unwrittenAt:])]
		l.unwrittenAt = 0
	}
}

// LinkDown implements upstream.Handler: it answers the requests that were given to the connection, but
// for messages that are kept for JetStream: those are sent again.
func (l *loop) LinkDown(from, to, written uint64) {
	l.readClock()
	l.breakers.losses++
	for l.unwrittenAt < len(l.unwritten) && l.unwritten[l.unwrittenAt].end <= to {
		l.unwrittenAt++
	}
	l.slots.Each(func(h pool.Handle, r *request) {
		if r.state == waitsForTurn || r.state == waitsForAck || r.end <= from || r.end > to {
			return
		}
		sent := r.end <= written
		message := "the NATS connection was lost while the request was in flight"
		if !sent {
			message = "the NATS connection was lost before the request was sent"
			l.withdraw(r)
		}
		l.fail(h, r, codec.CodeConnectionClosed, message, sent)
	})
}

// InFlight implements upstream.Handler.
func (l *loop) InFlight(to uint64) (found bool) {
	l.slots.Each(func(_ pool.Handle, r *request) {
		found = found || r.end <= to && (r.state == waitsForReply || r.state == waitsForAck)
	})
	return found
}

// timeOut answers a request whose deadline has passed. Even if its message still waits to be
// written, it may be later: sent cannot be denied.
func (l *loop) timeOut(h pool.Handle, r *request) {
	switch r.state {
	case waitsForWrite:
		l.text = append(l.text[:0], "not written to NATS within "...)
	case waitsForAck:
		l.text = append(l.text[:0], "not acknowledged by JetStream within "...)
	default:
		l.text = append(l.text[:0], "no reply within "...)
	}
	l.text = appendMillis(l.text, r.timeoutMs)
	given := int64(r.timeoutMs)*1_000_000 - (r.startedAt - r.readAt) // to NATS
	if given < int64(l.policy.BreakerMinTimeout) || !l.link.Ready() || !l.link.WrittenTo(r.end) {
		l.withdraw(r)
	}
	l.scratch = codec.AppendError(l.scratch[:0], codec.CodeTimeout, l.text, true)
	l.answerScratch(h, r, codec.CodeTimeout, nil)
}

func appendDecimal(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// appendMillis appends a duration as people write it: 30s, 1500ms.
func appendMillis(dst []byte, ms uint32) []byte {
	if ms%1000 == 0 {
		return append(appendDecimal(dst, uint64(ms/1000)), 's')
	}
	return append(appendDecimal(dst, uint64(ms)), "ms"...)
}
