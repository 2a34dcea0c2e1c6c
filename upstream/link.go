package upstream

import (
	"bytes"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Errors of [Link.Publish]: what was to be published surely did not reach NATS.
var (
	// ErrNotReady says that there is no connection, or that its handshake is still going on.
	ErrNotReady = errors.New("upstream: NATS is not connected")
	// ErrFull says that the bytes waiting for NATS have reached their limit.
	ErrFull = errors.New("upstream: too many bytes wait for NATS")
	// ErrNoHeaders says that the message has headers, and the server takes none: it would close the connection.
	ErrNoHeaders = errors.New("upstream: the NATS server takes no headers")
	// ErrTooLarge says that headers and payload exceed the server's max_payload.
	ErrTooLarge = errors.New("upstream: message is larger than the server's max_payload")
)

// outKeepBytesMax is the largest batch buffer that is kept once it was written out.
const outKeepBytesMax = 4 << 20

// Handler is the loop that owns a link. Its methods are called on the loop and must not publish
// or flush before they return.
type Handler interface {
	// Deliver takes the reply to the request that was published with token. m is borrowed.
	Deliver(token uint64, m *Message)
	// Written is called after a write: every message that ends at or before offset written is out.
	Written(written uint64)
	// LinkDown is called when a connection is gone, and with it the messages that end after offset from
	// and at or before to. Those that end at or before written may have reached NATS, later ones surely
	// did not.
	LinkDown(from, to, written uint64)
	// InFlight reports whether a message that ends at or before offset to still waits for its reply.
	InFlight(to uint64) bool
	// AwaitWritable asks for a call of Link.Flush once fd takes bytes again.
	AwaitWritable(fd int)
	// Wake asks for a call of Link.Service soon. It may be called from any goroutine.
	Wake()
}

// Counters of a link, written by its loop, read by anybody.
type Counters struct {
	BytesIn, BytesOut atomic.Uint64
	// Buffered is the number of bytes that wait to be written now.
	Buffered atomic.Uint64
	// Dropped is the number of bytes that were queued but that a lost connection never took.
	Dropped atomic.Uint64
	// Connects is the number of times that the link became ready.
	Connects atomic.Uint64
	// Moves is the number of times that the link left a server that was about to shut down.
	Moves atomic.Uint64
	// Batches counts writes by the number of messages that they took out; see BatchBounds.
	Batches [len(BatchBounds) + 1]atomic.Uint64
	// BatchSum is the number of messages that all those writes took out.
	BatchSum atomic.Uint64
}

// BatchBounds are the upper bounds, in messages, of Counters.Batches.
var BatchBounds = [...]uint64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}

// Link is a loop's connection to NATS, through all its epochs.
type Link struct {
	// Set once before the loop runs.
	handler   Handler
	status    *Status
	inbox     []byte // "_INBOX.<unique>.": the subject of every reply, before the token
	subscribe []byte // "SUB <inbox>*": going out, it makes the link ready

	// Loop-owned.
	wire          *Wire   // what is published goes here; nil while not connected
	others        []*Wire // are to become wire, or were; see move.go
	owner         *dialer // whose wires become wire when they open
	out           []byte  // queued bytes, from outAt on
	outAt         int
	queued        uint64 // offset: bytes ever queued
	written       uint64 // offset: bytes ever written, or given up with a lost connection
	batchMessages uint64 // messages queued since the last write
	blocked       bool   // the socket takes no more; AwaitWritable was called
	maxPayload    int    // bytes, of the server's last INFO; 0 before the first
	headers       bool   // the server takes headers, by its last INFO
	bufferedMax   int    // bytes that may wait to be written

	// Atomic, read by anybody.
	ready    atomic.Bool
	epoch    atomic.Uint64
	moving   atomic.Pointer[move] // wanted by Control, and not done yet
	Counters Counters
}

func newLink(handler Handler, status *Status, inbox string, bufferedMax int) *Link {
	return &Link{
		handler:     handler,
		status:      status,
		inbox:       []byte(inbox + "."),
		subscribe:   []byte("SUB " + inbox + ".* "),
		bufferedMax: bufferedMax,
	}
}

// Ready reports whether requests can be published. It may be called from any goroutine.
func (l *Link) Ready() bool { return l.ready.Load() }

// Reason says why the link is not ready, for people. It may be called from any goroutine.
func (l *Link) Reason() string { return l.status.Reason() }

