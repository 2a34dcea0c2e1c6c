package engine

import (
	"context"
	"os"
	"runtime/pprof"
	"strconv"
)

// Labels that profiles show of goroutines: what one is for, and the index of the loop that it works for.
const (
	partLabel = "part"
	loopLabel = "loop"
)

// labelGoroutine gives the calling goroutine, and those that it starts from now on, pairs of label and value.
func labelGoroutine(labels ...string) {
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(labels...)))
}

// nameThread makes top -H and perf show the loop. A thread that cannot be named does its work as well.
// REQUIRES: on loop, which is locked to its thread.
func (l *loop) nameThread() {
	name := "ipc-loop-" + strconv.Itoa(l.index)
	if err := os.WriteFile("/proc/thread-self/comm", []byte(name), 0); err != nil {
		l.log.Debug("the loop's thread has no name", "reason", err)
	}
}
