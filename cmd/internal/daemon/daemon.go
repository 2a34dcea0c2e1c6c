// Package daemon runs a gateway together with its probe: it opens and closes them in the right order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	gateway *engine.Gateway
	server  *http.Server // nil: no probe
	address string
	served  chan struct{} // closed when the server's goroutine has ended
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
// if that is nil. The probe tells version. Start does not wait for NATS.
func Start(cfg engine.Config, listener net.Listener, version string) (*Daemon, error) {
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
	d := &Daemon{gateway: gateway, address: "off", served: make(chan struct{})}
	if listener == nil {
		close(d.served)
		return d, nil
	}

	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	d.address = listener.Addr().String()
	d.server = &http.Server{
		Handler:           probe.NewHandler(gateway, probe.WithVersion(version)),
		ReadHeaderTimeout: probeHeaderTimeout,
		ReadTimeout:       probeReadTimeout,
		WriteTimeout:      probeWriteTimeout,
		IdleTimeout:       probeIdleTimeout,
		MaxHeaderBytes:    probeHeaderBytesMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(d.served)
		if err := d.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the probe is gone, the gateway goes on without it", "error", err)
		}
	}()
	return d, nil
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
	if d.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeShutdownTimeout)
	defer cancel()
	if d.server.Shutdown(ctx) != nil {
		_ = d.server.Close()
	}
	<-d.served
}
