package compare

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// subject is where the responder listens, stored what a stream takes, sink one where nobody listens.
const subject, stored, sink = "perf.echo", "perf.js", "perf.sink"

// rig is all that stands before the clients.
type rig struct {
	folder   string // of binaries and sockets; ours, removed by stop
	running  []*process
	natsd    *process
	broker   []string // flags of programs that connect to NATS
	natsURL  string
	sides    map[string]*side
	leftOut  []string // why sides do not take part
	progress func(format string, args ...any)
}

// side is one way to NATS, or to an answer.
type side struct {
	name    string
	middle  *process                                     // between the clients and NATS, or what answers; nil: there is none
	meter   func(context.Context) (goMetrics, error)     // of middle; nil: it is not in Go
	idle    int64                                        // mallocs that reading meter costs
	clients func(c Cell) (program string, args []string) // without the duration
}

// startRig builds and starts everything that s needs. Stop the rig, with an error too.
//
// REQUIRES: on the main thread.
func startRig(ctx context.Context, s *Settings, progress func(string, ...any)) (*rig, error) {
	r := &rig{sides: map[string]*side{}, progress: progress}
	root, err := moduleRoot(ctx)
	if err != nil {
		return r, err
	}
	if r.folder, err = os.MkdirTemp("", "ipc-bench-"); err != nil {
		return r, err
	}
	if err := buildPrograms(ctx, root, r.folder); err != nil {
		return r, err
	}
	for _, source := range []string{"perf/sockets/sockets.c", "perf/peers/echo/echo.c"} {
		if err := buildC(ctx, root, r.folder, source); err != nil {
			return r, err
		}
	}
	if err := r.startNATS(ctx, s.TLS); err != nil {
		return r, err
	}
	for _, name := range slices.Concat(AllSides, []string{SideBase}) {
		if !s.takesPart(name) {
			continue
		}
		if err := r.startSide(ctx, s, name); err != nil {
			return r, err
		}
	}
	return r, nil
}

// takesPart says whether a side runs in any cell.
func (s *Settings) takesPart(side string) bool {
	return slices.ContainsFunc(s.Cells, func(c Cell) bool { return slices.Contains(s.sidesOf(c), side) })
}

