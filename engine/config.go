package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/upstream"
)

// Mode says how a route hands a frame to NATS and when it is answered.
type Mode uint8

const (
	// ModeRequest publishes with a reply inbox and answers with the first reply.
	ModeRequest Mode = iota
	// ModePublish publishes and answers once the message was written to the NATS connection.
	ModePublish
	// ModeJetStream publishes and answers with the acknowledgement of the stream that stored the message.
	ModeJetStream
)

// String returns the mode's name in configuration files.
func (m Mode) String() string {
	switch m {
	case ModePublish:
		return "publish"
	case ModeJetStream:
		return "jetstream"
	}
	return "request"
}

// ParseMode is the inverse of [Mode.String].
func ParseMode(s string) (Mode, error) {
	switch s {
	case "request":
		return ModeRequest, nil
	case "publish":
		return ModePublish, nil
	case "jetstream":
		return ModeJetStream, nil
	}
	return 0, fmt.Errorf("mode %q is none of \"request\", \"publish\" and \"jetstream\"", s)
}

// Route says where the frames of one TASK_ type go.
type Route struct {
	Subject string // NATS subject without wildcards
	Mode    Mode
	Timeout time.Duration // deadline of frames that carry none; 1 ms to TimeoutMax
}

// Routes is the routing table of the TASK_ frame types.
type Routes struct {
	Submit Route // TASK_SUBMIT
	Query  Route // TASK_QUERY
	Cancel Route // TASK_CANCEL

	// JetStream names the subjects, wildcards allowed, on which PUBLISH is answered with the acknowledgement of
	// the stream that stored the message, whether its headers ask for it or not.
	JetStream []string
}

const (
	// SocketPathMax is the longest path that sockaddr_un takes on Linux: 108 bytes with the final NUL.
	SocketPathMax = 107
	// TimeoutMax bounds every deadline: 24 hours. Version 2 frames that ask for more get this much.
	TimeoutMax = 24 * time.Hour
	// maxInflightMax keeps a slot table's indexes, and their doubling in the table of
	// correlation ids, far inside 32 bits: 4 Mi requests.
	maxInflightMax = 4 << 20
	// loopsMax is far above the cores of one machine that could serve one Unix socket.
	loopsMax = 256
)

