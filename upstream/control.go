package upstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// closedRetryMax bounds the pause before a nats.go connection that ended for good is made anew.
const closedRetryMax = 10 * time.Second

// Control runs nats.go for one link: connects, reconnects for ever, subscribes to the inbox, and
// moves away from servers that are about to shut down.
type Control struct {
	cfg    Config
	link   *Link
	enroll Enroll
	log    *slog.Logger

	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	current *connection
	retired []*connection // that the link has moved away from
}

// connection is one of nats.go's, which reconnects by itself. Its wires are the link's until the link
// moves to those of another.
type connection struct {
	nc       *nats.Conn
	inbox    *nats.Subscription
	dial     *dialer
	closed   chan struct{} // closed when nats.go has given nc up
	lameDuck chan struct{} // has room for a notice that the server is about to shut down
}

// NewLink returns a link and its control. bufferedMax bounds the bytes that may wait for NATS. The
// link is used by the loop that handler stands for; Start and Close are called from outside.
func NewLink(cfg Config, handler Handler, enroll Enroll, bufferedMax int, log *slog.Logger) (*Link, *Control) {
	status := newStatus(log)
	link := newLink(handler, status, cfg.InboxPrefix+"."+nuid.Next(), bufferedMax)
	return link, &Control{cfg: cfg, link: link, enroll: enroll, log: log}
}

// Start begins to connect, in the background, and goes on until Close.
func (c *Control) Start() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	first := c.newDialer(ctx)
	c.link.owner = first
	c.done.Go(func() { c.run(ctx, first) })
}

func (c *Control) newDialer(ctx context.Context) *dialer {
	return &dialer{cfg: &c.cfg, link: c.link, enroll: c.enroll, wanted: ctx, dialed: map[string]time.Time{}}
}

// Close ends the connection, and returns when nothing of it runs any more. The loop must still turn.
func (c *Control) Close() {
	if c.stop != nil {
		c.link.status.end()
		c.stop()
		c.done.Wait()
	}
}

// Flush waits until the server has taken everything that the loop wrote before: a PING follows it on
// the same connection, and its PONG comes back.
func (c *Control) Flush(ctx context.Context) error {
	c.mu.Lock()
	connections := append(slices.Clone(c.retired), c.current)
	c.mu.Unlock()
	if connections[len(connections)-1] == nil || !c.link.Ready() {
		return ErrNotReady
	}
	var problems []error
	for _, conn := range connections {
		problems = append(problems, conn.nc.FlushWithContext(ctx))
	}
	return errors.Join(problems...)
}

// run keeps a nats.go connection alive. nats.go reconnects by itself, and is told never to give up;
// should it do so all the same, it is begun anew.
func (c *Control) run(ctx context.Context, dial *dialer) {
	retry := c.cfg.ReconnectWait
	for ctx.Err() == nil {
		connects := c.link.Counters.Connects.Load()
		conn, err := c.connect(dial, c.cfg.URLs, nats.RetryOnFailedConnect(true))
		if err != nil {
			c.link.status.attemptFailed(err.Error())
		} else {
			dial = c.keep(ctx, conn)
		}
		dial.closePrevious()
		select {
		case <-ctx.Done():
		case <-time.After(retry + rand.N(retry)):
		}
		retry = min(2*retry, closedRetryMax)
		if c.link.Counters.Connects.Load() != connects {
			retry = c.cfg.ReconnectWait
		}
	}
}

// keep returns when conn has ended, or the connection that the link has moved to since. It returns
// the dialer of the last one.
func (c *Control) keep(ctx context.Context, conn *connection) *dialer {
	for {
		c.setCurrent(conn)
		select {
		case <-conn.lameDuck:
			if next, old := c.move(ctx, conn); next != nil {
				c.retire(ctx, conn, old)
				conn = next
			}
			continue
		case <-conn.closed:
			c.log.Warn("nats.go gave its connection up; it is made anew", "error", conn.nc.LastError())
		case <-ctx.Done():
		}
		c.setCurrent(nil)
		conn.close()
		return conn.dial
	}
}

func (c *Control) setCurrent(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = conn
}

