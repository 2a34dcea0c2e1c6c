// Package daemon runs a gateway together with its probe: it opens and closes them in the right order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/probe"
)

// ErrDrain is wrapped by the error of Stop when requests in flight had to be given up. All else that
// Stop does was done.
var ErrDrain = errors.New("drain")

// Bounds of one exchange with the probe. A scrape is a few hundred KiB at most.
const (
	probeHeaderTimeout   = 5 * time.Second
	probeReadTimeout     = 10 * time.Second
	probeWriteTimeout    = 30 * time.Second
	probeIdleTimeout     = 2 * time.Minute
	probeHeaderBytesMax  = 16 << 10
	probeShutdownTimeout = time.Second
)

// Daemon is a running gateway with its probe.
type Daemon struct {
	gateway  *engine.Gateway
	options  []probe.Option
	log      *slog.Logger
	listener net.Listener // nil: no probe
	address  string       // of the probe, or "off"

	// mu guards what a handover changes that fails.
	mu     sync.Mutex
	server *http.Server
	served chan struct{} // closed when the server's goroutine has ended
}

// ListenProbe binds the probe's port. An empty address is no probe: a nil listener and no error.
func ListenProbe(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("probe address %s cannot be used: %w", address, err)
	}
	return listener, nil
}

// Start starts a gateway and serves its probe on listener, which it owns from now on, or nowhere
// if that is nil. The probe tells version, and has the options. Start does not wait for NATS.
func Start(cfg engine.Config, listener net.Listener, version string, options ...probe.Option) (*Daemon, error) {
	gateway, err := engine.New(cfg)
	if err == nil {
		err = gateway.Start()
	}
	if err != nil {
		if listener != nil {
			_ = listener.Close()
		}
		return nil, err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	return Serve(gateway, listener, version, log, options...), nil
}

// Serve is the part of Start for a gateway that runs.
func Serve(gateway *engine.Gateway, listener net.Listener, version string, log *slog.Logger, options ...probe.Option) *Daemon {
	options = append([]probe.Option{probe.WithVersion(version)}, options...)
	d := &Daemon{gateway: gateway, options: options, log: log, listener: listener, address: "off"}
	if listener != nil {
		d.address = listener.Addr().String()
		d.serveProbe(listener)
	}
	return d
}

func (d *Daemon) serveProbe(listener net.Listener) {
	server, served := &http.Server{
		Handler:           probe.NewHandler(d.gateway, d.options...),
		ReadHeaderTimeout: probeHeaderTimeout,
		ReadTimeout:       probeReadTimeout,
		WriteTimeout:      probeWriteTimeout,
		IdleTimeout:       probeIdleTimeout,
		MaxHeaderBytes:    probeHeaderBytesMax,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}, make(chan struct{})
	d.mu.Lock()
	d.server, d.served = server, served
	d.mu.Unlock()
	go func() {
		defer close(served)
		// The goroutines that serve inherit it.
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("part", "probe")))
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("the probe is gone, the gateway goes on without it", "error", err)
		}
	}()
}

// HandOver hands the gateway, its clients and legacy, to which it adds the probe's port, over to the process at the other end
// of conn: see [engine.Gateway.HandOver]. If that is not over in the end all goes on here, else Stop is still to be called.
func (d *Daemon) HandOver(conn *net.UnixConn, legacy engine.Legacy, timeout time.Duration) (over bool, err error) {
	var port *os.File
	if tcp, ok := d.listener.(*net.TCPListener); ok {
		if port, err = tcp.File(); err != nil {
			return false, err
		}
		defer port.Close() //nolint:errcheck // a duplicate
	}
	legacy.Probe = port
	accepting := false
	over, err = d.gateway.HandOver(conn, legacy, func() {
		accepting = true
		d.stopProbe() // or some would be told of this process, and some of the other one
	}, timeout)
	if over || !accepting || port == nil {
		return over, err
	}
	listener, listenErr := net.FileListener(port)
	if listenErr != nil {
		return false, errors.Join(err, fmt.Errorf("the probe is gone: %w", listenErr))
	}
	d.listener = listener
	d.serveProbe(listener)
	return false, err
}

// ProbeAddr returns the address that the probe has, or "off".
func (d *Daemon) ProbeAddr() string { return d.address }

// Gateway returns the gateway that runs.
func (d *Daemon) Gateway() *engine.Gateway { return d.gateway }

// Ready returns nil when the gateway can serve, else the reason why not.
func (d *Daemon) Ready() error { return d.gateway.Ready() }

// Stop lets requests in flight finish for at most timeout, then closes the gateway, and the probe
// last, so that it can say "draining" in the meantime.
func (d *Daemon) Stop(timeout time.Duration) error {
	drained := d.gateway.Drain(timeout)
	if drained != nil {
		drained = fmt.Errorf("%w: %w", ErrDrain, drained)
	}
	closed := d.gateway.Close()
	d.stopProbe()
	if closed != nil {
		return closed
	}
	return drained
}

func (d *Daemon) stopProbe() {
	d.mu.Lock()
	server, served := d.server, d.served
	d.mu.Unlock()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeShutdownTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
	<-served
}