// Inbox returns what the subject of every reply begins with; the caller does not write to it. It may be called
// from any goroutine.
func (l *Link) Inbox() []byte { return l.inbox }

// Server returns the address of the server that the link is connected to, as host:port; empty: to none. REQUIRES: on loop.
func (l *Link) Server() string {
	if l.wire == nil {
		return ""
	}
	return l.wire.server
}

// MaxPayload returns the server's max_payload in bytes, 0 if no server was reached yet.
func (l *Link) MaxPayload() int { return l.maxPayload }

// TakesHeaders reports whether messages with headers can be published to the server that was reached last.
func (l *Link) TakesHeaders() bool { return l.headers }

// SetBufferedMax bounds the bytes that may wait for NATS. REQUIRES: on loop.
func (l *Link) SetBufferedMax(bytes int) { l.bufferedMax = bytes }

// Pending reports whether bytes wait to be written that Flush could write now.
func (l *Link) Pending() bool { return l.outAt < len(l.out) && !l.blocked }

// Epoch returns a number that changes when messages may be lost that were published before: when the
// link became ready again, or a server that it has left was gone before it had taken all. It may be
// called from any goroutine.
func (l *Link) Epoch() uint64 { return l.epoch.Load() }

// WrittenTo reports whether the bytes up to offset end are written. REQUIRES: on loop.
func (l *Link) WrittenTo(end uint64) bool { return end <= l.written }

// PendingBytes returns the number of bytes that wait to be written.
func (l *Link) PendingBytes() int { return len(l.out) - l.outAt }

// CountBuffered brings Counters.Buffered up to date; call it at the end of a pass.
func (l *Link) CountBuffered() { l.Counters.Buffered.Store(uint64(l.PendingBytes())) }

// MessageBytes returns what NATS counts against max_payload: the payload and, if there are header
// lines, the block that they travel in.
func MessageBytes(headers, payload []byte) int {
	if len(headers) == 0 {
		return len(payload)
	}
	return len(headerVersion) + len(headers) + len("\r\n") + len(payload)
}

const headerVersion = "NATS/1.0\r\n"

// protocolBytesMax bounds the bytes of PUB or HPUB beside subject, headers and payload: the
// command, the inbox and two sizes.
const protocolBytesMax = 256

// Publish queues a message for the next Flush. Subject and headers must be valid (see codec):
// they go into the protocol stream as they are. With reply, the message carries our inbox and
// token, and the reply comes to Handler.Deliver. The slices are copied. The result is the offset of
// the message's end, to be compared with what Written and LinkDown tell.
func (l *Link) Publish(subject, headers, payload []byte, token uint64, reply bool) (end uint64, err error) {
	total := MessageBytes(headers, payload)
	if err := l.room(len(headers) != 0, total, total+len(subject)+protocolBytesMax); err != nil {
		return 0, err
	}
	before := len(l.out)
	l.out = l.appendMessage(l.out, subject, headers, payload, token, reply)
	return l.queuedMessage(before), nil
}

// AppendMessage appends to dst what Publish with reply would queue for the same message, for
// PublishAppended. It is the same in every epoch of the link.
func (l *Link) AppendMessage(dst, subject, headers, payload []byte, token uint64) []byte {
	return l.appendMessage(dst, subject, headers, payload, token, true)
}

// PublishAppended is Publish for a message that AppendMessage made, to be called once or again. total
// is what [MessageBytes] says of it.
func (l *Link) PublishAppended(message []byte, total int) (end uint64, err error) {
	if err := l.room(bytes.HasPrefix(message, []byte("HPUB ")), total, len(message)); err != nil {
		return 0, err
	}
	before := len(l.out)
	l.out = append(l.out, message...)
	return l.queuedMessage(before), nil
}

// room reports whether a message can be queued that has headers or none, counts total bytes against max_payload
// and has size bytes with the protocol around it.
func (l *Link) room(headers bool, total, size int) error {
	switch {
	case !l.ready.Load():
		return ErrNotReady
	case headers && !l.headers:
		return ErrNoHeaders
	case total > l.maxPayload:
		return ErrTooLarge
	case l.PendingBytes()+size > l.bufferedMax:
		return ErrFull
	}
	return nil
}

// queuedMessage accounts for a message that was appended to out, which was before bytes long.
func (l *Link) queuedMessage(before int) (end uint64) {
	l.queued += uint64(len(l.out) - before)
	l.batchMessages++
	return l.queued
}

