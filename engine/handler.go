package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/upstream"
)

// bell is a gnet connection that gives a loop its goroutine: while gnet tells of bytes on it, the loop turns. It goes back
// to gnet only for a visit, and leaves a byte on the bell, so that gnet calls again.
type bell struct {
	loop   *loop
	opened chan error // receives the result of adopt
	ringer int        // descriptor of the other end
}

// wire is what a NATS connection carries as its context in gnet.
type wire struct {
	loop *loop
	wire *upstream.Wire
	fd   int
}

// handler takes gnet's events. gnet runs the loops, and opens and closes the connections to NATS; what is read from
// those, and from clients, the loop reads by itself.
type handler struct {
	gnet.BuiltinEventEngine
}

func (*handler) OnOpen(c gnet.Conn) (out []byte, action gnet.Action) {
	switch ctx := c.Context().(type) {
	case *bell:
		ctx.opened <- ctx.loop.adopt(c, ctx)
	case *wire:
		ctx.fd = c.Fd()
		ctx.loop.openWire(ctx, c)
	}
	return nil, gnet.None
}

func (*handler) OnTraffic(c gnet.Conn) gnet.Action {
	data, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	switch ctx := c.Context().(type) {
	case *bell:
		ctx.loop.run()
		ctx.ring()
	case *wire:
		// It came just when the loop was on a visit. The next pass writes what comes of it.
		ctx.loop.readClock()
		ctx.wire.Received(data)
	}
	return gnet.None
}

func (*handler) OnClose(c gnet.Conn, err error) gnet.Action {
	if ctx, ok := c.Context().(*wire); ok {
		ctx.loop.closeWire(ctx, err)
	}
	return gnet.None
}

// newBell returns a bell of l, and its connection for gnet.
func newBell(l *loop) (*bell, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[0]), "bell")
	defer f.Close() //nolint:errcheck // FileConn works on a duplicate
	conn, err := net.FileConn(f)
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	return &bell{loop: l, opened: make(chan error, 1), ringer: fds[1]}, conn, nil
}

// ring makes gnet call again.
func (b *bell) ring() {
	if _, err := unix.Write(b.ringer, []byte{1}); err != nil {
		panic(os.NewSyscallError("write", err)) // it has room for the one byte
	}
}

// close gives the descriptor back that gnet has not got. The loop must be stopped.
func (b *bell) close() { _ = unix.Close(b.ringer) }

// adopt makes the event loop of a fresh bell l's, labels the goroutine, and names and pins the loop's
// thread if pinning is wanted.
func (l *loop) adopt(c gnet.Conn, b *bell) error {
	l.events, l.bell = c.EventLoop(), b
	for _, other := range l.gateway.loops[:l.index] {
		if other.events == l.events {
			return fmt.Errorf("engine: loops %d and %d got the same event loop", other.index, l.index)
		}
	}
	labelGoroutine(partLabel, "loop", loopLabel, strconv.Itoa(l.index))
	if cpus := l.gateway.cfg.CPUs; len(cpus) > 0 {
		l.nameThread()
		var set unix.CPUSet
		set.Set(cpus[l.index])
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pinning loop %d to CPU %d: %w", l.index, cpus[l.index], os.NewSyscallError("sched_setaffinity", err))
		}
	}
	b.ring()
	return nil
}

// visit has the loop go back to gnet, again and again, until endVisit: gnet only does what it is asked for in between. Both may
// be called from any goroutine.
func (l *loop) visit() {
	l.visits.Add(1)
	l.Wake()
}

func (l *loop) endVisit() { l.visits.Add(-1) }

// enrollWire implements upstream.Enroll. It is called from nats.go's goroutines.
func (l *loop) enrollWire(conn net.Conn, w *upstream.Wire) error {
	l.visit()
	defer l.endVisit()
	results, err := l.events.Enroll(gnet.NewContext(context.Background(), &wire{loop: l, wire: w}), conn)
	if err != nil {
		_ = conn.Close()
		return err
	}
	result := <-results
	return result.Err
}

// openWire takes a fresh connection to NATS into the loop.
func (l *loop) openWire(w *wire, c gnet.Conn) {
	l.readClock()
	l.wires = append(l.wires, w)
	watched := l.watch.control(unix.EPOLL_CTL_ADD, w.fd, unix.EPOLLIN, wireKind)
	w.wire.Opened(c)
	if watched != nil {
		w.wire.Ended(watched)
	}
}

// closeWire takes a connection out of the loop that gnet closes.
func (l *loop) closeWire(w *wire, err error) {
	_ = l.watch.control(unix.EPOLL_CTL_DEL, w.fd, 0, wireKind)
	l.wires = slices.DeleteFunc(l.wires, func(other *wire) bool { return other == w })
	w.wire.Closed(err)
}

// serveWire reads once from a connection to NATS, and goes on writing to one that was full.
func (l *loop) serveWire(fd int, events uint32) {
	at := slices.IndexFunc(l.wires, func(w *wire) bool { return w.fd == fd })
	if at < 0 {
		return // closed in this pass
	}
	w := l.wires[at].wire
	if events&unix.EPOLLOUT != 0 {
		l.watchWire(fd, unix.EPOLLIN)
		l.link.Flush()
	}
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	n, err := unix.Read(fd, l.wireBuffer)
	switch {
	case n > 0:
		w.Received(l.wireBuffer[:n])
	case err == nil:
		w.Ended(io.EOF)
	case err != unix.EAGAIN && err != unix.EINTR:
		w.Ended(os.NewSyscallError("read", err))
	}
}

// AwaitWritable implements upstream.Handler.
func (l *loop) AwaitWritable(fd int) { l.watchWire(fd, unix.EPOLLIN|unix.EPOLLOUT) }

func (l *loop) watchWire(fd int, events uint32) {
	if err := l.watch.control(unix.EPOLL_CTL_MOD, fd, events, wireKind); err != nil {
		l.log.Error("cannot watch the NATS connection", "error", err)
	}
}
