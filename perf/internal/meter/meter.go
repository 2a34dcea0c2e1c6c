// Package meter lets perf/compare ask a program of a comparison about its heap.
package meter

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
)

// Serve answers each line on stdin with how many objects the program has allocated and how often it collected them, since
// its start, in the names of the gateway's metrics. It returns at once.
func Serve() {
	go func() {
		for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("go_memstats_mallocs_total %d\ngo_gc_duration_seconds_count %d\n\n", m.Mallocs, m.NumGC)
		}
	}()
}
