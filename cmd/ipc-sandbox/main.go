// Command ipc-sandbox shows the gateway at work without anything else to install: one process with a
// NATS server, a responder, and a gateway, and lines to copy into another terminal.
//
// It is for trying things out: the NATS server listens on loopback, without authentication, and
// forgets everything.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/aigroup/ipc-gateway/cmd/internal/daemon"
	"github.com/aigroup/ipc-gateway/engine"
)

// sandbox is the command line.
type sandbox struct {
	Socket    string `placeholder:"PATH" default:"${socket}" help:"Unix socket of the gateway [${default}]."`
	ProbeAddr string `placeholder:"HOST:PORT" default:"127.0.0.1:8080" help:"Where /health, /ready and /metrics are served [${default}]; if it is taken, on a free port."`
	Loops     int    `placeholder:"N" default:"${loops}" help:"Event loops [${default}]."`
	NATSAddr  string `name:"nats-addr" placeholder:"HOST:PORT" default:"127.0.0.1:0" help:"Where the NATS server listens [${default}]; port 0: a free one."`
}

// Help is what --help says before the flags.
func (s *sandbox) Help() string {
	return `Starts a NATS server, a responder and a gateway in this process, and prints lines to copy into another terminal. Ctrl-C ends it.

The responder answers on the gateway's default subject, and on demo.echo (payload and headers back), demo.error (an error of the service) and demo.slow (after 2 seconds).`
}

// drainTimeout is short: nobody waits for the answers of a sandbox.
const drainTimeout = 3 * time.Second

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)

	var s sandbox
	defaults := engine.DefaultConfig()
	kong.Parse(&s, kong.Name("ipc-sandbox"), kong.Vars{"socket": defaults.SocketPath, "loops": fmt.Sprint(defaults.Loops)})
	if err := s.run(os.Stdout, os.Stderr, signals); err != nil {
		fmt.Fprintf(os.Stderr, "ipc-sandbox: %v\n", err)
		os.Exit(1)
	}
}

// run starts the three, tells how to use them and stops them when a signal comes.
func (s *sandbox) run(stdout, stderr io.Writer, signals <-chan os.Signal) error {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, err := startServer(s.NATSAddr)
	if err != nil {
		return err
	}
	defer server.stop()
	stopResponder, err := startResponder(server.url())
	if err != nil {
		return err
	}
	defer stopResponder()

	probe, err := listenProbe(s.ProbeAddr, stdout)
	if err != nil {
		return err
	}
	cfg := engine.DefaultConfig()
	cfg.SocketPath, cfg.Loops, cfg.Logger = s.Socket, s.Loops, log
	cfg.NATS.URLs = []string{server.url()}
	gateway, err := daemon.Start(cfg, probe, "sandbox")
	if err != nil {
		return err
	}
	if err := waitReady(gateway, signals); err != nil {
		_ = gateway.Stop(0)
		return err
	}
	console, err := s.startConsole(gateway.Gateway(), server.url(), log)
	if err != nil {
		return errors.Join(err, gateway.Stop(0))
	}
	fmt.Fprint(stdout, instructions(s.Socket, server.url(), gateway.ProbeAddr()))

	select {
	case <-signals:
	case <-console.drainWanted:
	}
	fmt.Fprintln(stdout, "\nstopping")
	stopped := make(chan error, 1)
	go func() { stopped <- gateway.Stop(drainTimeout) }()
	select {
	case err := <-stopped:
		return console.end(err) // only now those who drain are told: signals that come after that change nothing
	case <-signals:
		return fmt.Errorf("stopped at once, %s may be left behind", s.Socket)
	}
}

// listenProbe binds address, or a free port of this machine if it is taken, and says so.
func listenProbe(address string, stdout io.Writer) (net.Listener, error) {
	listener, err := daemon.ListenProbe(address)
	if err == nil {
		return listener, nil
	}
	fmt.Fprintf(stdout, "note: %v; using a free port instead\n", err)
	return daemon.ListenProbe("127.0.0.1:0")
}

// readyTimeout is plenty for a NATS server in the same process.
const readyTimeout = 10 * time.Second

// waitReady waits until the gateway is connected to NATS, so that the lines work when they are seen.
func waitReady(gateway *daemon.Daemon, signals <-chan os.Signal) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(readyTimeout)
	for {
		reason := gateway.Ready()
		if reason == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-signals:
			return fmt.Errorf("stopped before the gateway was ready: %w", reason)
		case <-deadline:
			return fmt.Errorf("the gateway is not ready after %v: %w", readyTimeout, reason)
		}
	}
}
