package upstream

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"
)

// reasonsLoggedMax bounds the reasons that are logged between two changes of a link. There are few,
// unless one has a time in it, or a subject that a client made up.
const reasonsLoggedMax = 16

// Status is what people are told about a link: in the log, and by /ready. Until the link goes up or
// down, each reason is logged once, however often it comes back, as those of several servers do in turn.
// Its methods may be called from any goroutine.
type Status struct {
	log *slog.Logger

	mu        sync.Mutex
	up        bool
	reason    string          // why the link is down; empty while it is up
	note      string          // the server's last complaint in this epoch
	logged    map[string]bool // the reasons that were logged since the link went up or down
	explained bool            // it is known why the current attempt to connect failed
	ending    bool            // the link is being closed: what happens now is no news

	description Description // all but Up
}

func newStatus(log *slog.Logger) *Status {
	return &Status{log: log, reason: "no connection yet", logged: map[string]bool{}, description: Description{Since: time.Now()}}
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
	s.up, s.reason, s.note = true, "", ""
	clear(s.logged)
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
	s.description.Since = time.Now()
	clear(s.logged)
	s.down(reason)
}

// moved says that the link has left a server that is about to shut down, before being cut.
func (s *Status) moved(from, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = ""
	clear(s.logged)
	s.log.Info("NATS server is shutting down: moved to another", "server", from, "to", to)
}

// attempt says that another attempt to connect begins.
func (s *Status) attempt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.explained = false
}

// attemptFailed says why a link that is down could not be brought up.
func (s *Status) attemptFailed(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		s.down(reason)
	}
}

// attemptEnded says that an attempt failed, where the reason can only be guessed: what is known of
// this attempt already counts for more.
func (s *Status) attemptEnded(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up && !s.explained {
		s.down(reason)
	}
}

// lost says why nats.go gave the connection up. It may be faster than the loop, which has yet to see
// the end, or slower.
func (s *Status) lost(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		s.note = reason
		s.failed(reason)
		return
	}
	s.down(reason)
}

// serverError records what the server, or the protocol, complained about.
func (s *Status) serverError(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up {
		s.down(reason)
		return
	}
	s.note = reason
	s.failed(reason)
	if s.news(reason) {
		s.log.Warn("NATS reports an error", "error", reason)
	}
}

// end says that the link is being closed on purpose.
func (s *Status) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
}

// down REQUIRES: mu is held.
func (s *Status) down(reason string) {
	s.reason, s.explained = reason, true
	s.failed(reason)
	if s.news(reason) {
		s.log.Warn("NATS is not connected", "reason", reason)
	}
}

// news reports whether a reason is to be logged, and notes that it was. REQUIRES: mu is held.
func (s *Status) news(reason string) bool {
	if s.ending || s.logged[reason] || len(s.logged) == reasonsLoggedMax {
		return false
	}
	s.logged[reason] = true
	return true
}

// closeReason turns what gnet gives OnClose into what a reader of a connection expects.
func closeReason(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return err
}
