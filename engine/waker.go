package engine

import (
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// waker wakes a loop without allocating: gnet's own Wake and Execute cost two to four allocations
// a call. It is a socket pair with one end in the loop; a byte on the other end is the wake.
type waker struct {
	loop    *loop
	fd      int // our end
	pending atomic.Bool
	opened  chan error // receives the result of setting the loop's thread up
}

// newWaker returns a waker and the end of its socket pair that belongs into the loop.
func newWaker(l *loop) (*waker, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[1]), "wake")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[0])
		return nil, nil, err
	}
	return &waker{loop: l, fd: fds[0], opened: make(chan error, 1)}, conn, nil
}

// wakeByte is written for each wake; its value means nothing.
var wakeByte = []byte{1}

// wake makes onWake run soon. Wakes that come before it runs are one. It may be called from any goroutine.
func (w *waker) wake() {
	if w.pending.Swap(true) {
		return
	}
	for {
		_, err := unix.Write(w.fd, wakeByte)
		if err != unix.EINTR {
			// EAGAIN: the pair is full of wakes. Any other error: the loop is stopped.
			return
		}
	}
}

// clear lets the next wake through. REQUIRES: on loop, before looking for work.
func (w *waker) clear() { w.pending.Store(false) }

// close ends the waker of a loop that is stopped. Later wakes do nothing: the number of the
// descriptor may be somebody else's by then.
func (w *waker) close() {
	w.pending.Store(true)
	_ = unix.Close(w.fd)
}
