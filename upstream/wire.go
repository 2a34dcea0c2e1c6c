package upstream

import (
	"bytes"
	"encoding/json"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
)

// Wire is one connection of a link. The engine dispatches its events here.
type Wire struct {
	link    *Link
	dial    *dialer // that opened it
	tap     *tap
	server  string // address, for people
	prelude []byte // bytes that the dialer read ahead: the first INFO

	identity serverIdentity // loop-owned; of the server's last INFO

	// Loop-owned.
	conn       gnet.Conn // nil once closed
	fd         int
	parser     parser
	maxPayload int    // bytes, of the server's last INFO
	headers    bool   // the server takes headers, by the same
	subscribed bool   // the subscription to the inbox went out
	denied     bool   // and the server refused it
	broken     bool   // wants to be closed by Service
	givenUp    bool   // closed by nats.go, which knows why
	ended      error  // how the stream ended; nil: it did not end by itself
	hangUp     func() // ends what is behind conn; nil if that is the network itself

	// Loop-owned; see move.go.
	from uint64 // offset: what is published on the wire ends after it
	to   uint64 // and, once another wire has replaced it, at or before this one
	out  []byte // of nats.go, to be written while another wire is the link's

	// Atomic, between the loop and Control.
	closed  atomic.Bool
	taken   atomic.Bool // the server has taken all that was published
	inquire atomic.Bool // Control wants idle brought up to date
	idle    atomic.Bool // nothing that was published on the wire is in flight
}

// Opened starts w, which is the link's wire from now on, instead of an older one that is still there;
// or, if somebody else's is, waits until the link moves to it.
func (w *Wire) Opened(conn gnet.Conn) {
	l := w.link
	w.conn, w.fd = conn, conn.Fd()
	switch {
	case w.dial.retired.Load():
		w.close()
		return
	case w.dial == l.owner:
		if l.wire != nil {
			l.wire.close()
		}
		w.from = l.queued
		l.wire = w
	default:
		l.others = append(l.others, w)
	}
	w.Received(w.prelude)
	w.prelude = nil
}

// Received takes bytes from NATS, which are borrowed.
func (w *Wire) Received(data []byte) {
	if w.closed.Load() || w.broken {
		return
	}
	w.link.Counters.BytesIn.Add(uint64(len(data)))
	if err := w.parser.parse(data, w); err != nil {
		w.breakWith(err)
	}
}

// Ended closes w, whose stream has ended: by err, io.EOF if the server closed it.
func (w *Wire) Ended(err error) {
	w.ended = err
	w.close()
}

// breakWith marks w to be closed by the next Service.
func (w *Wire) breakWith(err error) {
	w.broken = true
	w.complain(err.Error())
	w.link.handler.Wake()
}

// complain tells what is wrong with w, unless it is only tried, to move to: then Control does.
func (w *Wire) complain(reason string) {
	if w.link.wire == w || w.to != 0 {
		w.link.status.serverError(reason)
	}
}

// close closes the socket, which ends w through Closed.
func (w *Wire) close() {
	if w.conn != nil {
		// The only error is about a descriptor that is closed already.
		_ = w.conn.EventLoop().Close(w.conn)
	}
}

// Closed ends w.
func (w *Wire) Closed(err error) {
	if err == nil {
		err = w.ended
	}
	w.conn = nil
	w.closed.Store(true)
	if w.hangUp != nil {
		w.hangUp()
	}
	w.tap.fail(closeReason(err))
	l := w.link
	if l.wire != w {
		l.otherClosed(w)
		return
	}
	l.wire = nil
	wasReady := l.ready.Swap(false)
	l.blocked = false
	written, queued := l.written, l.queued
	l.dropUnwritten()
	switch {
	case wasReady && w.givenUp:
		l.status.disconnected("connection to " + w.server + " given up")
	case wasReady:
		l.status.disconnected("connection to " + w.server + " lost: " + closeReason(err).Error())
	case !w.givenUp:
		l.status.attemptEnded("connecting to " + w.server + ": closed during the handshake: " + closeReason(err).Error())
	}
	l.handler.LinkDown(l.carriedTo(), queued, written)
}

// dropUnwritten gives up what waits for a connection that will not take it.
func (l *Link) dropUnwritten() {
	l.Counters.Dropped.Add(l.queued - l.written)
	l.out, l.outAt, l.batchMessages = l.out[:0], 0, 0
	l.written = l.queued
	l.Counters.Buffered.Store(0)
}

// noteSubscription looks for the subscription to the inbox in what nats.go sends.
func (w *Wire) noteSubscription(out []byte) {
	if !w.subscribed && bytes.Contains(out, w.link.subscribe) {
		w.subscribed = true
	}
}

// onMessage implements events.
func (w *Wire) onMessage(m *Message) {
	if token, found := bytes.CutPrefix(m.Subject, w.link.inbox); found {
		// A token that is none of ours finds no slot: it is counted there as a late reply.
		value, _ := parseToken(token)
		w.link.handler.Deliver(value, m)
		return
	}
	w.tap.feed(m.Raw)
}

// onControl implements events.
func (w *Wire) onControl(raw []byte) {
	switch {
	case bytes.HasPrefix(raw, []byte("INFO ")):
		w.onInfo(raw)
	case bytes.HasPrefix(raw, []byte("-ERR")):
		w.onError(raw)
	}
	w.tap.feed(raw)
}

// serverInfo is what we need of an INFO.
type serverInfo struct {
	MaxPayload   int  `json:"max_payload"`
	Headers      bool `json:"headers"`
	TLSRequired  bool `json:"tls_required"`
	LameDuckMode bool `json:"ldm"`
	serverIdentity
}

// serverIdentity is by what people know a server.
type serverIdentity struct {
	Name string `json:"server_name"`
	ID   string `json:"server_id"`
}

func parseInfo(raw []byte) (info serverInfo, err error) {
	err = json.Unmarshal(bytes.TrimPrefix(raw, []byte("INFO ")), &info)
	return info, err
}

func (w *Wire) onInfo(raw []byte) {
	info, err := parseInfo(raw)
	if err != nil || info.MaxPayload <= 0 {
		return
	}
	w.maxPayload, w.headers, w.identity = info.MaxPayload, info.Headers, info.serverIdentity
	if w.link.wire == w {
		w.link.maxPayload, w.link.headers = info.MaxPayload, info.Headers
	}
}

// onError takes an -ERR, which nats.go will act on. Only the reason is wanted here, and one case
// that nats.go lives on with but we cannot: without the inbox no reply would ever come.
func (w *Wire) onError(raw []byte) {
	l := w.link
	reason := string(bytes.Trim(raw[len("-ERR"):], " '\r\n"))
	if !bytes.Contains(raw, []byte("Permissions Violation for Subscription to \""+string(l.inbox))) {
		w.complain(reason)
		return
	}
	w.denied = true
	if l.wire == w {
		l.ready.Store(false)
		l.status.disconnected("NATS does not let us subscribe to our inbox: " + reason)
	}
}
