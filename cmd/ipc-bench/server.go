package main

import (
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/perf/proc"
)

// serverUsage is what the process behind the socket used.
type serverUsage struct {
	PID      int     `json:"pid"`
	Name     string  `json:"name"`   // of its program
	CPUUs    float64 `json:"cpu_us"` // CPU microseconds per request
	RSSBytes int64   `json:"rss_bytes"`
}

// watched is a process before a load.
type watched struct {
	pid int
	cpu time.Duration
	err error // it cannot be looked at
}

func watch(pid int) watched {
	w := watched{pid: pid}
	w.cpu, w.err = proc.CPU(pid)
	return w
}

// usage is what the process has used since then for so many requests, or nil if this user may not know.
func (w watched) usage(requests int64) *serverUsage {
	cpu, err := proc.CPU(w.pid)
	if err != nil || w.err != nil || requests == 0 {
		return nil
	}
	u := &serverUsage{PID: w.pid, CPUUs: (cpu - w.cpu).Seconds() * 1e6 / float64(requests)}
	if u.RSSBytes, err = proc.RSS(w.pid); err != nil {
		return nil
	}
	if u.Name, err = proc.Name(w.pid); err != nil {
		return nil
	}
	return u
}

// cost is the CPU time for a table.
func (u *serverUsage) cost() string {
	if u == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", u.CPUUs)
}
