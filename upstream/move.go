package upstream

import "slices"

// A link moves from a server that is about to shut down without losing anything. The connection to
// the next server is made while the old one still serves, and both are subscribed to the inbox. Then
// the loop publishes on the new wire only. The old one stays until nothing that was published on it
// is in flight any more, or its server cuts it: replies to what the server had taken come on the new
// wire, too.
//
// A message belongs to the wire that it was published on, and offsets tell which: they go on
// counting, and the move happens when everything queued was written, so that each wire has a range.

// move is the wish of Control that a link's wire be replaced.
type move struct {
	to   *Wire
	done chan moved // has room for the result
}

// moved is the result of a move.
type moved struct {
	ok  bool
	old *Wire // that was replaced; nil if it was gone already
}

// serviceMove moves to another wire, unless bytes still wait for the old one. REQUIRES: on loop.
func (l *Link) serviceMove(m *move) {
	w := m.to
	if !w.subscribed || w.denied || w.broken || w.closed.Load() {
		l.moving.Store(nil)
		m.done <- moved{}
		return
	}
	if l.wire != nil && l.ready.Load() && l.outAt < len(l.out) {
		l.Flush()
		if l.outAt < len(l.out) {
			return // Flush calls for Service once all is written, and so does the end of the wire.
		}
	}
	l.moving.Store(nil)
	m.done <- moved{ok: true, old: l.replaceWire(w)}
}

// replaceWire makes w the link's wire, and returns the one before if it lives on.
func (l *Link) replaceWire(w *Wire) (old *Wire) {
	if l.owner != nil {
		l.owner.retired.Store(true)
	}
	l.owner = w.dial
	l.others = slices.DeleteFunc(l.others, func(other *Wire) bool { return other == w })
	old, l.wire = l.wire, w
	if old != nil && !l.ready.Load() { // in the middle of its handshake, or refused the inbox
		l.dropUnwritten()
		l.blocked = false
		old.close()
		old = nil
	}
	w.from, l.maxPayload, l.headers = l.queued, w.maxPayload, w.headers
	if old == nil {
		l.becomeReady()
		return nil
	}
	old.to = l.queued
	l.others = append(l.others, old)
	l.Counters.Moves.Add(1)
	l.status.serves(w)
	l.status.moved(old.server, w.server)
	return old
}

// Overlaps reports whether more than one connection is subscribed to the inbox, so that a reply may
// come twice. REQUIRES: on loop.
func (l *Link) Overlaps() bool { return len(l.others) > 0 }

// carriedTo returns the offset up to which messages were published on older wires that live on.
func (l *Link) carriedTo() (offset uint64) {
	for _, w := range l.others {
		offset = max(offset, w.to)
	}
	return offset
}

// serviceOthers does for the other wires what nats.go asked for, and what Control did.
func (l *Link) serviceOthers() {
	for i := len(l.others) - 1; i >= 0; i-- { // from the end: a wire that is closed goes out of the list
		w := l.others[i]
		if w.inquire.Swap(false) {
			w.idle.Store(!l.handler.InFlight(w.to))
		}
		if w.serviceOther() {
			w.close()
		}
	}
}

// serviceOther sends what nats.go has to say on a wire that is not the link's, and reports whether
// the wire is to be closed. What a full socket does not take waits for the next call: Control wakes
// the loop often while there are such wires.
func (w *Wire) serviceOther() (closing bool) {
	if w.broken {
		return true
	}
	before := len(w.out)
	if w.tap.attention.Load() {
		w.out, closing = w.tap.take(w.out)
	}
	w.noteSubscription(w.out[before:])
	if closing {
		return true
	}
	n, err := write(w.fd, w.out)
	w.out = w.out[:copy(w.out, w.out[n:])]
	w.link.Counters.BytesOut.Add(uint64(n))
	return err != nil
}

// otherClosed takes the end of a wire that is not, or no longer, the link's.
func (l *Link) otherClosed(w *Wire) {
	before := len(l.others)
	l.others = slices.DeleteFunc(l.others, func(other *Wire) bool { return other == w })
	if len(l.others) == before || w.to == 0 {
		return // refused, closed when another opened, or nothing was published on it yet
	}
	switch {
	case l.wire == nil:
		l.handler.LinkDown(l.carriedTo(), w.to, w.to) // nobody is left to bring the replies
	case !w.taken.Load():
		l.epoch.Add(1)
		l.handler.LinkDown(w.from, w.to, w.to)
	}
}
