package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/engine"
)

const (
	// controlName is the FileDescriptorName= of a control socket that systemd passes.
	controlName = "control"
	// statusPeriod is the time between two looks at whether systemd's status line has to change.
	statusPeriod = 2 * time.Second
	// stopMargin is what a shutdown may take beside the drain.
	stopMargin = 10 * time.Second
)

// passedSockets are those that systemd has opened for us. They are used as they are, and their paths stay.
type passedSockets struct{ main, control *engine.SocketFile }

// takePassed takes the sockets that systemd has passed, which may be none.
func takePassed() (p passedSockets, err error) {
	for _, file := range activation.Files(true) {
		place := &p.main
		if file.Name() == controlName {
			place = &p.control
		}
		if *place != nil {
			return p, fmt.Errorf("systemd has passed one socket too many, %q: want one for clients and, with FileDescriptorName=%s, one for the operator", file.Name(), controlName)
		}
		*place, err = engine.AdoptSocket(file)
		_ = file.Close()
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// use puts the passed sockets in the place of what o says about them.
func (p *passedSockets) use(o *options) {
	if p.main != nil {
		o.engine.Socket = p.main
		o.replace("socket", p.main.Path())
	}
	if p.control != nil {
		o.replace("control-socket", p.control.Path())
	}
}

// replace sets the setting with a flag to text, unless that is empty, as of systemd.
func (o *options) replace(flag, text string) {
	table := o.settings()
	for i := range table {
		if table[i].flag != flag || text == "" {
			continue
		}
		_ = table[i].value.set(text) // a path that is bound is one that can be set
		passed := given{index: i, text: text, source: "socket passed by systemd"}
		at := 0
		for at < len(o.given) && o.given[at].index < i {
			at++
		}
		if at < len(o.given) && o.given[at].index == i {
			o.given[at] = passed
			return
		}
		o.given = append(o.given[:at:at], append([]given{passed}, o.given[at:]...)...)
	}
}

// notifySocket is the environment variable with the socket at which systemd is told things.
const notifySocket = "NOTIFY_SOCKET"

// notifier tells systemd how the service does. Without systemd it tells nobody.
type notifier struct {
	log      *slog.Logger
	enabled  bool
	watchdog time.Duration // how often it wants to hear from us; 0: it does not

	// mu is held while the status is told, so that from a certain moment on it is another process that tells it. It guards what follows.
	mu     sync.Mutex
	status *statusLine // nil: it is not told yet
	shown  string
	silent bool
}

func newNotifier(log *slog.Logger) *notifier {
	n := &notifier{log: log, enabled: os.Getenv(notifySocket) != ""}
	if !n.enabled {
		return n
	}
	var err error
	if n.watchdog, err = sd.SdWatchdogEnabled(false); err != nil {
		log.Warn("systemd's watchdog cannot be fed", "error", err)
	}
	return n
}

// bequeath has the process that takes over know what systemd has told only this one.
func (n *notifier) bequeath(l *engine.Legacy) {
	if n.enabled {
		l.NotifySocket, l.Watchdog = os.Getenv(notifySocket), n.watchdog
	}
}

// inherit goes on with what the other process was told, where systemd has told this one nothing.
func (n *notifier) inherit(l *engine.Legacy) {
	if !n.enabled && l.NotifySocket != "" {
		n.enabled = os.Setenv(notifySocket, l.NotifySocket) == nil
	}
	if n.watchdog == 0 {
		n.watchdog = l.Watchdog
	}
}

// tell sends assignments, as "READY=1".
func (n *notifier) tell(assignments ...string) {
	if !n.enabled {
		return
	}
	if _, err := sd.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		n.log.Warn("systemd cannot be told how the service does", "error", err)
	}
}

// reloading tells that a reload begins, and returns what tells that it has ended.
func (n *notifier) reloading() (ended func()) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // Linux has this clock
	n.tell(sd.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
	return func() { n.tell(sd.SdNotifyReady) }
}

// stopping tells that the shutdown begins, and how long it may take.
func (n *notifier) stopping(drainTimeout time.Duration) {
	n.tell(sd.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (drainTimeout+stopMargin).Microseconds()))
}

// serving tells news, that this process is the service, together with how its clients are, and that from then on until ctx ends.
func (n *notifier) serving(ctx context.Context, g *engine.Gateway, news string) {
	if !n.enabled {
		return
	}
	n.mu.Lock()
	n.status = newStatusLine(g)
	n.mu.Unlock()
	n.tellStatus(news)
	go every(ctx, statusPeriod, func() { n.tellStatus() })
}

// tellStatus tells news, if there are any, and the status if it has changed.
func (n *notifier) tellStatus(news ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.status != nil && !n.silent {
		if text := n.status.next(); text != n.shown {
			n.shown = text
			news = append(news, "STATUS="+text)
		}
	}
	if len(news) > 0 {
		n.tell(news...)
	}
}

// handingOver leaves the status to the process that takes over: it tells it when it has the service.
func (n *notifier) handingOver() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent, n.shown = true, ""
	n.tell("STATUS=handing over to another process")
}

// remaining tells the status again: the other process did not get the service.
func (n *notifier) remaining() {
	n.mu.Lock()
	n.silent = false
	n.mu.Unlock()
	n.tellStatus()
}

// feeding feeds the watchdog until ctx ends.
func (n *notifier) feeding(ctx context.Context, g *engine.Gateway) {
	if half := n.watchdog / 2; n.enabled && half > 0 {
		go every(ctx, half, func() { n.feed(ctx, half, g.Alive) })
	}
}

// feed tells the watchdog that all is well, if every event loop turns within patience.
func (n *notifier) feed(ctx context.Context, patience time.Duration, alive func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := alive(ctx); err != nil {
		n.log.Error("systemd's watchdog is not fed", "reason", err)
		return
	}
	n.tell(sd.SdNotifyWatchdog)
}

// every calls do at once and then once a period, until ctx ends.
func every(ctx context.Context, period time.Duration, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// statusLine composes what systemctl status shows.
type statusLine struct {
	gateway  *engine.Gateway
	requests uint64
	at       time.Time
}

func newStatusLine(g *engine.Gateway) *statusLine {
	return &statusLine{gateway: g, at: time.Now()}
}

// next returns the line of this moment. The rate is that since the last call.
func (s *statusLine) next() string {
	stats := s.gateway.Stats()
	var requests uint64
	for _, n := range stats.Requests {
		requests += n
	}
	now := time.Now()
	rate := float64(requests-s.requests) / max(now.Sub(s.at).Seconds(), 0.001)
	s.requests, s.at = requests, now
	if stats.Draining {
		return fmt.Sprintf("draining: %d clients, %d requests in flight", stats.Connections, stats.Inflight)
	}
	nats := "NATS connected"
	switch reason := s.gateway.Ready(); {
	case reason != nil && stats.LinksUp == 0:
		nats = reason.Error()
	case stats.LinksUp < uint64(stats.Loops):
		nats = fmt.Sprintf("NATS connected on %d of %d loops", stats.LinksUp, stats.Loops)
	}
	return fmt.Sprintf("%d clients, %s, %.0f req/s", stats.Connections, nats, rate)
}
