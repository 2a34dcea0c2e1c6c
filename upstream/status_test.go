package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Goal: a client that makes the server complain about one subject after the other cannot flood the
// log, and the reasons of an outage are logged all the same.
func TestReasonsAreLoggedOnceAndBounded(t *testing.T) {
	var log bytes.Buffer
	s := newStatus(slog.New(slog.NewTextHandler(&log, nil)))
	s.connected("server")
	for i := range 1000 {
		s.serverError(fmt.Sprintf("Permissions Violation for Publish to %d", i%100))
	}
	if n := strings.Count(log.String(), "Permissions Violation"); n != reasonsLoggedMax {
		t.Errorf("%d complaints were logged, want %d", n, reasonsLoggedMax)
	}
	s.disconnected("lost")
	for range 100 {
		s.attemptFailed("connection refused")
	}
	if !strings.Contains(log.String(), `"lost (Permissions Violation for Publish to 99)"`) ||
		strings.Count(log.String(), "connection refused") != 1 {
		t.Errorf("log of the outage:\n%s", log.String())
	}
	if s.Reason() != "connection refused" {
		t.Errorf("reason %q", s.Reason())
	}
}

// Goal: nats.go reports a failed dial from a goroutine of its own. If the next attempt has begun by
// then, the report must not become that attempt's reason.
func TestLateReportOfADialIsNoReason(t *testing.T) {
	s := newStatus(slog.New(slog.DiscardHandler))
	c := &Control{link: &Link{status: s}}
	s.attempt()
	s.attemptFailed("connection refused")
	s.attempt()
	c.attemptEnded(&dialer{}, &dialError{errors.New("connection refused")})
	if s.Reason() != "connection refused" {
		t.Errorf("reason %q", s.Reason())
	}
	c.attemptEnded(&dialer{}, errors.New("nats: authorization violation"))
	if s.Reason() != handshakeFailed+": nats: authorization violation" {
		t.Errorf("reason %q", s.Reason())
	}
}
