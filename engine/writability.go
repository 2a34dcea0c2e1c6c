package engine

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// linkKey stands for a loop's NATS connection among the ids of its sessions, which begin with 1.
const linkKey = 0

// writability tells loops when a socket that was full takes bytes again, or when its peer has
// closed it. gnet cannot: it only watches for output that it buffers itself, and what it buffers it
// may still write while it closes a connection, when we have already said that it was never sent.
//
// It is an epoll instance of its own, with one-shot events and one goroutine that waits on it. It
// costs nothing while no socket is full.
type writability struct {
	gateway *Gateway
	epoll   int
	end     int // eventfd that ends run
	stopped chan struct{}
}

// writableKeys are the keys of one loop whose sockets had an event.
type writableKeys struct {
	waiting atomic.Bool // keys is not empty
	mu      sync.Mutex
	keys    []uint64
	spare   []uint64 // loop-owned: the slice that is not in keys
}

// An event's 64 bits of user data hold the loop's index and the key. 40 bits of sessions last for
// a year of 34,000 connects a second.
const keyBits = 40

func newWritability(g *Gateway) (*writability, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, end, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1, Pad: -1})
	}
	if err != nil {
		_ = unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	w := &writability{gateway: g, epoll: epoll, end: end, stopped: make(chan struct{})}
	go w.run()
	return w, nil
}

// await asks for one event when fd takes bytes (with output) or its peer hangs up. REQUIRES: on loop.
func (w *writability) await(loopIndex int, key uint64, fd int, output bool) error {
	data := uint64(loopIndex)<<keyBits | key
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(data), Pad: int32(data >> 32)}
	if output {
		event.Events |= unix.EPOLLOUT
	}
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, fd, &event)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &event)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (w *writability) run() {
	defer close(w.stopped)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			w.gateway.log.Error("waiting for sockets to take bytes failed", "error", err)
			return
		}
		for _, event := range events[:max(n, 0)] {
			data := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
			index := data >> keyBits
			if index >= uint64(len(w.gateway.loops)) {
				return
			}
			l := w.gateway.loops[index]
			l.writable.mu.Lock()
			l.writable.keys = append(l.writable.keys, data&(1<<keyBits-1))
			l.writable.mu.Unlock()
			l.writable.waiting.Store(true)
			l.Wake()
		}
	}
}

// close ends run. The loops must be stopped.
func (w *writability) close() {
	_, _ = unix.Write(w.end, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-w.stopped
	_ = unix.Close(w.end)
	_ = unix.Close(w.epoll)
}

// onWritable goes on with the sockets that had an event.
func (l *loop) onWritable() {
	w := &l.writable
	if !w.waiting.Swap(false) {
		return
	}
	w.mu.Lock()
	keys := w.keys
	w.keys, w.spare = w.spare[:0], keys
	w.mu.Unlock()
	for _, key := range keys {
		if key == linkKey {
			l.link.Flush()
			continue
		}
		s := l.sessions[key]
		if s == nil || s.doomed {
			continue
		}
		if s.conn == nil && hungUp(s.fd) {
			l.doom(s)
			continue
		}
		s.blocked = false
		l.touch(s)
	}
}
