package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/aigroup/ipc-gateway/perf/compare"
)

// goalsCommand measures the gateway for the goals that have no peer in them.
type goalsCommand struct {
	Quick bool       `help:"Less than a minute: shows that all works, and says which goals so short a run cannot show."`
	Only  []string   `placeholder:"PART" help:"Only these: garbage, memory, idle, flat, loops."`
	Rate  float64    `placeholder:"R" help:"Requests per second of flat, the same for every number of connections [5000]: what the machine can carry with ease."`
	JSON  outputFlag `name:"json" placeholder:"FILE" help:"Also write the result as JSON: as the last line, or with --json=FILE to a file."`
}

// Help is what "goals --help" says before the flags.
func (*goalsCommand) Help() string {
	return `Measures a gateway that it starts, with NATS and a responder, for what the project has set itself and no peer is compared for; "compare" has the other goals. Four minutes.

    garbage   no collection in 60 s of load; at most 0.001 mallocs per request over a million
    memory    RSS at most 30 MiB idle, 60 MiB after a load of 64 connections, 100 MiB with 10,000 idle connections
    idle      at most 0.2 % of a core with 1,000 idle clients, over 30 s
    flat      CPU time per request with 256, 1,024 and 4,096 connections within 15 % of that with 64, at the same total rate
    loops     PING of two loops on two CPUs at least 1.6 times that of one loop; the clients on other CPUs where there are enough

Runs inside the source tree, and needs Go. A goal that was not reached, or that this machine cannot show, does not change the exit code; 1: a request failed, or something could not be measured.`
}

// settings makes of the flags what they mean.
func (c *goalsCommand) settings() compare.OwnSettings {
	s := compare.DefaultOwn()
	if c.Quick {
		s = compare.QuickOwn()
	}
	if len(c.Only) > 0 {
		s.Parts = c.Only
	}
	if c.Rate != 0 {
		s.Rate = c.Rate
	}
	return s
}

// Run measures and writes what came of it, as far as it came.
func (c *goalsCommand) Run(a *app) error {
	s := c.settings()
	if err := s.Validate(); err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	result, failed := compare.Own(ctx, s, a.progress)
	if result == nil {
		return failed
	}
	result.Write(a.stdout)
	if !c.JSON.wanted {
		return failed
	}
	return errors.Join(failed, writeJSON(a.stdout, c.JSON.path, result))
}
