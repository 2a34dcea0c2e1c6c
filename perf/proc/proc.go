// Package proc reads what the kernel says about processes and the machine.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// CPU returns the CPU time that the threads of process pid have used, to the nanosecond. The
// kernel brings a thread's figure up to date when the thread stops running, or every few
// milliseconds; threads that have ended are not in it, but the programs that are compared end none.
func CPU(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(threads) == 0 {
		return 0, fmt.Errorf("process %d is gone, or the kernel has no schedstat", pid)
	}
	var sum time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		cpu, err := parseSchedstat(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += cpu
	}
	return sum, nil
}

// parseSchedstat returns the first of the three numbers of a schedstat file: nanoseconds on a CPU.
func parseSchedstat(text []byte) (time.Duration, error) {
	fields := bytes.Fields(text)
	if len(fields) != 3 {
		return 0, fmt.Errorf("%q has not three fields", text)
	}
	ns, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return time.Duration(ns), err
}

// userTick is the unit of /proc/stat: it is 1/100 s for user space on all that Go runs on.
const userTick = 10 * time.Millisecond

// Machine is the CPU time that all CPUs together have spent since the machine started.
type Machine struct {
	Busy   time.Duration // on any process, or in the kernel
	Stolen time.Duration // wanted, but used by the host for other machines
}

// ReadMachine reads it.
func ReadMachine() (Machine, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return parseStat(text)
}

// parseStat reads the first line of /proc/stat: cpu user nice system idle iowait irq softirq steal ...
// Guests are in user and nice already.
func parseStat(text []byte) (Machine, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return Machine{}, fmt.Errorf("/proc/stat starts with %q", line)
	}
	var m Machine
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return Machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 0, 1, 2, 5, 6:
			m.Busy += time.Duration(ticks) * userTick
		case 7:
			m.Stolen += time.Duration(ticks) * userTick
		}
	}
	return m, nil
}

// RSS returns the memory of process pid that is in RAM, in bytes.
func RSS(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm is %q", pid, text)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Name is what the program of process pid is called, up to 15 bytes.
func Name(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return string(bytes.TrimSpace(text)), err
}