func (l *Link) appendMessage(out, subject, headers, payload []byte, token uint64, reply bool) []byte {
	total := MessageBytes(headers, payload)
	if len(headers) == 0 {
		out = append(out, "PUB "...)
	} else {
		out = append(out, "HPUB "...)
	}
	out = append(out, subject...)
	out = append(out, ' ')
	if reply {
		out = append(out, l.inbox...)
		out = appendToken(out, token)
		out = append(out, ' ')
	}
	if len(headers) != 0 {
		out = appendSize(out, total-len(payload))
		out = append(out, ' ')
	}
	out = appendSize(out, total)
	out = append(out, "\r\n"...)
	if len(headers) != 0 {
		out = append(out, headerVersion...)
		out = append(out, headers...)
		out = append(out, "\r\n"...)
	}
	out = append(out, payload...)
	return append(out, "\r\n"...)
}

// appendSize appends a decimal number: strconv.AppendUint, without its generality.
func appendSize(dst []byte, size int) []byte {
	var digits [20]byte
	at := len(digits)
	for {
		at--
		digits[at] = byte('0' + size%10)
		if size /= 10; size == 0 {
			return append(dst, digits[at:]...)
		}
	}
}

// Flush writes what is queued, as far as the socket takes it.
func (l *Link) Flush() {
	if l.wire == nil || l.wire.broken || l.outAt == len(l.out) {
		return
	}
	l.blocked = false
	n, err := write(l.wire.fd, l.out[l.outAt:])
	l.outAt += n
	l.written += uint64(n)
	l.Counters.BytesOut.Add(uint64(n))
	switch {
	case err != nil:
		// Closing here would call back into the loop in the middle of its work: Service closes.
		l.wire.breakWith(err)
	case l.outAt < len(l.out):
		l.blocked = true
		l.handler.AwaitWritable(l.wire.fd)
	}
	l.countBatch()
	if l.outAt == len(l.out) {
		if l.moving.Load() != nil {
			l.handler.Wake() // Service waited for this
		}
		l.out, l.outAt = l.out[:0], 0
		if cap(l.out) > outKeepBytesMax {
			l.out = nil
		}
	} else if l.outAt > len(l.out)/2 {
		l.out = l.out[:copy(l.out, l.out[l.outAt:])]
		l.outAt = 0
	}
	l.handler.Written(l.written)
}

// write writes p to a socket that does not block, as far as it takes it.
func write(fd int, p []byte) (n int, err error) {
	for n < len(p) {
		taken, err := unix.Write(fd, p[n:])
		switch {
		case taken > 0:
			n += taken
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n, nil
		default:
			return n, err
		}
	}
	return n, nil
}

func (l *Link) countBatch() {
	if l.batchMessages == 0 {
		return
	}
	bucket := 0
	for bucket < len(BatchBounds) && l.batchMessages > BatchBounds[bucket] {
		bucket++
	}
	l.Counters.Batches[bucket].Add(1)
	l.Counters.BatchSum.Add(l.batchMessages)
	l.batchMessages = 0
}

// Service does what nats.go asked for since the last call: sends its bytes, closes its connection.
// It also closes a connection that broke, and moves to another. Call it on every wake of the loop.
func (l *Link) Service() {
	l.serviceWire()
	l.serviceOthers()
	if m := l.moving.Load(); m != nil {
		l.serviceMove(m)
	}
}

func (l *Link) serviceWire() {
	w := l.wire
	if w == nil {
		return
	}
	if w.broken {
		w.close()
		return
	}
	if !w.tap.attention.Load() {
		return
	}
	before := len(l.out)
	out, closed := w.tap.take(l.out)
	l.out = out
	l.queued += uint64(len(out) - before)
	if closed {
		w.givenUp = true
		w.close()
		return
	}
	w.noteSubscription(out[before:])
	l.becomeReady()
	l.Flush()
}

// becomeReady opens the link for requests once its wire is subscribed to the inbox.
func (l *Link) becomeReady() {
	if l.ready.Load() || !l.wire.subscribed || l.wire.denied {
		return
	}
	l.ready.Store(true)
	l.Counters.Connects.Add(1)
	l.epoch.Add(1)
	l.status.serves(l.wire)
	l.status.connected(l.wire.server)
}
