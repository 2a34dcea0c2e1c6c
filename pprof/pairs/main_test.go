package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Goal: runs are compared pair by pair and not by the medians of each side, and what is between the quarters is told.
func TestPairs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compare.json")
	// The machine became three times slower in the last three runs: the gateway is a tenth cheaper all the time.
	text := `{"results": [{"kind": "request", "connections": 16, "window": 1, "payload": 256, "sides": [
		{"name": "gateway", "runs": [{"middle_us": 9, "seconds": 1, "requests": 110}, {"middle_us": 9, "seconds": 1, "requests": 110},
			{"middle_us": 27, "seconds": 1, "requests": 33}, {"middle_us": 27, "seconds": 1, "requests": 33}, {"middle_us": 27, "seconds": 1, "requests": 33}]},
		{"name": "base", "runs": [{"middle_us": 10, "seconds": 1, "requests": 100}, {"middle_us": 10, "seconds": 1, "requests": 100},
			{"middle_us": 30, "seconds": 1, "requests": 30}, {"middle_us": 30, "seconds": 1, "requests": 30}, {"middle_us": 20, "seconds": 1, "requests": 30}]}]}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run([]string{file}, &out); err != nil {
		t.Fatal(err)
	}
	want := "request 16x1, 256 B, 5 pairs: gateway/base CPU per request 0.900 (half of them 0.900 to 0.900); rate 1.100 (half of them 1.100 to 1.100)\n"
	if out.String() != want {
		t.Errorf("got %s, want %s", out.String(), want)
	}
	if err := run(nil, &out); err == nil {
		t.Error("no file, and no error")
	}
}
