package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// capturedLog keeps everything that a gateway logs, debug messages included.
type capturedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// captureLog has cfg log into memory. The log is shown if the test fails.
func captureLog(t testing.TB, cfg *Config) *capturedLog {
	l := &capturedLog{}
	cfg.Logger = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if text := l.String(); t.Failed() {
			t.Logf("the log:\n%.4000s", text)
		}
	})
	return l
}

func (l *capturedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *capturedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// count returns the number of messages that have all of parts in them.
func (l *capturedLog) count(parts ...string) int {
	n := 0
line:
	for line := range strings.Lines(l.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue line
			}
		}
		n++
	}
	return n
}
