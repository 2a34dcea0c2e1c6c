package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/upstream"
)

// ErrNoClient says that no client has the id: it has gone, or never was.
var ErrNoClient = errors.New("engine: no such client")

// roundTripWait bounds the wait of Links for a server's PONG.
const roundTripWait = 500 * time.Millisecond

// sessionUsage is what a session has used so far, for people. Its loop owns it.
type sessionUsage struct {
	openedAt int64 // nanoseconds since Gateway.started
	activeAt int64 // when bytes last went either way, likewise
	requests uint64
	bytesIn  uint64
	bytesOut uint64
	version  byte // of the last frame; 0 before the first
}

func (u *sessionUsage) opened(now int64) { u.openedAt, u.activeAt = now, now }

func (u *sessionUsage) read(now int64, bytes int) {
	u.activeAt = now
	u.bytesIn += uint64(bytes)
}

func (u *sessionUsage) served(version byte) {
	u.requests++
	u.version = version
}

func (u *sessionUsage) wrote(now int64, bytes int) {
	u.activeAt = now
	u.bytesOut += uint64(bytes)
}

// ClientInfo is what there is to know about a client that is connected.
type ClientInfo struct {
	ID       uint64 // unique in the life of a gateway
	Loop     int
	UID, GID uint32
	PID      int32         // 0: in a PID namespace that we do not see
	Rule     string        // for peers that it is under, as "uid:1000", or "others"
	Age      time.Duration // since it was accepted
	Idle     time.Duration // since bytes last went either way
	Version  byte          // of its last frame; 0: it has sent none
	Inflight int
	Requests uint64 // frames that were read
	BytesIn  uint64
	BytesOut uint64
	Waiting  int      // bytes of answers that it has not taken
	Paused   []string // why nothing is read from it at the moment: some of PauseLabels
	Closing  bool     // nothing more is read from it: it is closed once it is answered
}

// Clients returns the clients that are connected, by id. If loops do not answer before ctx ends, the error
// names them, and the clients are those of the other loops.
func (g *Gateway) Clients(ctx context.Context) ([]ClientInfo, error) {
	all, err := gather(ctx, g, (*loop).clientInfos)
	slices.SortFunc(all, func(a, b ClientInfo) int { return cmp.Compare(a.ID, b.ID) })
	return all, err
}

// clientInfos REQUIRES: on loop.
func (l *loop) clientInfos() (infos []ClientInfo) {
	for _, s := range l.watch.sessions {
		if s == nil || s.doomed {
			continue
		}
		u := &s.usage
		infos = append(infos, ClientInfo{
			ID: s.id, Loop: l.index, UID: s.peer.uid, GID: s.peer.gid, PID: s.peer.pid, Rule: s.rule.name,
			Age: time.Duration(l.now - u.openedAt), Idle: time.Duration(l.now - u.activeAt), Version: u.version,
			Inflight: s.inflight, Requests: u.requests, BytesIn: u.bytesIn, BytesOut: u.bytesOut,
			Waiting: s.bufferedBytes, Paused: s.paused.names(), Closing: s.finishing,
		})
	}
	return infos
}

// names returns those of PauseLabels that are among the reasons.
func (p pauseReasons) names() (names []string) {
	for i, name := range PauseLabels {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// Kill closes the connection of a client at once. Its requests in flight are abandoned, and answers that it has
// not taken are lost. The error is ErrNoClient, or names a loop that does not answer before ctx ends; if the client is one of
// that loop's it is closed when the loop turns again.
func (g *Gateway) Kill(ctx context.Context, id uint64) error {
	killed, err := gather(ctx, g, func(l *loop) []uint64 { return l.kill(id) })
	switch {
	case len(killed) > 0:
		return nil
	case err != nil:
		return err
	}
	return ErrNoClient
}

// kill returns the id if it is that of a client of the loop. REQUIRES: on loop.
func (l *loop) kill(id uint64) []uint64 {
	for _, s := range l.watch.sessions {
		if s != nil && s.id == id && !s.doomed {
			l.counters.clientsKilled.Add(1)
			l.log.Warn("client is closed by the operator", "client", id, "peer", s.peer, "inflight", s.inflight)
			l.doom(s)
			return []uint64{id}
		}
	}
	return nil
}

// LinkInfo is what there is to know about a loop's connection to NATS.
type LinkInfo struct {
	upstream.Description
	Loop       int
	Reconnects uint64
	Inflight   uint64
	Waiting    uint64        // bytes that wait for NATS
	RoundTrip  time.Duration // of a PING just now; 0: none came back
}

// Links returns the connections to NATS, by loop. It asks no loop, and waits for the servers for half a second at most.
func (g *Gateway) Links(ctx context.Context) []LinkInfo {
	ctx, cancel := context.WithTimeout(ctx, roundTripWait)
	defer cancel()
	infos := make([]LinkInfo, len(g.loops))
	var asked sync.WaitGroup
	for i, l := range g.loops {
		counters := &l.link.Counters
		infos[i] = LinkInfo{
			Description: l.link.Describe(), Loop: i, Inflight: l.inflight(), Waiting: counters.Buffered.Load(),
			Reconnects: max(counters.Connects.Load(), 1) - 1,
		}
		asked.Go(func() { infos[i].RoundTrip, _ = l.control.RoundTrip(ctx) })
	}
	asked.Wait()
	return infos
}

// gather runs of on every loop, and returns what it said there. If loops do not answer before ctx ends, the
// error names them, and the rest is returned.
func gather[T any](ctx context.Context, g *Gateway, of func(l *loop) []T) (all []T, err error) {
	answers := make([]chan []T, len(g.loops))
	for i, l := range g.loops {
		if l.watch == nil || g.stopped.Load() {
			return nil, errors.New("the event loops do not run")
		}
		answers[i] = make(chan []T, 1)
		l.post(func() { answers[i] <- of(l) })
	}
	for i := range g.loops {
		select {
		case answer := <-answers[i]:
			all = append(all, answer...)
			continue
		case <-ctx.Done():
		}
		select { // the others may have answered long ago
		case answer := <-answers[i]:
			all = append(all, answer...)
		default:
			err = errors.Join(err, fmt.Errorf("event loop %d does not answer", i))
		}
	}
	return all, err
}