// Config holds everything that the engine can be told. The zero value is not useful:
// start from [DefaultConfig].
type Config struct {
	// SocketPath is the Unix socket clients connect to; at most SocketPathMax bytes.
	SocketPath string
	// SocketMode is the socket's permission bits; default 0600.
	SocketMode os.FileMode
	// Socket is listened on instead of a new one at SocketPath, if it is not nil. Start takes it over.
	Socket *SocketFile
	// Loops is the number of event loops, each with its own NATS connection; 1 to 256.
	// Default: half of the CPUs, 1 to 8, which leaves the rest to the clients and NATS.
	Loops int
	// CPUs pins loop i's thread to CPUs[i]. Empty: not pinned; else exactly one CPU per loop.
	CPUs []int
	// MaxConnections bounds the open client connections; the one over it gets OVERLOADED, then EOF.
	MaxConnections int
	// MaxInflight bounds the requests that wait for NATS in the whole gateway; over it: see PauseMax.
	MaxInflight int
	// MaxInflightPerConnection bounds the requests that wait for NATS on one connection; over it: see PauseMax.
	MaxInflightPerConnection int
	// MaxClientBufferBytes bounds the bytes that wait for one client; from half of it on the client is paused, over
	// it closed. Answers of version 1 before their turn, which it cannot take, have four times as much for themselves.
	MaxClientBufferBytes int
	// MaxUpstreamBufferBytes bounds the bytes that wait for one loop's NATS connection; over it: see PauseMax.
	MaxUpstreamBufferBytes int
	// MaxHeldBytes bounds the bytes of messages that one loop keeps until JetStream has acknowledged them; over
	// it: see PauseMax.
	MaxHeldBytes int
	// AckWait is how long an acknowledgement of JetStream is waited for before the message is sent again.
	// It should be far below the streams' duplicate window, by which they tell the copies.
	AckWait time.Duration
	// PauseMax is how long a frame may wait for room below these limits, its client being paused, before it is
	// refused; 0: it is refused at once.
	PauseMax time.Duration
	// ClientWriteTimeout is how long a client that answers wait for may take none of them; longer, and it is closed. 0: for ever.
	ClientWriteTimeout time.Duration
	// FrameTimeout is how long a client may take to complete a frame; longer, and it is told so and closed. 0: for ever.
	FrameTimeout time.Duration
	// BreakerThreshold is how many requests to one subject in a row have to fail, in one loop, for its circuit breaker to
	// open; 0: there are no circuit breakers.
	BreakerThreshold int
	// BreakerOpenTime is how long requests to that subject are then refused, before a few are let through again.
	BreakerOpenTime time.Duration
	// BreakerProbes is how many of these may be in flight at a time.
	BreakerProbes int
	// BreakerSuccesses is how many of them have to be answered for the breaker to close.
	BreakerSuccesses int
	// BreakerMinTimeout is the shortest timeout that counts as a failure when it passes: a client that does not wait
	// must not shut out others.
	BreakerMinTimeout time.Duration
	// Timeout is the deadline of REQUEST and PUBLISH frames that carry none; 1 ms to TimeoutMax.
	Timeout time.Duration
	// Routes says where TASK_ frames go.
	Routes Routes
	// AllowUIDs and AllowGIDs name the users and groups whose programs may connect, beside the gateway's own user, root,
	// and those that Peers has a rule for.
	AllowUIDs, AllowGIDs []uint32
	// AllowAnyone lets everybody connect who can open the socket.
	AllowAnyone bool
	// Peers says what the clients of some users and groups may do. For a client the rule of its user counts, else the
	// first one of a group that it is in; who has no rule may do everything but publish to reserved subjects.
	Peers []PeerRule
	// Audit says where the audit log is, if there is one, and what is recorded.
	Audit audit.Config
	// TraceSample is the share of the requests without a traceparent that begin a trace: 0 for none to 1 for all.
	TraceSample float64
	// TraceClients makes the gateway take part in the traces that clients sample, even if TraceSample is 0.
	TraceClients bool
	// Tracer takes the spans of sampled requests. Nil: nothing is traced. A reload does not change it.
	Tracer *trace.Sink
	// NATS says how to reach NATS.
	NATS upstream.Config
	// Logger takes the gateway's messages and those of gnet and nats.go. Nil: slog.Default().
	Logger *slog.Logger
}

// DefaultSubject is where the users of the C gateway expect their tasks to go.
const DefaultSubject = "beamline.router.v1.decide"

// DefaultConfig returns the configuration of a gateway that was told nothing.
func DefaultConfig() Config {
	route := Route{Subject: DefaultSubject, Mode: ModeRequest, Timeout: 30 * time.Second}
	return Config{
		SocketPath:               "/tmp/beamline-gateway.sock",
		SocketMode:               0o600,
		Loops:                    min(max(runtime.GOMAXPROCS(0)/2, 1), 8),
		MaxConnections:           4096,
		MaxInflight:              65536,
		MaxInflightPerConnection: 1024,
		MaxClientBufferBytes:     8 << 20,
		MaxUpstreamBufferBytes:   64 << 20,
		MaxHeldBytes:             64 << 20,
		AckWait:                  2 * time.Second,
		PauseMax:                 5 * time.Second,
		ClientWriteTimeout:       30 * time.Second,
		FrameTimeout:             30 * time.Second,
		BreakerThreshold:         20,
		BreakerOpenTime:          5 * time.Second,
		BreakerProbes:            1,
		BreakerSuccesses:         2,
		BreakerMinTimeout:        time.Second,
		Timeout:                  30 * time.Second,
		Routes:                   Routes{Submit: route, Query: route, Cancel: route},
		Audit:                    audit.Default(),
		NATS:                     upstream.Default(),
	}
}

