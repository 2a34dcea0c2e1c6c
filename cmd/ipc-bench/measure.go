package main

import (
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
)

// throughputCommand keeps several connections busy for some time.
type throughputCommand struct {
	loadFlags
	Duration seconds `short:"d" default:"30" placeholder:"SECONDS" help:"How long [${default}]."`
	Threads  int     `short:"t" default:"8" placeholder:"N" help:"Connections [${default}]."`
}

// Run measures and reports.
func (c *throughputCommand) Run(a *app) error {
	s, err := c.spec(a, c.Threads)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	s.Duration = time.Duration(c.Duration)
	return a.measure("throughput", s, &c.loadFlags)
}

// latencyCommand sends a number of requests.
type latencyCommand struct {
	loadFlags
	Requests int64 `short:"n" default:"10000" placeholder:"N" help:"Requests [${default}]."`
	Threads  int   `short:"t" default:"1" placeholder:"N" help:"Connections [${default}]."`
}

// Run measures and reports.
func (c *latencyCommand) Run(a *app) error {
	s, err := c.spec(a, c.Threads)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	s.Count = c.Requests
	return a.measure("latency", s, &c.loadFlags)
}

// measure puts a load on and writes what came of it wherever f says.
func (a *app) measure(command string, s *load.Spec, f *loadFlags) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	l, err := load.Open(*s)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.WarmUp(); err != nil {
		return err
	}
	stop := a.showProgress(l)
	watched := watch(l.ServerPID())
	result := l.Run()
	server := watched.usage(result.Sent)
	stop()
	summary := newSummary(command, result, server)
	writeText(a.stdout, summary, result)
	if f.HDR != "" {
		if err := writeHDR(f.HDR, result.Latencies); err != nil {
			return err
		}
	}
	if f.JSON.wanted {
		if err := writeJSON(a.stdout, f.JSON.path, summary); err != nil {
			return err
		}
	}
	if !result.OK() {
		return errRequests
	}
	return nil
}

// showProgress tells a terminal each second how far it is, until stop is called.
func (a *app) showProgress(l *load.Load) (stop func()) {
	if !a.terminal {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var before int64
		for second := 1; ; second++ {
			select {
			case <-end:
				fmt.Fprint(a.stderr, "\r\x1b[K")
				return
			case <-tick.C:
				now := l.Answered()
				fmt.Fprintf(a.stderr, "\r\x1b[K%d s: %d answers, %d in the last second", second, now, max(now-before, 0))
				before = now
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