func (r *rig) startSide(ctx context.Context, s *Settings, name string) error {
	one := &side{name: name}
	var err error
	switch name {
	case SideGateway:
		err = r.startGateway(ctx, s, one, r.path("ipc-gateway"))
	case SideBase:
		err = r.startGateway(ctx, s, one, s.Base)
	case SideDirect:
		one.clients = r.directClients()
	case SideHAProxy:
		err = r.startHAProxy(ctx, one)
	case SideSidecar, SideRing:
		err = r.startSidecar(ctx, one)
	case SideEcho:
		one.clients = r.socketClients(name)
		one.middle, err = r.start(ctx, name, r.path("echo"), r.socket(name))
		if err == nil {
			_, err = one.middle.awaitReady()
		}
	}
	if errors.Is(err, errAbsent) {
		r.leftOut = append(r.leftOut, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	r.sides[name] = one
	return r.calibrate(ctx, one)
}

// errAbsent is returned where a peer is not installed.
var errAbsent = errors.New("not installed")

// path is the place of a file of the rig, and socket that of a side's socket.
func (r *rig) path(name string) string   { return filepath.Join(r.folder, name) }
func (r *rig) socket(side string) string { return r.path(side + ".sock") }

func (r *rig) start(ctx context.Context, name, program string, args ...string) (*process, error) {
	p, err := start(ctx, name, program, args...)
	if err == nil {
		r.running = append(r.running, p)
	}
	return p, err
}

func (r *rig) startNATS(ctx context.Context, tls bool) (err error) {
	args := []string{"-jetstream", r.path("jetstream")}
	if tls {
		args = append(args, "-tls", r.path("ca.pem"))
	}
	if r.natsd, err = r.start(ctx, "NATS server", r.path("natsd"), args...); err != nil {
		return err
	}
	if r.natsURL, err = r.natsd.awaitReady(); err != nil {
		return err
	}
	r.broker = []string{"--nats-url", r.natsURL}
	if tls {
		r.broker = append(r.broker, "--nats-ca", r.path("ca.pem"))
	}
	responder, err := r.start(ctx, "responder", r.path("responder"), r.withBroker("-subject", subject)...)
	if err != nil {
		return err
	}
	_, err = responder.awaitReady()
	return err
}

// withBroker adds where NATS is to the arguments of a program.
func (r *rig) withBroker(args ...string) []string { return append(slices.Clone(r.broker), args...) }

// gatewayConfig is what no flag can say: where a stream takes what is published.
const gatewayConfig = "routes: {publish: {jetstream: [" + stored + "]}}\n"

// startGateway starts a gateway with its defaults, and these flags.
func (r *rig) startGateway(ctx context.Context, s *Settings, one *side, binary string, flags ...string) (err error) {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	config := r.path(one.name + ".yaml")
	if err := os.WriteFile(config, []byte(gatewayConfig), 0o600); err != nil {
		return err
	}
	args := append([]string{"serve"}, r.withBroker("--config", config, "--socket", r.socket(one.name), "--probe-addr", address, "--subject", subject)...)
	if s.Loops > 0 {
		args = append(args, "--loops", strconv.Itoa(s.Loops))
	}
	args = append(args, flags...)
	one.clients = r.socketClients(one.name)
	if one.middle, err = r.start(ctx, one.name, binary, args...); err != nil {
		return err
	}
	one.meter = func(ctx context.Context) (goMetrics, error) { return scrape(ctx, "http://"+address+"/metrics") }
	return one.middle.await(ctx, func() error {
		_, err := get(ctx, "http://"+address+"/ready")
		return err
	})
}

func (r *rig) startSidecar(ctx context.Context, one *side) (err error) {
	one.clients = r.socketClients(one.name)
	one.middle, err = r.start(ctx, one.name, r.path(one.name), r.withBroker("-subject", subject, "-socket", r.socket(one.name))...)
	if err != nil {
		return err
	}
	one.meter = func(context.Context) (goMetrics, error) { return one.middle.askMeter() }
	_, err = one.middle.awaitReady()
	return err
}

// haproxyConfig is a plain proxy from a Unix socket to the NATS server.
const haproxyConfig = `defaults
    mode tcp
    maxconn 8192
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen nats
    bind unix@{{socket}} mode 600
    server nats {{server}}
`

func (r *rig) startHAProxy(ctx context.Context, one *side) error {
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		return fmt.Errorf("haproxy is %w", errAbsent)
	}
	config := strings.NewReplacer("{{socket}}", r.socket(one.name), "{{server}}", r.natsURL[strings.Index(r.natsURL, "://")+len("://"):]).Replace(haproxyConfig)
	if err := os.WriteFile(r.path("haproxy.cfg"), []byte(config), 0o600); err != nil {
		return err
	}
	one.clients = r.directClients("-unix", r.socket(one.name))
	if one.middle, err = r.start(ctx, one.name, binary, "-db", "-f", r.path("haproxy.cfg")); err != nil {
		return err
	}
	return one.middle.await(ctx, func() error {
		conn, err := net.Dial("unix", r.socket(one.name))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// calibrate measures what reading a side's meter costs it, after one reading that makes the buffers.
func (r *rig) calibrate(ctx context.Context, one *side) error {
	if one.meter == nil {
		return nil
	}
	var seen [3]goMetrics
	for i := range seen {
		var err error
		if seen[i], err = one.meter(ctx); err != nil {
			return one.middle.failure(err)
		}
	}
	one.idle = seen[2].mallocs - seen[1].mallocs
	return nil
}

// socketClients are programs in C with a plain socket, a process for each connection.
func (r *rig) socketClients(side string) func(Cell) (string, []string) {
	return func(c Cell) (string, []string) {
		return "sockets", []string{c.Kind, r.socket(side), strconv.Itoa(c.Connections), strconv.Itoa(c.Window), strconv.Itoa(c.Payload)}
	}
}

// subject is where requests of a cell go.
func (c Cell) subject() string {
	switch {
	case c.Kind == KindJetStream:
		return stored
	case c.publishes():
		return sink
	}
	return subject
}

// directProgramsMax bounds the processes that have a Go runtime and a nats.go of their own each: more would measure
// the machine's memory. More connections than that are spread over them.
const directProgramsMax = 64

// directClients are programs with nats.go.
func (r *rig) directClients(more ...string) func(Cell) (string, []string) {
	return func(c Cell) (string, []string) {
		programs := min(c.Connections, directProgramsMax)
		mode, window := c.Kind, c.Window
		if c.publishes() {
			mode, window = "publish", 1
		}
		args := r.withBroker("-controlled", "-mode", mode, "-subject", c.subject(), "-programs", strconv.Itoa(programs),
			"-conns", strconv.Itoa(c.Connections), "-window", strconv.Itoa(window), "-payload", strconv.Itoa(c.Payload))
		return "direct", append(args, more...)
	}
}

// blame adds to a failed run which of the rig's processes has died, if one has.
func (r *rig) blame(err error) error {
	for _, p := range r.running {
		if dead := p.alive(); dead != nil {
			return fmt.Errorf("%w\n%w", err, dead)
		}
	}
	return err
}

// stop ends all processes and removes the rig's files.
func (r *rig) stop() {
	for _, p := range r.running {
		p.stop()
	}
	if r.folder == "" {
		return
	}
	if err := os.RemoveAll(r.folder); err != nil {
		r.progress("%v", err)
	}
}

// freeAddress returns a loopback address that nobody listens on. Somebody else may take it before
// we do; then the gateway says so, and the comparison ends.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("no free loopback port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// await waits until ready returns nil.
func (p *process) await(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-p.ended:
			return p.failure(err)
		case <-ctx.Done():
			return p.failure(err)
		}
	}
}

// ask writes an empty line to a process and returns the line that it answers.
func (p *process) ask() (string, error) {
	if _, err := p.stdin.Write([]byte("\n")); err != nil {
		return "", p.failure(err)
	}
	return p.line()
}

// askMeter reads what perf/internal/meter says: lines up to an empty one.
func (p *process) askMeter() (goMetrics, error) {
	var text strings.Builder
	line, err := p.ask()
	for ; err == nil && line != ""; line, err = p.line() {
		text.WriteString(line + "\n")
	}
	if err != nil {
		return goMetrics{}, err
	}
	return parseMetrics(text.String())
}
