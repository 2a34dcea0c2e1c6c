package upstream

import (
	"github.com/panjf2000/gnet/v2"
)

// Wire is one connection of a link. The engine dispatches its events here.
type Wire struct {
	link    *Link
	tap     *tap
	server  string // address, for people
	prelude []byte // bytes that the dialer read ahead: the first INFO

	conn    gnet.Conn // nil once closed
	fd      int
	broken  bool   // wants to be closed by Service
	givenUp bool   // closed by nats.go, which knows why
	hangUp  func() // ends what is behind conn; nil if that is the network itself
}

// Opened starts the epoch of w. An older connection that is still there ends first.
func (w *Wire) Opened(conn gnet.Conn) {
	l := w.link
	if l.wire != nil {
		l.wire.close()
	}
	w.conn, w.fd = conn, conn.Fd()
	l.wire = w
	l.denied = false
	l.parser.reset()
	w.Received(w.prelude)
	w.prelude = nil
}

// Received takes bytes from NATS, which are borrowed.
func (w *Wire) Received(data []byte) {
	l := w.link
	if l.wire != w || w.broken {
		return
	}
	l.Counters.BytesIn.Add(uint64(len(data)))
	if err := l.parser.parse(data, l); err != nil {
		w.breakWith(err)
	}
}

// breakWith marks w to be closed by the next Service.
func (w *Wire) breakWith(err error) {
	w.broken = true
	w.link.status.serverError(err.Error())
	w.link.handler.Wake()
}

// close closes the socket, which ends the epoch through Closed.
func (w *Wire) close() {
	if w.conn != nil {
		// The only error is about a descriptor that is closed already.
		_ = w.conn.EventLoop().Close(w.conn)
	}
}

// Closed ends the epoch of w.
func (w *Wire) Closed(err error) {
	w.conn = nil
	if w.hangUp != nil {
		w.hangUp()
	}
	w.tap.fail(closeReason(err))
	l := w.link
	if l.wire != w {
		return
	}
	l.wire = nil
	wasReady := l.ready.Swap(false)
	l.blocked = false
	l.Counters.Dropped.Add(l.queued - l.written)
	written := l.written
	l.out, l.outAt, l.batchMessages = l.out[:0], 0, 0
	l.written = l.queued
	l.Counters.Buffered.Store(0)
	switch {
	case wasReady && w.givenUp:
		l.status.disconnected("connection to " + w.server + " given up")
	case wasReady:
		l.status.disconnected("connection to " + w.server + " lost: " + closeReason(err).Error())
	case !w.givenUp:
		l.status.attemptEnded("connecting to " + w.server + ": closed during the handshake: " + closeReason(err).Error())
	}
	l.handler.LinkDown(written)
}
