package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// skipIfShort skips a test whose work is done by programs that it builds; TestRun has all that this process does for them.
func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("measures for seconds")
	}
}

// startTestRig starts what the cells need, with only these sides, until the test ends.
func startTestRig(t *testing.T, sides []string, cells []Cell) *rig {
	t.Helper()
	skipIfShort(t)
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

// Goal: a cell that fails is recorded and the ones around it are measured; an interruption keeps what was measured before it.
func TestRunKeepsWhatItHas(t *testing.T) {
	skipIfShort(t)
	buildForTest(t, "perf/sockets/sockets.c") // skips without a compiler
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The other gateway takes few connections.
	folder := t.TempDir()
	if err := runTool(t.Context(), "../..", "go", "build", "-trimpath", "-o", folder+"/", "./cmd/ipc-gateway"); err != nil {
		t.Fatal(err)
	}
	base := folder + "/base"
	if err := os.WriteFile(base, []byte("#!/bin/sh\nexec "+folder+"/ipc-gateway \"$@\" --max-connections 4\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := Settings{Sides: []string{SideGateway}, Base: base, Repeats: 1, Duration: 50 * time.Millisecond, Cells: []Cell{
		{KindPing, 1, 1, 0}, {KindPing, 9, 1, 0}, {KindPing, 2, 1, 0}, {KindPing, 3, 1, 0}}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result, err := Run(ctx, s, func(format string, args ...any) {
		t.Logf(format, args...)
		if text := fmt.Sprintf(format, args...); strings.HasPrefix(text, "ping 2 x 1") {
			cancel()
		}
	})
	if !errors.Is(err, errIncomplete) || !errors.Is(err, context.Canceled) || result == nil {
		t.Fatal(result, err)
	}
	if len(result.Cells) != 2 || result.Cells[0].Connections != 1 || result.Cells[1].Connections != 2 {
		t.Errorf("measured: %v", result.Cells)
	}
	if len(result.Failed) != 2 || !strings.HasPrefix(result.Failed[0], s.Cells[1].String()) || result.Failed[1] != "ping 3 x 1 and 0 after it: interrupted" {
		t.Errorf("failed: %q", result.Failed)
	}
	var text, markdown strings.Builder
	result.Write(&text)
	result.WriteMarkdown(&markdown)
	for _, want := range []string{"2 x 1", "OVERLOADED", "interrupted"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("no %q in\n%s\n%s", want, text.String(), markdown.String())
		}
	}
}
