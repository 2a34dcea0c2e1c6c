package engine

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// watchEventsMax bounds the sockets that are served in one pass; the others are in the next.
const watchEventsMax = 256

// Kinds of what is in the set: EpollEvent.Pad, which the kernel hands back as it was given.
const (
	clientKind = iota // Fd is the descriptor of a session
	wireKind          // Fd is that of a NATS connection
	wakeKind          // the loop is wanted by another goroutine
)

// watchSet is the epoll instance on which a loop waits: for its clients, its connections to NATS, and wakes.
//
// gnet's own would not serve them well. It closes a client that shuts down its writing side before the answers are
// out; it does not tell when a full socket takes bytes again, and what it buffers for one it may still write while
// closing it, after we said that it was never sent; it cannot stop reading; it allocates two lists of events whenever the
// number of ready sockets crosses 32; and after each round it asks again in vain and yields, which wakes an
// idle thread of the Go runtime.
type watchSet struct {
	epoll    int
	wakeFD   int // eventfd
	events   []unix.EpollEvent
	sessions []*session // by descriptor

	waking atomic.Bool // the wake was asked for and has not been looked at
}

func newWatchSet() (*watchSet, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	w := &watchSet{epoll: epoll, wakeFD: wake, events: make([]unix.EpollEvent, watchEventsMax)}
	// Edge-triggered, so that nobody has to read the eventfd.
	if err := w.control(unix.EPOLL_CTL_ADD, wake, unix.EPOLLIN|unix.EPOLLET, wakeKind); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watchSet) control(operation, fd int, events uint32, kind int32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epoll, operation, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: kind}))
}

// close gives the descriptors back. The loop must be stopped; wakes that come later do nothing.
func (w *watchSet) close() {
	w.waking.Store(true)
	_ = unix.Close(w.wakeFD)
	_ = unix.Close(w.epoll)
}

// wakeCount is what is added to the eventfd for a wake. Its value means nothing.
var wakeCount = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// wake makes a pass with a wake run soon. Wakes that come before it are one. It may be called from
// any goroutine, and allocates nothing, unlike gnet's own.
func (w *watchSet) wake() {
	if w.waking.Swap(true) {
		return
	}
	for {
		if _, err := unix.Write(w.wakeFD, wakeCount); err != unix.EINTR {
			return
		}
	}
}

// add watches a client's socket for input.
func (w *watchSet) add(fd int, s *session) error {
	if err := w.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, clientKind); err != nil {
		return err
	}
	for len(w.sessions) <= fd {
		w.sessions = append(w.sessions, nil)
	}
	w.sessions[fd] = s
	return nil
}

// remove ends the watch of a client's socket that is about to be closed. The close alone would not, while a
// child process that is being started holds a copy of the descriptor.
func (w *watchSet) remove(fd int) {
	w.sessions[fd] = nil
	_ = w.control(unix.EPOLL_CTL_DEL, fd, 0, clientKind)
}

// wait returns the sockets that can be served: now, or with block as soon as there is one. The slice is valid
// until the next call.
func (w *watchSet) wait(block bool) []unix.EpollEvent {
	timeout := 0
	if block {
		timeout = -1
	}
	n, err := unix.EpollWait(w.epoll, w.events, timeout)
	if err != nil && err != unix.EINTR {
		panic(os.NewSyscallError("epoll_wait", err)) // the set is ours alone: only a bug can spoil it
	}
	return w.events[:max(n, 0)]
}
