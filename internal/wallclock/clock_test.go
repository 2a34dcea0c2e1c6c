package wallclock

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Goal: times of day follow the clock when it is set. Method: root sets it to what it is, which the kernel tells of like of any step; the offset
// was made wrong before, so that it shows whether it is read again.
func TestFollowsAStep(t *testing.T) {
	c := New(time.Now())
	c.Follow()
	defer c.Close()
	c.offset.Store(0)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatal(err)
	}
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Skipf("setting the clock: %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); c.Offset() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the step was not followed")
		}
	}
	if off := time.Duration(time.Now().UnixNano() - c.Now()); off.Abs() > time.Minute {
		t.Errorf("the clock is %v behind", off)
	}
}

// Goal: the clock can be closed while nothing happens, and without anybody that follows.
func TestCloseEndsTheWait(t *testing.T) {
	c := New(time.Now())
	c.Follow()
	c.Close()
	New(time.Now()).Close()
}