// close ends conn and waits until nats.go has nothing to say about it any more.
func (conn *connection) close() {
	conn.nc.Close()
	<-conn.closed
}

// connect makes a nats.go connection that, once it was up, goes on reconnecting until it is closed.
func (c *Control) connect(dial *dialer, urls []string, more ...nats.Option) (*connection, error) {
	conn := &connection{dial: dial, closed: make(chan struct{}), lameDuck: make(chan struct{}, 1)}
	options := append(more,
		nats.Name(c.cfg.Name),
		nats.SetCustomDialer(dial),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.SkipHostLookup(), // the dialer needs names, for TLS
		nats.Timeout(c.cfg.ConnectTimeout),
		nats.PingInterval(c.cfg.PingInterval),
		nats.MaxPingsOutstanding(c.cfg.MaxPingsOut),
		nats.CustomReconnectDelay(func(rounds int) time.Duration {
			c.explainAttempt(dial)
			return c.cfg.reconnectDelay(rounds)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(conn.closed) }),
		nats.LameDuckModeHandler(func(*nats.Conn) {
			select {
			case conn.lameDuck <- struct{}{}:
			default: // one notice is enough
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.attemptEnded(dial, err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && !errors.Is(err, io.EOF) && !dial.retired.Load() {
				c.link.status.lost(err.Error()) // as "stale connection": the loop only sees a close
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.log.Debug("nats.go reconnected", "server", nc.ConnectedAddr()) }),
		nats.DiscoveredServersHandler(func(nc *nats.Conn) {
			c.log.Info("NATS servers discovered", "servers", nc.DiscoveredServers())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrStaleConnection) {
				c.log.Debug("nats.go reports an error", "error", err)
			}
		}),
	)
	if c.cfg.usesTLS() {
		options = append(options, nats.Secure())
	}
	if c.cfg.TLSFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	if c.cfg.CredsFile != "" {
		options = append(options, nats.UserCredentials(c.cfg.CredsFile), c.tellCredentialErrors)
	}
	if c.cfg.NKeyFile != "" {
		nkey, err := nats.NkeyOptionFromSeed(c.cfg.NKeyFile)
		if err != nil {
			return nil, err
		}
		options = append(options, nkey, c.tellCredentialErrors)
	}
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	if err != nil {
		return nil, err
	}
	conn.nc = nc
	// The loop takes the replies out of the stream: nothing is ever delivered here.
	conn.inbox, err = nc.Subscribe(string(c.link.inbox)+"*", func(*nats.Msg) {})
	if err != nil {
		conn.close()
		return nil, err
	}
	return conn, nil
}

// explainAttempt says what nats.go made of the last attempt, if that is all there is to be known: as
// that the server takes no nkeys. It is called between attempts: during one, nats.go would block it.
func (c *Control) explainAttempt(dial *dialer) {
	c.mu.Lock()
	conn := c.current
	c.mu.Unlock()
	if conn == nil {
		return
	}
	if err := conn.nc.LastError(); err != nil {
		c.attemptEnded(dial, err)
	}
}

// attemptEnded tells why nats.go says that an attempt failed, unless the dialer has said so.
func (c *Control) attemptEnded(dial *dialer, err error) {
	var told *dialError
	if !dial.retired.Load() && !errors.Is(err, nats.ErrNoServers) && !errors.As(err, &told) {
		c.link.status.attemptEnded(handshakeFailed + ": " + err.Error())
	}
}

// tellCredentialErrors is a nats.Option that comes after those with the credentials. Their files are
// read at each connect, and nats.go keeps to itself what goes wrong then.
func (c *Control) tellCredentialErrors(o *nats.Options) error {
	tell := func(err error) {
		if err != nil {
			c.link.status.attemptFailed("NATS credentials: " + err.Error())
		}
	}
	if userJWT := o.UserJWT; userJWT != nil {
		o.UserJWT = func() (string, error) {
			jwt, err := userJWT()
			tell(err)
			return jwt, err
		}
	}
	sign := o.SignatureCB
	o.SignatureCB = func(nonce []byte) ([]byte, error) {
		signature, err := sign(nonce)
		tell(err)
		return signature, err
	}
	return nil
}
