package main

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// memorySharePercent is how much of the cgroup's memory Go may use before it collects harder. The rest is for what the Go
// runtime does not count: the program itself, the kernel's socket buffers, and the time that a collection takes.
const memorySharePercent = 90

// limitMemory sets Go's soft memory limit by that of the cgroup that we run in, unless GOMEMLIMIT says another one or the
// cgroup has none. For the number of CPUs the Go runtime does so by itself.
func limitMemory(a *app, log *slog.Logger) {
	if _, _, ok := a.env("GOMEMLIMIT"); ok {
		return
	}
	limit, ok := cgroupMemoryMax("/proc/self/cgroup", "/sys/fs/cgroup")
	if !ok {
		return
	}
	share := limit / 100 * memorySharePercent
	debug.SetMemoryLimit(share)
	log.Info("Go's memory limit is set by the cgroup's", "GOMEMLIMIT", share, "cgroup", limit)
}

// cgroupMemoryMax returns the least memory limit, in bytes, of the cgroup that the file membership names (in the format of
// /proc/self/cgroup) and of all above it, where root is mounted. Versions 1 and 2 of cgroups are understood; ok is false if
// there is no limit.
func cgroupMemoryMax(membership, root string) (limit int64, ok bool) {
	text, err := os.ReadFile(membership)
	if err != nil {
		return 0, false
	}
	limit = math.MaxInt64
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path; version 2 is hierarchy 0 without controllers.
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(parts) != 3:
		case parts[0] == "0" && parts[1] == "":
			limit = min(limit, leastLimit(root, parts[2], "memory.max"))
		case parts[1] == "memory":
			limit = min(limit, leastLimit(filepath.Join(root, "memory"), parts[2], "memory.limit_in_bytes"))
		}
	}
	return limit, limit < noLimit
}

// noLimit is more than any machine has: version 1 of cgroups writes the greatest number of pages for no limit.
const noLimit = 1 << 60

// leastLimit returns the least of the limits in the files named name, from the folder path below mount up to mount itself. In
// a container path may be one of the host's, which is not there: its own cgroup is mount then.
func leastLimit(mount, path, name string) int64 {
	limit := int64(math.MaxInt64)
	for path = filepath.Join("/", path); ; path = filepath.Dir(path) {
		text, err := os.ReadFile(filepath.Join(mount, path, name))
		if err == nil {
			if bytes, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is none
				limit = min(limit, bytes)
			}
		}
		if path == "/" {
			return limit
		}
	}
}
