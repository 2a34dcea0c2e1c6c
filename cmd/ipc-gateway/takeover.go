package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
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

// takeOver starts the gateway in the place of one that serves: connected to NATS first, then with its sockets, then with
// its clients, in the background. After an error the other one serves on.
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
	patience := s.options.drainTimeout + takeoverAskMax
	go func() {
		defer from.Conn.Close() //nolint:errcheck // all is said
		clients, err := gateway.TakeClients(s.inherited, patience)
		s.inherited.Close()
		if err != nil {
			s.log.Error("not all clients of the other gateway could be taken over", "error", err, "clients", clients)
			return
		}
		s.log.Info("the takeover is complete", "clients", clients)
	}()
	return nil
}

// inherit makes gateway ready, and gives it the sockets of the other one.
func (s *service) inherit(gateway *engine.Gateway, from *control.Takeover) (err error) {
	if from.Ready {
		if err := awaitReady(gateway, takeoverReadyMax); err != nil {
			return err
		}
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
	if err := gateway.Listen(i.Socket); err != nil {
		i.Close()
		return err
	}
	i.Socket = nil // the gateway's
	s.inherited = i
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

func awaitReady(gateway *engine.Gateway, wait time.Duration) error {
	for deadline := time.Now().Add(wait); ; time.Sleep(readyPoll) {
		err := gateway.Ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", wait, err)
		}
	}
}

// handOver hands over to the process at the other end of conn, and then ends this one.
func (s *service) handOver(conn *net.UnixConn) {
	if err := engine.AwaitHandover(conn, takeoverAskMax); err != nil {
		s.log.Warn("a takeover was given up", "reason", err)
		return
	}
	s.mu.Lock()
	drainTimeout, probeAddress := s.options.drainTimeout, s.options.probeAddr
	s.mu.Unlock()
	s.log.Info("handing over to another process: it accepts clients now, and gets ours")
	if err := s.daemon.HandOver(conn, probeAddress, drainTimeout); err != nil {
		s.log.Error("the takeover failed, serving on", "error", err)
		return
	}
	close(s.handedOver)
}

// tellSuccession tells systemd, if it runs us, which process is the service now.
func (s *service) tellSuccession() { s.notify.tell(fmt.Sprintf("MAINPID=%d", os.Getpid())) }
