package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/aigroup/ipc-gateway/cmd/internal/daemon"
	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

const (
	// takeoverReadyMax bounds the wait of a gateway that takes over for its connections to NATS, and
	// takeoverAskMax that of the other one.
	takeoverReadyMax = 30 * time.Second
	takeoverAskMax   = takeoverReadyMax + 10*time.Second
	readyPoll        = 5 * time.Millisecond
)

// findPredecessor asks the gateway that serves, if there is one, to hand over. Nil: there is none.
func (s *service) findPredecessor() (*control.Takeover, error) {
	path := s.options.controlPath()
	if path == controlOff {
		return nil, errors.New("a takeover needs the control socket: name it with --control-socket")
	}
	predecessor, err := control.TakeOver(context.Background(), path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		s.log.Info("there is no gateway to take over from", "control", path)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the gateway at %s does not hand over: %w", path, err)
	}
	return predecessor, nil
}

// succession is what takeovers that go on leave to be waited for.
type succession struct {
	// Of the process that takes over; nil: it does not.
	inherited *engine.Inheritance
	from      *net.UnixConn
	took      chan struct{} // closed when nothing is taken any more
	inCharge  bool          // then: this process has the service
	failed    chan error    // has room for why this process gives up

	// Of the process that hands over.
	giving sync.Mutex    // held while it does
	gone   chan struct{} // closed when the other process has the service
}

func newSuccession() succession {
	return succession{took: make(chan struct{}), failed: make(chan error, 1), gone: make(chan struct{})}
}

// takes reports whether this process is still taking clients over: the control socket is the other one's.
func (c *succession) takes() bool { return c.from != nil && !isClosed(c.took) }

// takeOver starts the gateway in the place of one that serves: connected to NATS first, then with its sockets, and then, see
// takeClients, with its clients. After an error the other one serves on.
func (s *service) takeOver(from *control.Takeover) error {
	gateway, err := engine.New(s.options.engine)
	if err != nil {
		return err
	}
	if err := gateway.Prepare(); err != nil {
		return err
	}
	if err := s.inherit(gateway, from); err != nil {
		return fmt.Errorf("nothing was taken over, the other gateway serves on: %w", errors.Join(err, gateway.Close()))
	}
	s.succession.from = from.Conn
	s.notify.inherit(&s.succession.inherited.Legacy)
	return nil
}

// takeClients takes the clients of the other process, and then what only one process can have. Until ctx ends systemd is told how they are.
func (s *service) takeClients(ctx context.Context) {
	c := &s.succession
	defer close(c.took)
	clients, err := s.daemon.Gateway().TakeClients(c.inherited, func() { s.takeCharge(ctx) })
	c.inherited.Close()
	_ = c.from.Close()
	c.inCharge = err == nil || errors.Is(err, engine.ErrPredecessorEnded)
	switch {
	case err == nil:
		s.log.Info("the takeover is complete: this process remains, the other one ends", "clients", clients)
	case errors.Is(err, engine.ErrPredecessorEnded):
		s.log.Warn("the takeover was cut short: this process remains, with what it has taken; the other one has ended, or was told to", "clients", clients)
	case errors.Is(err, net.ErrClosed):
		s.log.Warn("the takeover was given up: the other process remains, this one ends", "clients", clients)
	default:
		s.log.Error("the takeover failed: the other process remains, this one ends", "error", err, "clients", clients)
		c.failed <- fmt.Errorf("the takeover failed, the other gateway serves on: %w", err)
	}
	if c.inCharge {
		s.app.tellDetached()
	}
}

// takeCharge serves the operator, and is the service for systemd, from now on.
func (s *service) takeCharge(ctx context.Context) {
	i := s.succession.inherited
	if i.Control != nil {
		if err := s.serveControl(i.Control); err != nil {
			s.log.Error("there is no control socket", "reason", err) // too late to go back
		}
		i.Control = nil // the server's
	}
	s.notify.serving(ctx, s.daemon.Gateway(), fmt.Sprintf("MAINPID=%d", os.Getpid()))
}

