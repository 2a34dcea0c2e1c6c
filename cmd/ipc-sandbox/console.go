package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// console serves the operator's commands (show, kill, drain) beside the gateway's socket. A sandbox has no file to be read
// again, and hands over to nobody.
type console struct {
	server      *control.Server
	drainWanted chan struct{} // has room for one
	over        chan struct{}
	outcome     error // of the gateway's end, once over is closed
}

func (s *sandbox) startConsole(gateway *engine.Gateway, natsURL string, log *slog.Logger) (*console, error) {
	socket, err := control.Listen(s.Socket + control.SocketSuffix)
	if err != nil {
		return nil, err
	}
	c := &console{drainWanted: make(chan struct{}, 1), over: make(chan struct{})}
	settings := []control.Setting{
		{Name: "socket", Value: s.Socket, Source: "sandbox"}, {Name: "probe_addr", Value: s.ProbeAddr, Source: "sandbox"},
		{Name: "loops", Value: fmt.Sprint(s.Loops), Source: "sandbox"}, {Name: "nats_url", Value: natsURL, Source: "sandbox"},
	}
	c.server = control.New(control.Options{
		Gateway: gateway, Version: "sandbox", Log: log,
		Reload: func(context.Context) (control.Reloaded, error) {
			return control.Reloaded{}, errors.New("a sandbox has no file to read again: ipc-gateway serve --config FILE has")
		},
		Drain:    c.drain,
		Settings: func() []control.Setting { return settings },
	})
	return c, c.server.Serve(socket)
}

func (c *console) drain() control.Shutdown {
	select {
	case c.drainWanted <- struct{}{}:
	default: // it was asked for
	}
	return control.Shutdown{Over: c.over, Err: func() error { return c.outcome }}
}

// end tells those who wait for the end how it was, and ends the console. It returns all that went wrong.
func (c *console) end(outcome error) error {
	c.outcome = outcome
	close(c.over)
	return errors.Join(outcome, c.server.Close())
}
