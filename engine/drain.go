package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

const (
	// drainRound is how long the loops have at least to take note of a drain, however short its timeout is.
	drainRound = 2 * time.Second
	// drainPoll is how often Drain looks whether everything is answered and written.
	drainPoll = 2 * time.Millisecond
	// drainLook is how often it asks the loops who has not taken his last bytes.
	drainLook = 50 * time.Millisecond
	// drainFlush is how long a client, or NATS, may take nothing of its last bytes before it is given up.
	drainFlush = 2 * time.Second
)

// Drain stops accepting clients, answers new requests with SHUTTING_DOWN, and waits until what is
// in flight is answered, but at most timeout; then it answers the rest with SHUTTING_DOWN. It also waits
// until clients and NATS have taken their last bytes, to the end of timeout and two seconds at least, but no
// longer than two seconds for one that takes nothing. Its error says what could not be finished. Close is still to be called.
func (g *Gateway) Drain(timeout time.Duration) error {
	g.EndHandover()
	g.lifecycle.Lock()
	defer g.lifecycle.Unlock()
	if !g.running || g.closed {
		return nil
	}
	deadline := time.Now().Add(timeout)
	g.draining.Store(true)
	err := g.stopAccepting()
	for _, l := range g.loops {
		l.post(func() { l.draining = true })
	}
	// A round through every loop: requests that were admitted before are counted now.
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, drainRound))
	defer cancel()
	roundErr := g.Alive(ctx)
	settled := roundErr == nil && g.waitUntil(deadline, func(s *Stats) bool { return s.Inflight == 0 })
	if !settled {
		err = errors.Join(err, roundErr)
		if left := g.Stats().Inflight; left > 0 {
			err = errors.Join(err, fmt.Errorf("engine: %d requests were not answered within the drain timeout of %v", left, timeout))
		}
		for _, l := range g.loops {
			l.post(l.refuseInflight)
		}
	}
	if flushBy := time.Now().Add(drainFlush); flushBy.After(deadline) {
		deadline = flushBy
	}
	return errors.Join(err, g.flushRest(deadline), g.flushToNATS())
}

// refuseInflight answers everything in flight: the drain has taken too long.
func (l *loop) refuseInflight() {
	l.slots.Each(func(h pool.Handle, r *request) {
		if r.state != waitsForTurn {
			l.fail(h, r, codec.CodeShuttingDown, "the gateway shuts down and did not wait for the reply", true)
		}
	})
}

// waitUntil polls done until it holds or the deadline passes.
func (g *Gateway) waitUntil(deadline time.Time, done func(*Stats) bool) bool {
	for {
		if s := g.Stats(); done(&s) {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		time.Sleep(drainPoll)
	}
}

// flushRest waits until clients and NATS have taken what is written for them, for at most until the deadline, and gives up
// who takes nothing. The error says how many bytes are left.
func (g *Gateway) flushRest(deadline time.Time) (err error) {
	var wait patience
	var lookAt time.Time
	g.waitUntil(deadline, func(s *Stats) bool {
		if s.Inflight == 0 && s.ClientBytesBuffered == 0 && s.UpstreamBuffered == 0 {
			return true
		}
		if time.Now().Before(lookAt) {
			return false
		}
		lookAt = time.Now().Add(drainLook)
		return g.givesUp(&wait)
	})
	s := g.Stats()
	if n := s.ClientBytesBuffered; n > 0 {
		err = errors.Join(err, fmt.Errorf("engine: %d bytes of answers were not taken by their clients", n))
	}
	if n := s.UpstreamBuffered; n > 0 {
		err = errors.Join(err, fmt.Errorf("engine: %d bytes were not taken by NATS", n))
	}
	return err
}

// givesUp reports whether nobody takes his last bytes any more. A loop that does not answer counts as one that nobody takes
// anything from.
func (g *Gateway) givesUp(wait *patience) bool {
	ctx, cancel := context.WithTimeout(context.Background(), drainFlush)
	defer cancel()
	all, err := gather(ctx, g, (*loop).backlogs)
	if err == nil && len(all) == 0 {
		return false // what is left is being counted
	}
	return !wait.isWorthwhile(all, time.Now())
}

// backlog tells how far somebody is who has bytes waiting for him.
type backlog struct {
	whose  int64  // the id of a client; of NATS, the negative number of the loop's connection
	taken  uint64 // bytes that were written to his socket
	queued int    // of those, what is in the socket: the kernel's own measure
}

// backlogs REQUIRES: on loop.
func (l *loop) backlogs() (all []backlog) {
	for _, s := range l.watch.sessions {
		if s != nil && !s.doomed && s.bufferedBytes > 0 {
			// A client that reads slowly makes room in its socket for long before we can write again.
			queued, _ := unix.IoctlGetInt(s.fd, unix.SIOCOUTQ)
			all = append(all, backlog{whose: int64(s.id), taken: s.usage.bytesOut, queued: queued})
		}
	}
	if c := &l.link.Counters; c.Buffered.Load() > 0 {
		all = append(all, backlog{whose: -int64(l.index + 1), taken: c.BytesOut.Load()})
	}
	return all
}

// patience remembers when each backlog was seen to shrink.
type patience map[int64]struct {
	last backlog
	at   time.Time
}

// isWorthwhile reports whether somebody has taken something within the last drainFlush.
func (p *patience) isWorthwhile(all []backlog, now time.Time) (worthwhile bool) {
	before := *p
	*p = make(patience, len(all))
	for _, b := range all {
		seen, known := before[b.whose]
		if !known || seen.last != b {
			seen.last, seen.at = b, now
		}
		(*p)[b.whose] = seen
		worthwhile = worthwhile || now.Sub(seen.at) < drainFlush
	}
	return worthwhile
}

// flushToNATS waits until the servers have taken what the links wrote.
func (g *Gateway) flushToNATS() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainFlush)
	defer cancel()
	errs := make([]error, len(g.loops))
	var flushing sync.WaitGroup
	for i, l := range g.loops {
		flushing.Go(func() {
			if !l.link.Ready() {
				return
			}
			if err := l.control.Flush(ctx); err != nil {
				errs[i] = fmt.Errorf("engine: flushing to NATS: %w", err)
			}
		})
	}
	flushing.Wait()
	return errors.Join(errs...)
}
