package compare

import (
	"os"
	"runtime"
	"strings"
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
	if want := (machineCPU{busy: 4310 * time.Millisecond, stolen: 700 * time.Millisecond}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 x 6 7 8"} {
		if _, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// What processCPU adds up from all threads is what the kernel's clock of the process says.
func TestProcessCPU(t *testing.T) {
	clock := func() time.Duration {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
			t.Fatal(err)
		}
		return time.Duration(now.Nano())
	}
	read := func() time.Duration {
		cpu, err := processCPU(os.Getpid())
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
	if _, err := processCPU(1 << 30); err == nil {
		t.Error("a process that does not exist has used CPU time")
	}
}

// What processRSS says is what the kernel says elsewhere, in other words.
func TestProcessRSS(t *testing.T) {
	got, err := processRSS(os.Getpid())
	if err != nil || got < 1<<20 || got > 1<<32 {
		t.Errorf("%d bytes, %v", got, err)
	}
	if _, err := processRSS(1 << 30); err == nil {
		t.Error("a process that does not exist has memory")
	}
}

func TestReadMachineCPU(t *testing.T) {
	m, err := readMachineCPU()
	if err != nil || m.busy <= 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestParseMetrics(t *testing.T) {
	const text = "# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total 123456\n" +
		"go_gc_duration_seconds{quantile=\"1\"} 0.5\ngo_gc_duration_seconds_sum 1.5\ngo_gc_duration_seconds_count 7\n"
	got, err := parseMetrics(text)
	if want := (goMetrics{mallocs: 123456, collections: 7}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := parseMetrics(strings.Replace(text, "123456", "1.5e+06", 1)); err != nil || got.mallocs != 1_500_000 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseMetrics(strings.ReplaceAll(text, collectionsName, "other")); err == nil || !strings.Contains(err.Error(), collectionsName) {
		t.Errorf("got %v, want an error that names %s", err, collectionsName)
	}
	if _, err := parseMetrics(strings.Replace(text, "123456", "many", 1)); err == nil || !strings.Contains(err.Error(), mallocsName) {
		t.Errorf("got %v, want an error that names %s", err, mallocsName)
	}
}
