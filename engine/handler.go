package engine

import (
	"fmt"
	"os"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/upstream"
)

// wire is what a NATS connection carries as its context in gnet.
type wire struct {
	loop *loop
	wire *upstream.Wire
}

// handler takes gnet's events and gives them to the loop, by what the connection carries: a
// session, a wire or a waker.
type handler struct {
	gnet.BuiltinEventEngine
	gateway *Gateway
}

func (e *handler) OnOpen(c gnet.Conn) (out []byte, action gnet.Action) {
	switch ctx := c.Context().(type) {
	case *session:
		for _, l := range e.gateway.loops {
			if l.events == c.EventLoop() {
				l.open(ctx, c)
				return nil, gnet.None
			}
		}
	case *wire:
		ctx.loop.readClock()
		ctx.wire.Opened(c)
		return nil, gnet.None
	case *waker:
		ctx.opened <- ctx.loop.adopt(c)
		return nil, gnet.None
	}
	return nil, gnet.Close
}

func (e *handler) OnTraffic(c gnet.Conn) gnet.Action {
	// All bytes, each time: what gnet would keep for later it would copy, and allocate for.
	data, err := c.Next(-1)
	if err != nil {
		return gnet.Close
	}
	switch ctx := c.Context().(type) {
	case *session:
		l := ctx.loop
		if ctx.finishing || ctx.doomed {
			return gnet.None
		}
		l.readClock()
		l.read(ctx, data)
	case *wire:
		l := ctx.loop
		l.readClock()
		ctx.wire.Received(data)
		l.endPass()
	case *waker:
		ctx.loop.onWake()
	}
	return gnet.None
}

func (e *handler) OnClose(c gnet.Conn, err error) gnet.Action {
	switch ctx := c.Context().(type) {
	case *session:
		ctx.loop.readClock()
		ctx.loop.closed(ctx, err)
	case *wire:
		ctx.wire.Closed(err)
	}
	return gnet.None
}

// adopt makes the event loop of a fresh waker connection l's, and pins its thread if that is wanted.
func (l *loop) adopt(c gnet.Conn) error {
	l.events = c.EventLoop()
	for _, other := range l.gateway.loops[:l.index] {
		if other.events == l.events {
			return fmt.Errorf("engine: loops %d and %d got the same event loop", other.index, l.index)
		}
	}
	cpus := l.gateway.cfg.CPUs
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpus[l.index])
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning loop %d to CPU %d: %w", l.index, cpus[l.index], os.NewSyscallError("sched_setaffinity", err))
	}
	return nil
}

// OnTick is never asked for: gnet would run it on a goroutine of its own.
func (e *handler) OnTick() (time.Duration, gnet.Action) { return time.Hour, gnet.None }
