package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// moveSpread is the time within which the links of a gateway leave a server, one after the other.
	moveSpread = 250 * time.Millisecond
	// moveRetryMax bounds the pause between two attempts to find another server. Some servers give
	// their clients two minutes by default, others only seconds.
	moveRetryMax = 2 * time.Second
	// settleTime is how long a wire that the link has left must be idle before it is closed, and
	// settlePoll how often that is looked at.
	settleTime = 100 * time.Millisecond
	settlePoll = 20 * time.Millisecond
	// takenPatience bounds the wait for a server to say that it has taken all that was published. One
	// that is silent is given up long before.
	takenPatience = time.Minute
)

// move takes the link from conn, whose server is about to shut down, to another server, and returns
// the new connection and the wire that conn leaves. It goes on trying until conn is cut: then nats.go
// reconnects it as after any other loss, and the new connection is nil.
func (c *Control) move(ctx context.Context, conn *connection) (next *connection, old *Wire) {
	epoch := c.link.Counters.Connects.Load()
	pause := rand.N(moveSpread)
	reported := ""
	for wait := c.cfg.ReconnectWait; ; wait = min(2*wait, moveRetryMax) {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(pause):
		}
		if !c.link.Ready() || c.link.Counters.Connects.Load() != epoch {
			return nil, nil
		}
		next, old, err := c.tryMove(ctx, conn)
		if err == nil {
			return next, old
		}
		if reason := err.Error(); reason != reported && ctx.Err() == nil {
			reported = reason
			c.log.Warn("NATS server is shutting down, and no other can be used: staying until it cuts us", "error", reason)
		}
		pause = wait + rand.N(c.cfg.ReconnectJitter+1)
	}
}

// tryMove connects to another server, and has the loop publish there from now on.
func (c *Control) tryMove(ctx context.Context, conn *connection) (next *connection, old *Wire, err error) {
	dial := c.newDialer(ctx)
	dial.leaving.Store(true)
	next, err = c.connect(dial, c.servers(conn))
	if err != nil {
		dial.closePrevious()
		return nil, nil, err
	}
	// The PONG says that the server knows of the subscription.
	if err := next.nc.FlushTimeout(c.cfg.ConnectTimeout); err != nil {
		next.close()
		return nil, nil, err
	}
	result, err := c.askToMove(ctx, dial.latest.Load())
	if err != nil {
		next.close()
		return nil, nil, err
	}
	dial.leaving.Store(false)
	return next, result.old, nil
}

// askToMove has the loop move to w.
func (c *Control) askToMove(ctx context.Context, w *Wire) (moved, error) {
	m := &move{to: w, done: make(chan moved, 1)}
	c.link.moving.Store(m)
	c.link.handler.Wake()
	timeout := time.NewTimer(c.cfg.ConnectTimeout)
	defer timeout.Stop()
	var result moved
	select {
	case result = <-m.done:
	case <-ctx.Done():
		return result, ctx.Err()
	case <-timeout.C:
		if c.link.moving.CompareAndSwap(m, nil) {
			return result, fmt.Errorf("the server that is left took nothing for %v", c.cfg.ConnectTimeout)
		}
		result = <-m.done
	}
	if !result.ok {
		return result, fmt.Errorf("%s cannot be used: it refused the inbox, or cut the connection", w.server)
	}
	return result, nil
}

// servers returns the URLs to try in place of conn's server. It is among them: the name may stand for
// several servers.
func (c *Control) servers(conn *connection) []string {
	urls := slices.Clone(c.cfg.URLs)
	user := c.user()
	for _, s := range conn.nc.DiscoveredServers() {
		if u, err := url.Parse(s); err == nil {
			u.User = user
			urls = append(urls, u.String())
		}
	}
	return urls
}

// user returns the credentials in the configured URLs, which count for discovered servers, too.
func (c *Control) user() *url.Userinfo {
	for _, s := range c.cfg.URLs {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		if u, err := url.Parse(s); err == nil && u.User != nil {
			return u.User
		}
	}
	return nil
}

// retire closes conn, which the link has left together with its wire old, once nothing is in flight
// there any more. It works in the background.
func (c *Control) retire(ctx context.Context, conn *connection, old *Wire) {
	c.mu.Lock()
	c.retired = append(c.retired, conn)
	c.mu.Unlock()
	c.done.Go(func() {
		if old != nil {
			c.settle(ctx, conn, old)
		}
		c.mu.Lock()
		c.retired = slices.DeleteFunc(c.retired, func(other *connection) bool { return other == conn })
		c.mu.Unlock()
		conn.close()
	})
}

// settle returns when nothing that was published on old is in flight, and nothing comes on it any more;
// or when old is closed.
func (c *Control) settle(ctx context.Context, conn *connection, old *Wire) {
	poll := time.NewTicker(settlePoll)
	defer poll.Stop()
	flushed, cancel := context.WithTimeout(ctx, takenPatience)
	defer cancel()
	c.done.Go(func() {
		if conn.nc.FlushWithContext(flushed) == nil {
			old.taken.Store(true)
		}
	})
	for idleSince := time.Now(); time.Since(idleSince) < settleTime && !old.closed.Load(); {
		old.inquire.Store(true)
		c.link.handler.Wake()
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		if !old.idle.Load() || !old.taken.Load() {
			idleSince = time.Now()
		}
	}
	// From here on each reply comes once. Copies that are on their way are still known for what they are.
	if conn.inbox.Unsubscribe() != nil || conn.nc.FlushTimeout(c.cfg.ConnectTimeout) != nil {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(settleTime):
	}
}
