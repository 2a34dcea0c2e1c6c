package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// watchEventsMax bounds the sockets that are served in one pass; the others are in the next.
	watchEventsMax = 256

	// Keys of what is no client in the set. Clients are keyed by their descriptor.
	linkKey = -1 // the NATS connection, while it is full
	wakeKey = -2 // the loop is wanted by another goroutine, or by its own next pass
)

// watchSet watches a loop's clients: an epoll instance of our own, nested in that of the loop.
//
// gnet's own watch does not serve them well. It closes a client that shuts down its writing side
// before the answers are out; it does not tell when a full socket takes bytes again, and what it
// buffers for one it may still write while closing it, after we said that it was never sent; it cannot
// stop reading; and it allocates two lists of events whenever the number of ready sockets crosses 32.
// In a set of their own the clients are one event of gnet's, the bell, and a pass has an end at which
// to flush what they asked for.
//
// The bell is a gnet connection whose events are those of the nested set. gnet reads from a
// connection before it tells anybody, so the descriptor below is an eventfd that can be read for ever.
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
	if err := w.control(unix.EPOLL_CTL_ADD, wake, unix.EPOLLIN|unix.EPOLLET, wakeKey); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watchSet) control(operation, fd int, events uint32, key int32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epoll, operation, fd, &unix.EpollEvent{Events: events, Fd: key}))
}

// close gives the descriptors back. The loop must be stopped; wakes that come later do nothing.
func (w *watchSet) close() {
	w.waking.Store(true)
	_ = unix.Close(w.wakeFD)
	_ = unix.Close(w.epoll)
}

// wakeCount is what is added to the eventfd for a wake. Its value means nothing.
var wakeCount = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// wake makes a pass with wakeKey run soon. Wakes that come before it are one. It may be called from
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
	if err := w.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, int32(fd)); err != nil {
		return err
	}
	for len(w.sessions) <= fd {
		w.sessions = append(w.sessions, nil)
	}
	w.sessions[fd] = s
	return nil
}

// remove ends the watch of a socket that is about to be closed. The close alone would not, while a
// child process that is being started holds a copy of the descriptor.
func (w *watchSet) remove(fd int) {
	w.sessions[fd] = nil
	_ = w.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
}

// awaitOutput asks for one event with linkKey when fd takes bytes.
func (w *watchSet) awaitOutput(fd int) error {
	err := w.control(unix.EPOLL_CTL_MOD, fd, unix.EPOLLOUT|unix.EPOLLONESHOT, linkKey)
	if errors.Is(err, unix.ENOENT) {
		err = w.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT|unix.EPOLLONESHOT, linkKey)
	}
	return err
}

// ready returns the sockets that can be served now. The slice is valid until the next call.
func (w *watchSet) ready() ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(w.epoll, w.events, 0)
	if err != nil && err != unix.EINTR {
		return nil, os.NewSyscallError("epoll_wait", err)
	}
	return w.events[:max(n, 0)], nil
}

// newBell returns a connection for gnet that becomes the bell in hang.
func newBell() (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	_ = unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "bell")
	defer f.Close() //nolint:errcheck // FileConn works on a duplicate
	return net.FileConn(f)
}

// hang makes the gnet connection with descriptor bell the bell of the set. It must have been opened
// by the loop, and nothing may have happened on it yet. REQUIRES: on loop.
func (w *watchSet) hang(bell int) error {
	loop, err := epollOf(bell)
	if err != nil {
		return fmt.Errorf("finding the event loop's epoll instance: %w", err)
	}
	if err := unix.EpollCtl(loop, unix.EPOLL_CTL_DEL, bell, nil); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	endless, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(endless) //nolint:errcheck // it goes on as bell
	// Each read takes 1 of 2^62.
	if _, err := unix.Write(endless, []byte{0, 0, 0, 0, 0, 0, 0, 0x40}); err != nil {
		return os.NewSyscallError("write", err)
	}
	if err := unix.Dup3(endless, bell, unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	err = unix.EpollCtl(loop, unix.EPOLL_CTL_ADD, w.epoll, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(bell)})
	return os.NewSyscallError("epoll_ctl", err)
}

// epollOf returns the descriptor of the epoll instance that watches fd: /proc tells what each watches.
func epollOf(fd int) (int, error) {
	entries, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		return -1, err
	}
	want := strconv.Itoa(fd)
	for _, entry := range entries {
		info, err := os.ReadFile("/proc/self/fdinfo/" + entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return -1, err
		}
		for line := range strings.Lines(string(info)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "tfd:" && fields[1] == want {
				return strconv.Atoi(entry.Name())
			}
		}
	}
	return -1, fmt.Errorf("no epoll instance watches descriptor %d", fd)
}
