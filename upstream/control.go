package upstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// closedRetryMax bounds the pause before a nats.go connection that ended for good is made anew.
const closedRetryMax = 10 * time.Second

// Control runs nats.go for one link: connects, reconnects for ever, and subscribes to the inbox.
type Control struct {
	cfg  Config
	link *Link
	dial *dialer
	log  *slog.Logger

	stop context.CancelFunc
	done sync.WaitGroup

	mu sync.Mutex
	nc *nats.Conn
}

// NewLink returns a link and its control. bufferedMax bounds the bytes that may wait for NATS. The
// link is used by the loop that handler stands for; Start and Close are called from outside.
func NewLink(cfg Config, handler Handler, enroll Enroll, bufferedMax int, log *slog.Logger) (*Link, *Control) {
	status := newStatus(log)
	link := newLink(handler, status, cfg.InboxPrefix+"."+nuid.Next(), bufferedMax)
	c := &Control{cfg: cfg, link: link, log: log}
	c.dial = &dialer{cfg: &c.cfg, link: link, enroll: enroll, dialed: map[string]time.Time{}}
	return link, c
}

// Start begins to connect, in the background, and goes on until Close.
func (c *Control) Start() {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.dial.stop = ctx.Done()
	c.done.Go(func() { c.run(ctx) })
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
	nc := c.nc
	c.mu.Unlock()
	if nc == nil || !c.link.Ready() {
		return ErrNotReady
	}
	return nc.FlushWithContext(ctx)
}

// run keeps a nats.go connection alive. nats.go reconnects by itself, and is told never to give up;
// should it do so all the same, it is begun anew.
func (c *Control) run(ctx context.Context) {
	retry := c.cfg.ReconnectWait
	for ctx.Err() == nil {
		connects := c.link.Counters.Connects.Load()
		closed := make(chan struct{})
		nc, err := c.connect(closed)
		if err != nil {
			c.link.status.attemptFailed(err.Error())
		} else {
			select {
			case <-closed:
				c.log.Warn("nats.go gave its connection up; it is made anew", "error", nc.LastError())
			case <-ctx.Done():
			}
			c.mu.Lock()
			c.nc = nil
			c.mu.Unlock()
			nc.Close()
			<-closed
		}
		if c.dial.previous != nil {
			_ = c.dial.previous.Close()
		}
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

// connect makes a nats.go connection that goes on trying until it is closed; closed tells that.
func (c *Control) connect(closed chan struct{}) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(c.cfg.Name),
		nats.SetCustomDialer(c.dial),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(),
		nats.SkipHostLookup(), // the dialer needs names, for TLS
		nats.Timeout(c.cfg.ConnectTimeout),
		nats.PingInterval(c.cfg.PingInterval),
		nats.MaxPingsOutstanding(c.cfg.MaxPingsOut),
		nats.CustomReconnectDelay(func(int) time.Duration {
			c.explainAttempt()
			return c.cfg.ReconnectWait + rand.N(c.cfg.ReconnectJitter+1)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.attemptEnded(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && !errors.Is(err, io.EOF) {
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
	}
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
	nc, err := nats.Connect(strings.Join(c.cfg.URLs, ","), options...)
	if err != nil {
		return nil, err
	}
	// The loop takes the replies out of the stream: nothing is ever delivered here.
	if _, err := nc.Subscribe(string(c.link.inbox)+"*", func(*nats.Msg) {}); err != nil {
		nc.Close()
		return nil, err
	}
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
	return nc, nil
}

// explainAttempt says what nats.go made of the last attempt, if that is all there is to be known: as
// that the server takes no nkeys. It is called between attempts: during one, nats.go would block it.
func (c *Control) explainAttempt() {
	c.mu.Lock()
	nc := c.nc
	c.mu.Unlock()
	if nc == nil {
		return
	}
	if err := nc.LastError(); err != nil {
		c.attemptEnded(err)
	}
}

// attemptEnded tells why nats.go says that an attempt failed, unless the dialer has said so.
func (c *Control) attemptEnded(err error) {
	var told *dialError
	if !errors.Is(err, nats.ErrNoServers) && !errors.As(err, &told) {
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
