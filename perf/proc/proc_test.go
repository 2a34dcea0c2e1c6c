package proc

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseSchedstat(t *testing.T) {
	got, err := parseSchedstat([]byte("38793536 32998693 140\n"))
	if err != nil || got != 38793536*time.Nanosecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "1 2", "1 2 3 4", "x 2 3"} {
		if _, err := parseSchedstat([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestParseStat(t *testing.T) {
	// user nice system idle iowait irq softirq steal guest guest_nice
	got, err := parseStat([]byte("cpu  100 20 300 9000 800 5 6 70 50 10\ncpu0 1 2 3 4 5 6 7 8 0 0\n"))
	if want := (Machine{Busy: 4310 * time.Millisecond, Stolen: 700 * time.Millisecond}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 x 6 7 8"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// What CPU adds up from all threads is what the kernel's clock of the process says.
func TestCPU(t *testing.T) {
	clock := func() time.Duration {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
			t.Fatal(err)
		}
		return time.Duration(now.Nano())
	}
	read := func() time.Duration {
		cpu, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return cpu
	}
	clockBefore, before := clock(), read()
	// Two threads, so that a sum over the main thread alone would be wrong.
	burnt := make(chan struct{})
	for range 2 {
		go func() {
			for end := clockBefore + 100*time.Millisecond; clock() < end; {
				runtime.Gosched()
			}
			burnt <- struct{}{}
		}()
	}
	<-burnt
	<-burnt
	want, got := clock()-clockBefore, read()-before
	// Threads that run are up to date to a tick, which is 10 ms at most.
	if difference := (got - want).Abs(); difference > 40*time.Millisecond {
		t.Errorf("schedstat says %v, the process's clock %v", got, want)
	}
	if _, err := CPU(1 << 30); err == nil {
		t.Error("a process that does not exist has used CPU time")
	}
}

// What RSS says is what the kernel says elsewhere, in other words.
func TestRSS(t *testing.T) {
	got, err := RSS(os.Getpid())
	if err != nil || got < 1<<20 || got > 1<<32 {
		t.Errorf("%d bytes, %v", got, err)
	}
	if _, err := RSS(1 << 30); err == nil {
		t.Error("a process that does not exist has memory")
	}
}

func TestReadMachine(t *testing.T) {
	m, err := ReadMachine()
	if err != nil || m.Busy <= 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestName(t *testing.T) {
	name, err := Name(os.Getpid())
	if err != nil || name != "proc.test" {
		t.Errorf("%q, %v", name, err)
	}
}
