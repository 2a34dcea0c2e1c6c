package compare

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// startTestRig starts what the cells need, with only these sides, until the test ends.
func startTestRig(t *testing.T, sides []string, cells []Cell) *rig {
	t.Helper()
	buildForTest(t, "perf/sockets/sockets.c") // skips without a compiler
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := startRig(t.Context(), &Settings{Sides: sides, Cells: cells}, t.Logf)
	t.Cleanup(r.stop)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Goal: a run that was made with fewer connections than its row will say fails.
func TestRunWithOtherConnections(t *testing.T) {
	c := Cell{KindPing, 3, 1, 0}
	r := startTestRig(t, []string{SideEcho}, []Cell{c})
	echo := *r.sides[SideEcho]
	clients := echo.clients
	echo.clients = func(c Cell) (string, []string) {
		c.Connections--
		return clients(c)
	}
	if _, err := r.run(t.Context(), &echo, c, 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "2 connections, not the 3 of ping 3 x 1") {
		t.Errorf("got %v", err)
	}
}
