package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// trial is one kind of run.
type trial struct {
	name    string   // in the table
	sockets bool     // the clients are perf/sockets, else perf/load
	args    []string // of either, less those that say how long
	server  *process // what answers, and whose CPU time counts; nil: not one process
	metrics bool     // server is the gateway: read its mallocs and collections
}

// sample is what one run showed.
type sample struct {
	report.Report
	serverUs    float64 // CPU microseconds of the server per request; NaN: there is not one server
	allUs       float64 // the same of all processes of the benchmark, the load among them
	mallocs     float64 // of the gateway per request; NaN: not read
	collections float64 // of the gateway's heap, in all; NaN: not read
	othersCPUs  float64 // CPUs that other processes of the machine kept busy meanwhile
	stolenCPUs  float64 // CPUs that the host kept from the machine meanwhile
}

// snapshot is the state of all meters at one moment.
type snapshot struct {
	server, all time.Duration // CPU time; without the load's
	machine     machineCPU
	metrics     goMetrics
	at          time.Time
}

// run makes one run of t.
//
// REQUIRES: on the main thread.
func (r *rig) run(ctx context.Context, t *trial, duration time.Duration) (*sample, error) {
	// More than load itself allows for an answer.
	ctx, cancel := context.WithTimeout(ctx, duration+2*startTimeout)
	defer cancel()
	program, args := t.command(duration)
	load, err := start(ctx, program+" on "+t.name, r.path(program), args...)
	if err != nil {
		return nil, err
	}
	defer load.stop()
	if _, err := load.awaitReady(); err != nil {
		return nil, r.blame(err)
	}

	// All connections are open, and stay so until the second snapshot is taken: what it costs to start,
	// to connect and to report is not in the figures.
	before, err := r.measureBefore(ctx, t)
	if err != nil {
		return nil, err
	}
	if _, err := load.stdin.Write([]byte("\n")); err != nil {
		return nil, load.failure(err)
	}
	if err := load.awaitDone(); err != nil {
		return nil, r.blame(err)
	}
	after, err := r.measureAfter(ctx, t)
	if err != nil {
		return nil, r.blame(err)
	}
	// Now it may report.
	_ = load.stdin.Close()
	line, err := load.line()
	if err != nil {
		return nil, r.blame(err)
	}
	s := &sample{}
	if err := json.Unmarshal([]byte(line), &s.Report); err != nil {
		return nil, fmt.Errorf("load reports %q: %w", line, err)
	}
	if err := load.finish(); err != nil {
		return nil, r.blame(err)
	}
	if s.Errors > 0 || s.Requests == 0 {
		return nil, fmt.Errorf("%s: %d requests, %d errors, the first: %s", load.name, s.Requests, s.Errors, s.FirstError)
	}
	r.evaluate(s, t, before, after)
	return s, nil
}

// blame adds to a failed run which of the rig's processes has died, if one has.
func (r *rig) blame(err error) error {
	for _, p := range r.processes() {
		if dead := p.alive(); dead != nil {
			return fmt.Errorf("%w\n%w", err, dead)
		}
	}
	return err
}

// measureBefore scrapes first and measureAfter last: the scrapes' CPU time stays outside.
func (r *rig) measureBefore(ctx context.Context, t *trial) (*snapshot, error) {
	var s snapshot
	if t.metrics {
		var err error
		if s.metrics, err = scrape(ctx, r.metricsURL); err != nil {
			return nil, err
		}
	}
	return &s, r.readCPU(&s, t)
}

func (r *rig) measureAfter(ctx context.Context, t *trial) (*snapshot, error) {
	var s snapshot
	if err := r.readCPU(&s, t); err != nil || !t.metrics {
		return &s, err
	}
	var err error
	s.metrics, err = scrape(ctx, r.metricsURL)
	return &s, err
}

func (r *rig) readCPU(s *snapshot, t *trial) error {
	for _, p := range r.processes() {
		cpu, err := processCPU(p.pid())
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		s.all += cpu
		if p == t.server {
			s.server = cpu
		}
	}
	var err error
	s.machine, err = readMachineCPU()
	s.at = time.Now()
	return err
}

// evaluate fills in s what is in the difference of two snapshots.
func (r *rig) evaluate(s *sample, t *trial, before, after *snapshot) {
	requests := float64(s.Requests)
	load := time.Duration(s.CPUSeconds * float64(time.Second))
	ours := after.all - before.all + load
	perRequestUs := func(d time.Duration) float64 { return d.Seconds() * 1e6 / requests }

	s.allUs = perRequestUs(ours)
	s.serverUs, s.mallocs, s.collections = math.NaN(), math.NaN(), math.NaN()
	if t.server != nil {
		s.serverUs = perRequestUs(after.server - before.server)
	}
	if t.metrics {
		mallocs := after.metrics.mallocs - before.metrics.mallocs - r.scrapeMallocs
		s.mallocs = float64(max(mallocs, 0)) / requests
		s.collections = float64(after.metrics.collections - before.metrics.collections)
	}
	wall := after.at.Sub(before.at)
	s.othersCPUs = max(0, float64(after.machine.busy-before.machine.busy-ours)/float64(wall))
	s.stolenCPUs = float64(after.machine.stolen-before.machine.stolen) / float64(wall)
}

// command returns the program that makes the load, and its arguments.
func (t *trial) command(duration time.Duration) (program string, args []string) {
	seconds := fmt.Sprint(duration.Seconds())
	if t.sockets {
		return "sockets", append(t.args[:len(t.args):len(t.args)], seconds)
	}
	return "load", append([]string{"-controlled", "-seconds", seconds}, t.args...)
}

// throughSockets is a run of programs in C through the gateway.
func (r *rig) throughSockets(s *settings, programs int) trial {
	return trial{name: "gateway", sockets: true, server: r.gateway, metrics: true, args: []string{
		r.path("gateway.sock"), strconv.Itoa(programs), strconv.Itoa(s.payload),
	}}
}

// throughGateway, direct, pingGateway and pingEcho are the kinds of runs.
func (r *rig) throughGateway(s *settings, connections int) trial {
	return trial{name: "gateway", server: r.gateway, metrics: true, args: []string{
		"-mode", "gateway", "-socket", r.path("gateway.sock"), "-subject", subject, "-version", strconv.Itoa(s.version),
		"-payload", strconv.Itoa(s.payload), s.loadFlag(), strconv.Itoa(connections),
	}}
}

func (r *rig) direct(s *settings, connections int) trial {
	return trial{name: "direct", args: []string{
		"-mode", "direct", "-nats-url", r.natsURL, "-subject", subject,
		"-payload", strconv.Itoa(s.payload), s.loadFlag(), strconv.Itoa(connections),
	}}
}

// loadFlag is the flag of load that says how many clients there are.
func (s *settings) loadFlag() string {
	if s.shared {
		return "-conns"
	}
	return "-programs"
}

func (r *rig) pingGateway(connections, window int) trial {
	return trial{name: "gateway", server: r.gateway, metrics: true, args: pingArgs(r.path("gateway.sock"), connections, window)}
}

func (r *rig) pingEcho(connections, window int) trial {
	return trial{name: "C echo", server: r.echo, args: pingArgs(r.path("echo.sock"), connections, window)}
}

func pingArgs(socket string, connections, window int) []string {
	return []string{"-mode", "ping", "-socket", socket, "-conns", strconv.Itoa(connections), "-window", strconv.Itoa(window)}
}
