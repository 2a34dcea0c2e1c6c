// Package program names running programs for people.
package program

import (
	"os"
	"strconv"
	"strings"
)

// Name returns the name of the program that runs as pid, as ps shows it: whatever the program says. It is empty if the process
// has ended, or pid is 0, as that of a process in a PID namespace that we do not see.
func Name(pid int32) string {
	if pid <= 0 {
		return ""
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(name), "\n")
}
