package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/aigroup/ipc-gateway/cmd/internal/daemon"
	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

const (
	// reloadWait bounds the wait of a reload for the event loops.
	reloadWait = 5 * time.Second
	// sameWish is how long after the begin of a shutdown a signal is taken for what began it: timeout(1) signals its child
	// and then the group that the child is in, and with Ctrl-C a program that passes signals on doubles that of the
	// terminal. Both come within milliseconds. Somebody who is impatient takes longer, or tries again.
	sameWish = 500 * time.Millisecond
)

// service is the gateway as the command serve runs it: with its probe, its control socket, and what
// signals and the console ask of it.
type service struct {
	app   *app
	flags map[string]string // texts of the command line
	log   *slog.Logger
	level *slog.LevelVar

	signals, hangups <-chan os.Signal
	passed           passedSockets
	notify           *notifier
	stopTelling      context.CancelFunc
	daemon           *daemon.Daemon
	control          *control.Server // nil: switched off, or still that of the process that hands over
	succession       succession
	tracing          tracing // mu guards it once the service runs

	drainWanted chan struct{} // has room for the wish of the console
	over        chan struct{} // closed when all but the control socket is closed
	outcome     error         // then: what could not be finished

	// mu is held while the configuration is changed, and guards what follows.
	mu       sync.Mutex
	options  *options // that count now
	stopping bool
}

// startService opens everything: the control socket first, as it tells whether another gateway runs here,
// then the probe's port, then the gateway's socket. What was opened before an error is closed again.
func startService(a *app, flags map[string]string, o *options) (*service, error) {
	level := &slog.LevelVar{}
	level.Set(o.logLevel)
	s := &service{app: a, flags: flags, level: level, log: newLogger(a.stderr, o.logFormat, level), options: o,
		drainWanted: make(chan struct{}, 1), over: make(chan struct{}), succession: newSuccession()}
	s.signals, s.hangups, s.notify = a.signals(), a.hangups(), newNotifier(s.log)
	o.engine.Logger = s.log
	limitMemory(a, s.log)
	o.sampleHeap()

	passed, err := takePassed()
	if err != nil {
		return nil, err
	}
	passed.use(o)
	s.passed = passed
	if err := s.tracing.use(a, o); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.tracing.stop())
	}
	s.log.Info("serving", "version", buildVersion(), "pid", os.Getpid(), "socket", o.engine.SocketPath, "control", s.controlPath(),
		"loops", o.engine.Loops, "cpus", showCPUs(o.engine.CPUs), "nats", redacted(o.engine.NATS.URLs), "probe", s.daemon.ProbeAddr())
	if o.pprof != pprofOff {
		s.log.Info("profiles are served", "url", "http://"+s.daemon.ProbeAddr()+"/debug/pprof/")
	}
	ctx, stopTelling := context.WithCancel(context.Background())
	s.stopTelling = stopTelling
	s.notify.feeding(ctx, s.daemon.Gateway())
	if s.succession.from != nil {
		go s.takeClients(ctx)
	} else {
		s.notify.serving(ctx, s.daemon.Gateway(), sd.SdNotifyReady)
		a.tellDetached()
	}
	return s, nil
}

// begin starts the gateway, in the place of one that serves if that is wanted and there is one.
func (s *service) begin() error {
	if s.options.takeover && s.passed.main == nil {
		predecessor, err := s.findPredecessor()
		if err != nil {
			return err
		}
		if predecessor != nil {
			return s.beginTakingOver(predecessor)
		}
	}
	socket := s.passed.control
	if socket == nil {
		var err error
		if socket, err = listenControl(s.options, s.log); err != nil {
			return err
		}
	}
	if err := s.start(socket); err != nil {
		if socket != nil {
			err = errors.Join(err, socket.Remove(), socket.Close())
		}
		return err
	}
	return nil
}

