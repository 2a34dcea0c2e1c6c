// Package wallclock turns times of the monotonic clock, which the event loops read, into times of day, and follows when the clock of the
// day is set meanwhile.
package wallclock

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Clock knows how far the two clocks are apart. Both are slewed alike: only a step changes that, and the kernel tells of one.
type Clock struct {
	started time.Time
	offset  atomic.Int64 // from nanoseconds since started to nanoseconds since 1970
	watched *os.File     // nil: nobody follows
	running sync.WaitGroup
}

// New returns a clock that counts from started.
func New(started time.Time) *Clock {
	c := &Clock{started: started}
	c.Read()
	return c
}

// Wall turns nanoseconds since the start into nanoseconds since 1970. It costs a load, and may be called from any goroutine.
func (c *Clock) Wall(sinceStarted int64) int64 { return c.offset.Load() + sinceStarted }

// Offset is what Wall adds.
func (c *Clock) Offset() int64 { return c.offset.Load() }

// Now returns nanoseconds since 1970.
func (c *Clock) Now() int64 { return c.Wall(int64(time.Since(c.started))) }

// Read looks how far the clocks are apart.
func (c *Clock) Read() {
	now := time.Now()
	c.offset.Store(now.UnixNano() - int64(now.Sub(c.started)))
}

// Follow has a goroutine wait for steps of the clock of the day, until Close. Where the kernel has nothing to wait for, nobody does.
func (c *Clock) Follow() {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return
	}
	if arm(fd) != nil {
		_ = unix.Close(fd)
		return
	}
	c.watched = os.NewFile(uintptr(fd), "clock of the day")
	c.running.Go(c.follow)
}

// never is a time that does not come: just a step ends the wait for it.
const never = 1 << 40

// arm makes reads of a timer fail when the clock is set.
func arm(fd int) error {
	return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &unix.ItimerSpec{Value: unix.Timespec{Sec: never}}, nil)
}

func (c *Clock) follow() {
	var expirations [8]byte
	for {
		_, err := c.watched.Read(expirations[:])
		if !errors.Is(err, unix.ECANCELED) {
			return // it is closed
		}
		c.Read()
	}
}

// Close ends what Follow began.
func (c *Clock) Close() {
	if c.watched != nil {
		_ = c.watched.Close()
		c.running.Wait()
	}
}
