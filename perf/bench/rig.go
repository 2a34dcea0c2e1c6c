package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// subject is where the responder listens.
const subject = "perf.echo"

// rig is all that stands before the load: NATS, a responder, a gateway and the C echo.
type rig struct {
	folder string // of binaries and sockets; ours, removed by stop

	natsd, responder, gateway *process
	echo                      *process // nil: there is no C compiler

	natsURL       string
	metricsURL    string // of the gateway
	scrapeMallocs int64  // what one scrape adds to the gateway's
}

// startRig builds and starts everything. Stop the rig, with an error too.
//
// REQUIRES: on the main thread.
func startRig(ctx context.Context, s *settings) (*rig, error) {
	r := &rig{}
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
	if err := r.startNATS(ctx); err != nil {
		return r, err
	}
	if err := r.startGateway(ctx, s); err != nil {
		return r, err
	}
	for _, name := range []string{"echo", "sockets"} {
		err := buildC(ctx, root, r.folder, name)
		if errors.Is(err, errNoCompiler) {
			progress("no clients in C, and PING is not compared with the C echo: %v", err)
			return r, nil
		}
		if err != nil {
			return r, err
		}
	}
	if r.echo, err = start(ctx, "C echo", r.path("echo"), r.path("echo.sock")); err != nil {
		return r, err
	}
	_, err = r.echo.awaitReady()
	return r, err
}

// path is the place of a file of the rig.
func (r *rig) path(name string) string { return filepath.Join(r.folder, name) }

func (r *rig) startNATS(ctx context.Context) (err error) {
	if r.natsd, err = start(ctx, "NATS server", r.path("natsd")); err != nil {
		return err
	}
	if r.natsURL, err = r.natsd.awaitReady(); err != nil {
		return err
	}
	r.responder, err = start(ctx, "responder", r.path("responder"), "-nats-url", r.natsURL, "-subject", subject)
	if err != nil {
		return err
	}
	_, err = r.responder.awaitReady()
	return err
}

func (r *rig) startGateway(ctx context.Context, s *settings) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	args := []string{"serve", "--socket", r.path("gateway.sock"), "--nats-url", r.natsURL, "--probe-addr", address, "--subject", subject}
	if s.loops > 0 {
		args = append(args, "--loops", strconv.Itoa(s.loops))
	}
	if r.gateway, err = start(ctx, "gateway", r.path("ipc-gateway"), args...); err != nil {
		return err
	}
	if err := r.awaitGateway(ctx, "http://"+address+"/ready"); err != nil {
		return err
	}
	r.metricsURL = "http://" + address + "/metrics"
	return r.calibrate(ctx)
}

// awaitGateway waits until the gateway serves requests.
func (r *rig) awaitGateway(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := get(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-r.gateway.ended:
			return r.gateway.failure(err)
		case <-ctx.Done():
			return r.gateway.failure(err)
		}
	}
}

// calibrate measures what a scrape costs the gateway, after one that makes the buffers.
func (r *rig) calibrate(ctx context.Context) error {
	var seen [3]goMetrics
	for i := range seen {
		var err error
		if seen[i], err = scrape(ctx, r.metricsURL); err != nil {
			return r.gateway.failure(err)
		}
	}
	r.scrapeMallocs = seen[2].mallocs - seen[1].mallocs
	return nil
}

// processes are those that run.
func (r *rig) processes() []*process {
	var running []*process
	for _, p := range []*process{r.natsd, r.responder, r.gateway, r.echo} {
		if p != nil {
			running = append(running, p)
		}
	}
	return running
}

// stop ends all processes and removes the rig's files.
func (r *rig) stop() {
	for _, p := range r.processes() {
		p.stop()
	}
	if r.folder == "" {
		return
	}
	if err := os.RemoveAll(r.folder); err != nil {
		progress("%v", err)
	}
}

// freeAddress returns a loopback address that nobody listens on. Somebody else may take it before
// we do; then the gateway says so, and the benchmark ends.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("no free loopback port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
