package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/aigroup/ipc-gateway/perf/compare"
)

// compareCommand measures the gateway beside its peers.
type compareCommand struct {
	Quick       bool       `xor:"size" help:"Less than a minute: shows that all works, its figures are worth little."`
	Full        bool       `xor:"size" help:"Every combination of 1 to 1024 connections, windows and payloads that can be measured: an hour. Which cannot, and why, is said."`
	Kinds       []string   `placeholder:"KIND" help:"request, connect, ping, publish, publish-answered, jetstream; with it or one of the next three these combinations are measured, and no others."`
	Connections []int      `short:"t" placeholder:"N" help:"Connections."`
	Windows     []int      `short:"w" placeholder:"N" help:"Requests in flight on each connection."`
	Payloads    []int      `short:"p" placeholder:"BYTES" help:"Payload of a request."`
	Sides       []string   `placeholder:"SIDE" help:"Only these: gateway, direct, haproxy, sidecar, ring, echo."`
	Seconds     seconds    `short:"d" placeholder:"SECONDS" help:"Length of a run [1.2; 0.3 with --quick]."`
	Repeats     int        `short:"n" placeholder:"N" help:"Runs of each side in each combination [3; 2 with --quick]."`
	Loops       int        `placeholder:"N" help:"Event loops of the gateway [its default]."`
	TLS         bool       `name:"tls" help:"Everybody reaches the NATS server over TLS."`
	Base        string     `type:"existingfile" placeholder:"BINARY" help:"Another ipc-gateway, as of another commit, to compare with."`
	JSON        outputFlag `name:"json" placeholder:"FILE" help:"Also write all runs as JSON: as the last line, or with --json=FILE to a file."`
}

// Help is what "compare --help" says before the flags.
func (c *compareCommand) Help() string {
	return `Builds and starts all that it needs, so it runs inside the source tree, and needs Go and a C compiler; HAProxy is compared with if it is installed. Every answer is checked: one wrong answer fails its combination, and the exit code is 1; the others are measured nevertheless, and Ctrl-C writes what there is. perf/README.md explains the columns.`
}

// The main goroutine starts the processes of compare, and they are killed when the thread that started them
// ends: so it stays on the main thread, which ends last.
func init() { runtime.LockOSThread() }

// settings makes of the flags what they mean.
func (c *compareCommand) settings() compare.Settings {
	s := compare.Default()
	switch {
	case c.Quick:
		s = compare.Quick()
	case c.Full:
		s = compare.Full()
	}
	if len(c.Kinds)+len(c.Connections)+len(c.Windows)+len(c.Payloads) > 0 {
		s.Cells = compare.Cells(
			orElse(c.Kinds, compare.KindRequest), orElse(c.Connections, 16), orElse(c.Windows, 1), orElse(c.Payloads, 256))
	}
	if len(c.Sides) > 0 {
		s.Sides = c.Sides
	}
	if c.Seconds > 0 {
		s.Duration = time.Duration(c.Seconds)
	}
	if c.Repeats != 0 {
		s.Repeats = c.Repeats
	}
	s.Loops, s.Base, s.TLS = c.Loops, c.Base, c.TLS
	return s
}

// orElse is list, or one value if it is empty.
func orElse[T any](list []T, value T) []T {
	if len(list) == 0 {
		return []T{value}
	}
	return slices.Clone(list)
}

// Run compares and writes the tables.
func (c *compareCommand) Run(a *app) error {
	s := c.settings()
	if err := s.Validate(); err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	result, failed := compare.Run(ctx, s, a.progress)
	if result == nil {
		return failed
	}
	result.Write(a.stdout)
	if !c.JSON.wanted {
		return failed
	}
	return errors.Join(failed, writeJSON(a.stdout, c.JSON.path, result))
}