// endTakeover ends a takeover that goes on, whichever side of it this process is on: it was told to stop, so that the other one
// remains. It reports whether the service ends with this process.
func (s *service) endTakeover() (serviceEnds bool) {
	c := &s.succession
	if c.from != nil {
		_ = c.from.Close()
		<-c.took
	}
	s.daemon.Gateway().EndHandover()
	c.giving.Lock() // handOver has said how it ended
	defer c.giving.Unlock()
	return !isClosed(c.gone) && (c.from == nil || c.inCharge)
}

// inherit makes gateway ready, and gives it the sockets of the other one.
func (s *service) inherit(gateway *engine.Gateway, from *control.Takeover) (err error) {
	if from.Ready {
		if err := s.awaitReady(gateway); err != nil {
			return err
		}
	}
	select {
	case told := <-s.signals:
		return toldToStop(told)
	default: // from here on a signal finds a gateway that serves, and stops it as any other
	}
	i, err := engine.Inherit(from.Conn)
	if err != nil {
		return err
	}
	probe, err := s.inheritProbe(i)
	if err != nil {
		i.Close()
		return err
	}
	if err := gateway.TakeSocket(i); err != nil {
		i.Close()
		if probe != nil {
			_ = probe.Close()
		}
		return err
	}
	s.succession.inherited = i
	s.daemon = daemon.Serve(gateway, probe, buildVersion(), s.log, s.options.probeOptions()...)
	return nil
}

// inheritProbe returns the probe's listener: the other gateway's if it is at the same address.
func (s *service) inheritProbe(i *engine.Inheritance) (net.Listener, error) {
	if i.Probe != nil && i.ProbeAddress == s.options.probeAddr {
		return net.FileListener(i.Probe)
	}
	return s.listenProbe()
}

// awaitReady waits for the connections to NATS, unless a signal ends that.
func (s *service) awaitReady(gateway *engine.Gateway) error {
	late := time.NewTimer(takeoverReadyMax)
	defer late.Stop()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		err := gateway.Ready()
		if err == nil {
			return nil
		}
		select {
		case told := <-s.signals:
			return toldToStop(told)
		case <-late.C:
			return fmt.Errorf("not ready after %v: %w", takeoverReadyMax, err)
		case <-poll.C:
		}
	}
}

// toldToStop is the error of a start that a signal has ended before there was anything to finish.
func toldToStop(told os.Signal) error {
	return &exitError{signalCode(told), fmt.Errorf("told to stop (%v)", told)}
}

// handOver hands over to the process at the other end of conn, and then ends this one.
func (s *service) handOver(conn *net.UnixConn) {
	if err := engine.AwaitHandover(conn, takeoverAskMax); err != nil {
		s.log.Warn("a takeover was given up", "reason", err)
		return
	}
	s.mu.Lock()
	drainTimeout := s.options.drainTimeout
	legacy := engine.Legacy{ProbeAddress: s.options.probeAddr, Control: s.control.Socket()}
	s.mu.Unlock()
	s.notify.bequeath(&legacy)

	s.succession.giving.Lock()
	defer s.succession.giving.Unlock()
	s.log.Info("handing over to another process: it accepts clients now, and gets ours")
	s.notify.handingOver()
	over, err := s.daemon.HandOver(conn, legacy, drainTimeout)
	switch {
	case over && err != nil:
		s.log.Warn("the takeover was cut short: the other process remains, with what it has taken; this one ends, and serves the clients that are left until then", "reason", err)
	case err != nil:
		s.log.Error("the takeover failed, serving on: this process remains, the other one has ended or is about to", "error", err)
	}
	if over {
		s.control.Leave()
		close(s.succession.gone)
	} else {
		s.notify.remaining()
	}
}
