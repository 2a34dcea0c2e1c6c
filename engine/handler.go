package engine

import (
	"fmt"
	"os"
	"strconv"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/upstream"
)

// bell is what the bell of a loop's watchSet carries as its context in gnet.
type bell struct {
	loop   *loop
	opened chan error // receives the result of adopt
}

// wire is what a NATS connection carries as its context in gnet.
type wire struct {
	loop *loop
	wire *upstream.Wire
}

// handler takes gnet's events and gives them to the loop that they belong to: the bell for
// everything that is watched by the loop's watchSet, a wire for the NATS connection.
type handler struct {
	gnet.BuiltinEventEngine
}

func (*handler) OnOpen(c gnet.Conn) (out []byte, action gnet.Action) {
	switch ctx := c.Context().(type) {
	case *bell:
		ctx.opened <- ctx.loop.adopt(c)
	case *wire:
		ctx.loop.readClock()
		ctx.wire.Opened(c)
	}
	return nil, gnet.None
}

func (*handler) OnTraffic(c gnet.Conn) gnet.Action {
	// All bytes, each time: what gnet would keep for later it would copy, and allocate for.
	data, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	switch ctx := c.Context().(type) {
	case *bell:
		ctx.loop.pass()
	case *wire:
		ctx.loop.readClock()
		ctx.wire.Received(data)
		ctx.loop.endPass()
	}
	return gnet.None
}

func (*handler) OnClose(c gnet.Conn, err error) gnet.Action {
	if ctx, ok := c.Context().(*wire); ok {
		ctx.wire.Closed(err)
	}
	return gnet.None
}

// adopt makes the event loop of a fresh bell l's, hangs the bell, labels the goroutine, and names and pins the loop's
// thread if pinning is wanted.
func (l *loop) adopt(c gnet.Conn) error {
	l.events = c.EventLoop()
	for _, other := range l.gateway.loops[:l.index] {
		if other.events == l.events {
			return fmt.Errorf("engine: loops %d and %d got the same event loop", other.index, l.index)
		}
	}
	if err := l.watch.hang(c.Fd()); err != nil {
		return fmt.Errorf("engine: hanging the bell of loop %d: %w", l.index, err)
	}
	labelGoroutine(partLabel, "loop", loopLabel, strconv.Itoa(l.index))
	cpus := l.gateway.cfg.CPUs
	if len(cpus) == 0 {
		return nil
	}
	l.nameThread()
	var set unix.CPUSet
	set.Set(cpus[l.index])
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning loop %d to CPU %d: %w", l.index, cpus[l.index], os.NewSyscallError("sched_setaffinity", err))
	}
	return nil
}
