package upstream

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tap is one connection as nats.go sees it: a net.Conn whose bytes go through the loop. The loop
// feeds it what is not a reply to us, and takes what nats.go writes.
type tap struct {
	wake func() // asks the loop to look; never blocks

	mu          sync.Mutex
	readable    sync.Cond // signalled when in, readErr or readDeadline changes
	in          []byte    // for nats.go, from inAt on
	inAt        int
	out         []byte // from nats.go, for the loop
	readErr     error  // what Read returns once in is empty
	closed      bool   // by nats.go
	deadline    time.Time
	deadlineSet *time.Timer

	local, remote net.Addr

	attention atomic.Bool // out or closed changed since the loop looked
}

func newTap(local, remote net.Addr, wake func()) *tap {
	t := &tap{wake: wake, local: local, remote: remote}
	t.readable.L = &t.mu
	return t
}

// feed gives nats.go a copy of raw. REQUIRES: on loop.
func (t *tap) feed(raw []byte) {
	t.mu.Lock()
	if t.inAt == len(t.in) {
		t.in, t.inAt = t.in[:0], 0
	}
	t.in = append(t.in, raw...)
	t.mu.Unlock()
	t.readable.Signal()
}

// fail ends the stream: nats.go reads what was fed, then err. REQUIRES: on loop.
func (t *tap) fail(err error) {
	t.mu.Lock()
	if t.readErr == nil {
		t.readErr = err
	}
	t.mu.Unlock()
	t.readable.Broadcast()
}

// take appends what nats.go wrote since the last call to dst, and says whether nats.go closed the
// connection. REQUIRES: on loop.
func (t *tap) take(dst []byte) (out []byte, closed bool) {
	t.attention.Store(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	dst = append(dst, t.out...)
	t.out = t.out[:0]
	return dst, t.closed
}

func (t *tap) alert() {
	t.attention.Store(true)
	t.wake()
}

// Read implements net.Conn for nats.go.
func (t *tap) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case t.closed:
			return 0, net.ErrClosed
		case t.inAt < len(t.in):
			n := copy(p, t.in[t.inAt:])
			t.inAt += n
			return n, nil
		case t.readErr != nil:
			return 0, t.readErr
		case !t.deadline.IsZero() && !time.Now().Before(t.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		t.readable.Wait()
	}
}

// Write implements net.Conn for nats.go. It queues p for the loop and never blocks.
func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	if t.closed || t.readErr != nil {
		err := t.readErr
		t.mu.Unlock()
		if err == nil || err == io.EOF {
			err = net.ErrClosed
		}
		return 0, err
	}
	t.out = append(t.out, p...)
	t.mu.Unlock()
	if len(p) > 0 {
		t.alert()
	}
	return len(p), nil
}

// Close implements net.Conn for nats.go. The loop closes the socket when it looks next.
func (t *tap) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	if t.deadlineSet != nil {
		t.deadlineSet.Stop()
	}
	t.mu.Unlock()
	t.readable.Broadcast()
	if first {
		t.alert()
	}
	return nil
}

func (t *tap) LocalAddr() net.Addr  { return t.local }
func (t *tap) RemoteAddr() net.Addr { return t.remote }

// SetDeadline bounds Read; Write needs no bound.
func (t *tap) SetDeadline(d time.Time) error { return t.SetReadDeadline(d) }

// SetWriteDeadline does nothing: Write never blocks.
func (t *tap) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline bounds Read, a call that is already waiting included.
func (t *tap) SetReadDeadline(d time.Time) error {
	t.mu.Lock()
	t.deadline = d
	if t.deadlineSet != nil {
		t.deadlineSet.Stop()
		t.deadlineSet = nil
	}
	if !d.IsZero() && !t.closed {
		t.deadlineSet = time.AfterFunc(time.Until(d), t.readable.Broadcast)
	}
	t.mu.Unlock()
	t.readable.Broadcast()
	return nil
}