func (s *service) beginTakingOver(from *control.Takeover) error {
	if err := s.takeOver(from); err != nil {
		_ = from.Conn.Close()
		return err
	}
	return nil
}

func (s *service) listenProbe() (net.Listener, error) {
	probe, err := daemon.ListenProbe(s.options.probeAddr)
	if err != nil {
		return nil, fmt.Errorf("%w: name another address with --probe-addr, or --probe-addr off", err)
	}
	return probe, nil
}

func (s *service) start(socket *engine.SocketFile) error {
	probe, err := s.listenProbe()
	if err != nil {
		return err
	}
	if s.daemon, err = daemon.Start(s.options.engine, probe, buildVersion(), s.options.probeOptions()...); err != nil {
		return err
	}
	if socket == nil {
		return nil
	}
	if err := s.serveControl(socket); err != nil {
		return errors.Join(err, s.daemon.Stop(0))
	}
	return nil
}

func (s *service) serveControl(socket *engine.SocketFile) error {
	s.control = control.New(control.Options{
		Gateway: s.daemon.Gateway(), Version: buildVersion(), Log: s.log,
		Reload: s.reload, Drain: s.drain, Settings: s.settings, HandOver: s.handOver,
	})
	err := s.control.Serve(socket)
	if err != nil {
		s.control = nil
	}
	return err
}

// run serves until a signal or the console ends it.
func (s *service) run() error {
	for {
		select {
		case first := <-s.signals:
			return s.stop(first.String())
		case <-s.drainWanted:
			return s.stop("drain")
		case <-s.succession.gone:
			return s.stop("takeover")
		case err := <-s.succession.failed:
			return errors.Join(err, s.stop("takeover"))
		case <-s.hangups:
			ctx, cancel := context.WithTimeout(context.Background(), reloadWait)
			_, _ = s.reload(ctx) // it logs how it went
			cancel()
		}
	}
}

// drain asks for the shutdown, as a signal does.
func (s *service) drain() control.Shutdown {
	select {
	case s.drainWanted <- struct{}{}:
	default: // it was asked for
	}
	return control.Shutdown{Over: s.over, Err: func() error { return s.outcome }}
}

// stop finishes what is in flight and ends everything, unless a second signal cuts it short.
func (s *service) stop(why string) error {
	s.mu.Lock()
	s.stopping = true
	drainTimeout := s.options.drainTimeout
	s.mu.Unlock()

	s.log.Info("stopping: requests in flight may finish", "by", why, "at_most", drainTimeout)
	began := time.Now()
	stopped := make(chan error, 1)
	go func() {
		if serviceEnds := s.endTakeover(); serviceEnds { // else it goes on, with the other process
			s.notify.stopping(drainTimeout)
		}
		stopped <- s.daemon.Stop(drainTimeout)
	}()
	second, err := s.awaitStop(stopped, began)
	if second != nil {
		s.log.Warn("second signal: exiting at once", "signal", second.String())
		if !s.succession.takes() && s.control != nil {
			err = s.control.RemovePath()
		}
		return &exitError{code: signalCode(second), err: err}
	}
	s.stopTelling()
	if traceErr := s.tracing.stop(); traceErr != nil {
		s.log.Warn("not all spans could be exported", "reason", traceErr)
	}
	s.outcome = err
	close(s.over)
	if errors.Is(err, daemon.ErrDrain) {
		s.log.Warn("not everything could be finished", "reason", err)
		err = nil
	}
	if s.control != nil {
		err = errors.Join(err, s.control.Close())
	}
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}

// awaitStop returns the signal that cuts the shutdown short, or what stopped yields.
func (s *service) awaitStop(stopped <-chan error, began time.Time) (second os.Signal, err error) {
	for {
		select {
		case err = <-stopped:
			return nil, err
		case second = <-s.signals:
			if time.Since(began) >= sameWish {
				return second, nil
			}
			s.log.Info("a signal right behind the begin of the shutdown changes nothing", "signal", second.String())
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
