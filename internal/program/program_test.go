package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Goal: a process that runs has its name, and what is no process has none.
func TestName(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if name := Name(int32(os.Getpid())); name == "" || !strings.HasPrefix(filepath.Base(executable), name) {
		t.Errorf("we are %q, want the start of %s", name, executable)
	}
	for _, pid := range []int32{0, -1, 1 << 30} {
		if name := Name(pid); name != "" {
			t.Errorf("%d is %q", pid, name)
		}
	}
}