// Validate returns every problem of c, joined, each with the name and the value of the field.
func (c *Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	inRange := func(name string, v, low, high int) {
		if v < low || v > high {
			bad("%s is %d: want %d to %d", name, v, low, high)
		}
	}

	if err := CheckSocketPath(c.SocketPath); err != nil {
		problems = append(problems, err)
	}
	if c.SocketMode&^os.ModePerm != 0 || c.SocketMode&0o600 != 0o600 {
		bad("socket mode is %#o: want permission bits that let the owner read and write, as 0600 or 0660", uint32(c.SocketMode))
	}
	inRange("loops", c.Loops, 1, loopsMax)
	if len(c.CPUs) != 0 && len(c.CPUs) != c.Loops {
		bad("cpus names %d CPUs for %d loops: name one for each loop", len(c.CPUs), c.Loops)
	}
	for _, cpu := range c.CPUs {
		inRange("cpus", cpu, 0, 1023)
	}
	inRange("max connections", c.MaxConnections, 1, 1<<20)
	inRange("max inflight", c.MaxInflight, 1, maxInflightMax)
	inRange("max inflight per connection", c.MaxInflightPerConnection, 1, maxInflightMax)
	inRange("max client buffer bytes", c.MaxClientBufferBytes, 4096, 1<<30)
	inRange("max upstream buffer bytes", c.MaxUpstreamBufferBytes, 4096, 1<<30)
	inRange("max jetstream buffer bytes", c.MaxHeldBytes, 4096, 1<<30)
	if c.AckWait < 10*time.Millisecond || c.AckWait > time.Hour {
		bad("jetstream ack wait is %v: want 10ms to 1h", c.AckWait)
	}
	if c.PauseMax < 0 || c.PauseMax > time.Hour {
		bad("pause max is %v: want 0 to 1h", c.PauseMax)
	}
	if c.ClientWriteTimeout != 0 && (c.ClientWriteTimeout < 10*time.Millisecond || c.ClientWriteTimeout > TimeoutMax) {
		bad("client write timeout is %v: want 10ms to %v, or 0 for none", c.ClientWriteTimeout, TimeoutMax)
	}
	if c.FrameTimeout != 0 && (c.FrameTimeout < 10*time.Millisecond || c.FrameTimeout > TimeoutMax) {
		bad("frame timeout is %v: want 10ms to %v, or 0 for none", c.FrameTimeout, TimeoutMax)
	}
	inRange("breaker threshold", c.BreakerThreshold, 0, 1<<20)
	if c.BreakerOpenTime < 10*time.Millisecond || c.BreakerOpenTime > time.Hour {
		bad("breaker open time is %v: want 10ms to 1h", c.BreakerOpenTime)
	}
	inRange("breaker probes", c.BreakerProbes, 1, 1000)
	inRange("breaker successes", c.BreakerSuccesses, 1, 1000)
	if c.BreakerMinTimeout < 0 || c.BreakerMinTimeout > TimeoutMax {
		bad("breaker min timeout is %v: want 0s to %v", c.BreakerMinTimeout, TimeoutMax)
	}
	checkTimeout := func(name string, d time.Duration) {
		if d < time.Millisecond || d > TimeoutMax {
			bad("%s is %v: want 1ms to %v", name, d, TimeoutMax)
		}
	}
	checkTimeout("timeout", c.Timeout)
	for _, r := range []struct {
		name  string
		route Route
	}{{"submit", c.Routes.Submit}, {"query", c.Routes.Query}, {"cancel", c.Routes.Cancel}} {
		if err := codec.ValidateSubject([]byte(r.route.Subject)); err != nil {
			bad("route %s: subject %q: %s", r.name, r.route.Subject, plain(err))
		}
		if r.route.Mode > ModeJetStream {
			bad("route %s: unknown mode %d", r.name, r.route.Mode)
		}
		checkTimeout("route "+r.name+": timeout", r.route.Timeout)
	}
	for _, pattern := range c.Routes.JetStream {
		if err := codec.ValidatePattern([]byte(pattern)); err != nil {
			bad("route publish: jetstream: subject %q: %s", pattern, plain(err))
		}
	}
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) { // so that NaN is wrong as well
		bad("trace sample is %v: want 0 to 1", c.TraceSample)
	}
	problems = append(problems, c.validatePeers()...)
	if err := c.Audit.Validate(); err != nil {
		problems = append(problems, err)
	}
	if err := c.NATS.Validate(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// CheckSocketPath reports whether path can be a socket's address.
func CheckSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("socket path is empty: name a file, as /run/ipc-gateway/gateway.sock")
	case path[0] == '@':
		// To clients this is no file, and has no permissions.
		return fmt.Errorf("socket path %q is an abstract address: name a file, as ./%s", path, path)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("socket path %q has a zero byte in it", path)
	case len(path) > SocketPathMax:
		return fmt.Errorf("socket path %q is %d bytes long: a Unix socket address takes at most %d", path, len(path), SocketPathMax)
	}
	return nil
}
