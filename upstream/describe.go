package upstream

import (
	"context"
	"time"
)

// Description is what there is to say about a link, for people.
type Description struct {
	Up    bool
	Since time.Time // since when it is up, or is not

	// Of the server that the link is connected to, or was last; empty before the first.
	Server     string // host:port
	ServerName string
	ServerID   string

	LastError   string // while the link is down: why; empty: there was none yet
	LastErrorAt time.Time
}

// Describe tells about the link. It waits for nobody, and may be called from any goroutine.
func (l *Link) Describe() Description {
	s := l.status
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.description
	d.Up = s.up
	return d
}

// serves says which server w, the link's wire from now on, leads to.
func (s *Status) serves(w *Wire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.description.Since = time.Now()
	s.description.Server, s.description.ServerName, s.description.ServerID = w.server, w.identity.Name, w.identity.ID
}

// failed notes an error. REQUIRES: mu is held.
func (s *Status) failed(reason string) {
	s.description.LastError, s.description.LastErrorAt = reason, time.Now()
}

// RoundTrip asks the server for a PONG, and returns how long that took; ok is false if there is no connection, or
// none came before ctx ended, which has a deadline.
func (c *Control) RoundTrip(ctx context.Context) (took time.Duration, ok bool) {
	c.mu.Lock()
	conn := c.current
	c.mu.Unlock()
	if conn == nil || !c.link.Ready() {
		return 0, false
	}
	// Aside: nats.go may be in the middle of a connect, and hold its lock until the loop has turned.
	asked := time.Now()
	answered := make(chan time.Duration, 1)
	go func() {
		if conn.nc.FlushWithContext(ctx) == nil {
			answered <- time.Since(asked)
		}
		close(answered)
	}()
	select {
	case took, ok = <-answered:
		return took, ok
	case <-ctx.Done():
		return 0, false
	}
}
