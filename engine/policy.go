package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/aigroup/ipc-gateway/trace"
)

// policy is what a reload can change: limits, routes, timeouts and permissions. A policy itself never changes. Each
// loop holds the one that it works by, and a reload gives it another between two passes.
type policy struct {
	Config

	// By label, for the frame types that go to NATS. REQUEST and PUBLISH have no subject here.
	routes [TypeCount]compiledRoute
	peers  *peerTable

	durable *subjectSet // of Routes.JetStream; nil: none

	traces         bool // requests may have spans: loops have tracers
	traceThreshold trace.Threshold
}

// compiledRoute is a Route in the form that the data path wants.
type compiledRoute struct {
	subject   []byte // valid; never written to
	mode      Mode
	timeoutMs uint32
}

// newPolicy compiles a configuration that was validated. What was counted of peers goes on in states.
func newPolicy(cfg *Config, states peerStates) *policy {
	p := &policy{Config: *cfg, peers: newPeerTable(cfg, states)}
	p.traces = cfg.Tracer != nil && (cfg.TraceClients || cfg.TraceSample > 0)
	p.traceThreshold = trace.NewThreshold(cfg.TraceSample)
	for _, pattern := range cfg.Routes.JetStream {
		if p.durable == nil {
			p.durable = &subjectSet{}
		}
		p.durable.add([]byte(pattern), 0)
	}
	for label, route := range map[uint8]Route{
		labelSubmit: cfg.Routes.Submit, labelQuery: cfg.Routes.Query, labelCancel: cfg.Routes.Cancel,
		labelPublish: {Timeout: cfg.Timeout, Mode: ModePublish}, labelRequest: {Timeout: cfg.Timeout, Mode: ModeRequest},
	} {
		p.routes[label] = compiledRoute{[]byte(route.Subject), route.Mode, uint32(route.Timeout.Milliseconds())}
	}
	return p
}

// fixedFields are those of Config that the gateway is built around, by the name that settings have
// for people.
var fixedFields = map[string]string{
	"SocketPath": "socket", "SocketMode": "socket_mode", "Loops": "loops", "CPUs": "cpus",
	"MaxInflight": "max_inflight", "NATS": "nats", "Audit": "audit",
}

// keepFixed puts the fixed fields of running into cfg, and returns the names of those that differed,
// in order.
func (c *Config) keepFixed(running *Config) (differed []string) {
	to, from := reflect.ValueOf(c).Elem(), reflect.ValueOf(running).Elem()
	for field, name := range fixedFields {
		mine, theirs := to.FieldByName(field), from.FieldByName(field)
		if !reflect.DeepEqual(mine.Interface(), theirs.Interface()) {
			differed = append(differed, name)
		}
		mine.Set(theirs)
	}
	slices.Sort(differed)
	return differed
}

// ErrReloadPending says that a new configuration counts, but that there are loops that have not turned since. They will work by it when
// they turn again.
var ErrReloadPending = errors.New("engine: the new settings count, but not everywhere yet")

// Reload makes the gateway go on with the limits, routes, timeouts and permissions of cfg. Nothing is dropped:
// requests in flight end by the rules that they began with, and a connection over a new limit stays. Only
// clients that may not connect any more are told so, and closed once they are answered. needRestart
// names what cfg wants to have otherwise but only a new process can change. After an error, which names every
// problem of cfg, all is as before. It returns when every loop works by cfg, or with ErrReloadPending if ctx ends before.
func (g *Gateway) Reload(ctx context.Context, cfg Config) (needRestart []string, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for !g.lifecycle.TryLock() {
		if g.handingOver.Load() {
			return nil, errors.New("engine: another process takes over, and has read its own settings")
		}
		time.Sleep(drainPoll)
	}
	defer g.lifecycle.Unlock()
	if !g.running || g.closed {
		return nil, errors.New("engine: the gateway does not run")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.Tracer = g.cfg.Tracer
	needRestart = cfg.keepFixed(&g.cfg)
	g.policy.Store(newPolicy(&cfg, g.peerStates))
	for _, l := range g.loops {
		l.post(l.follow)
	}
	if err := g.Alive(ctx); err != nil {
		return needRestart, fmt.Errorf("%w: %w", ErrReloadPending, err)
	}
	return needRestart, nil
}

// follow makes the loop work by the newest policy from now on.
func (l *loop) follow() {
	p := l.gateway.policy.Load()
	if p == l.policy {
		return
	}
	l.policy = p
	l.link.SetBufferedMax(p.MaxUpstreamBufferBytes)
	l.boundRates()
	l.applyRules()
	l.followWriteTimeout()
	l.followFrameTimeout()
	l.followBreakers()
	l.followTracing()
}

// Config returns what the gateway works by: the configuration of the start with what reloads have changed.
func (g *Gateway) Config() Config { return g.policy.Load().Config }

// Uptime returns how long ago the gateway was made.
func (g *Gateway) Uptime() time.Duration { return time.Since(g.started) }
