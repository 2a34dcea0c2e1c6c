package upstream

import (
	"errors"
	"io"
	"log/slog"
	"sync"
)

// Status is what people are told about a link: in the log, and by /ready. Each reason is logged
// once, however often it comes back in a row. Its methods may be called from any goroutine.
type Status struct {
	log *slog.Logger

	mu     sync.Mutex
	up     bool
	reason string // why the link is down; empty while it is up
	note   string // the server's last complaint in this epoch
	logged string // the reason that was logged last
	ending bool   // the link is being closed: what happens now is no news
}

func newStatus(log *slog.Logger) *Status {
	return &Status{log: log, reason: "no connection yet"}
}

// Reason says why the link is down; empty while it is up.
func (s *Status) Reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (s *Status) connected(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.reason, s.note, s.logged = true, "", "", ""
	s.log.Info("NATS connected", "server", server)
}

// disconnected says that a link that was up is down.
func (s *Status) disconnected(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.note != "" {
		reason += " (" + s.note + ")"
	}
	s.up, s.note = false, ""
	s.down(reason)
}

// attemptFailed says why a link that is down could not be brought up.
func (s *Status) attemptFailed(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		s.down(reason)
	}
}

// serverError records what the server, or the protocol, complained about.
func (s *Status) serverError(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		s.down(reason)
		return
	}
	if s.note != reason {
		s.log.Warn("NATS reports an error", "error", reason)
	}
	s.note = reason
}

// end says that the link is being closed on purpose.
func (s *Status) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
}

// down REQUIRES: mu is held.
func (s *Status) down(reason string) {
	s.reason = reason
	if s.logged != reason && !s.ending {
		s.log.Warn("NATS is not connected", "reason", reason)
		s.logged = reason
	}
}

// closeReason turns what gnet gives OnClose into what a reader of a connection expects.
func closeReason(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}
