package pprof

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Goal: one profile is made of all loads, which go build takes: it has what each of them makes the gateway do.
func TestPGO(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four programs and records for seconds")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("pgo.sh needs curl")
	}
	profile := filepath.Join(t.TempDir(), "default.pgo")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if output, err := exec.CommandContext(ctx, "./pgo.sh", "--try", profile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount", "500", profile).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Type: cpu", "engine.(*loop).pass", "engine.(*loop).serveFrames", "upstream.(*parser).parse", "engine.(*loop).Deliver"} {
		if !strings.Contains(string(top), want) {
			t.Errorf("no %s in\n%s", want, top)
		}
	}
}

// Goal: another flag is answered with what there is.
func TestPGORefuses(t *testing.T) {
	for _, args := range [][]string{{"--bogus"}, {"--try"}} {
		output, err := exec.CommandContext(t.Context(), "./pgo.sh", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(output), "--try") {
			t.Errorf("%v: %v: %s", args, err, output)
		}
	}
}
