package main

import (
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// soakFlags are those of both commands.
type soakFlags struct {
	Duration float64       `short:"d" default:"300" placeholder:"SECONDS" help:"How long [${default}]."`
	Threads  int           `short:"t" default:"8" placeholder:"N" help:"Connections, each with a thread of its own [${default}]."`
	Socket   string        `short:"s" placeholder:"PATH" help:"The gateway's Unix socket [/tmp/beamline-gateway.sock] ($$IPC_SOCKET_PATH)."`
	Probe    string        `default:"127.0.0.1:8080" env:"IPC_PROBE_ADDR" placeholder:"HOST:PORT" help:"Where the gateway serves /metrics [${default}]."`
	Subject  string        `short:"S" placeholder:"SUBJECT" help:"NATS subject with a responder that echoes, as demo.echo in the sandbox; else TASK_SUBMIT is sent, whose answers are only checked for their order."`
	Warmup   float64       `default:"2" placeholder:"SECONDS" help:"Load before the first look [${default}]."`
	Settle   time.Duration `default:"30s" help:"How long the gateway may take to come to rest [${default}]."`
	Growth   int64         `name:"max-growth" default:"64" placeholder:"MIB" help:"Resident memory that may come on top, as a program's heap grows with its load once [${default}]."`
	Heap     int64         `name:"max-heap-growth" default:"2" placeholder:"MIB" help:"Heap that may come on top after the garbage was collected [${default}]; only told of a gateway with --pprof, which collects it when it is asked."`
	JSON     bool          `name:"json" help:"Write the report as one line of JSON."`
}

// Bounds of the flags.
const (
	durationMax = 30 * 24 * time.Hour
	threadsMax  = 4096
)

// plan makes of the flags what they mean.
func (f *soakFlags) plan(a *app, p plan) (plan, error) {
	p.duration, p.warmup, p.settle = seconds(f.Duration), seconds(f.Warmup), f.Settle
	p.threads, p.subject, p.growthBytes, p.heapGrowthBytes = f.Threads, f.Subject, f.Growth<<20, f.Heap<<20
	p.socket, p.metricsURL = f.socket(a), "http://"+f.Probe+"/metrics"
	switch {
	case p.duration <= 0 || p.duration > durationMax:
		return p, fmt.Errorf("-d %g: want more than 0 seconds, and at most 30 days; %w", f.Duration, errUsage)
	case p.warmup < 0 || p.warmup > durationMax:
		return p, fmt.Errorf("--warmup %g: want 0 seconds or more; %w", f.Warmup, errUsage)
	case p.threads < 1 || p.threads > threadsMax:
		return p, fmt.Errorf("-t %d: want 1 to %d; %w", p.threads, threadsMax, errUsage)
	case f.Growth < 0:
		return p, fmt.Errorf("--max-growth %d: want 0 or more; %w", f.Growth, errUsage)
	case f.Heap < 0:
		return p, fmt.Errorf("--max-heap-growth %d: want 0 or more; %w", f.Heap, errUsage)
	}
	return p, nil
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func (f *soakFlags) socket(a *app) string {
	for _, path := range []string{f.Socket, a.environ("IPC_SOCKET_PATH"), a.environ("CGW_IPC_SOCKET_PATH")} {
		if path != "" {
			return path
		}
	}
	return engine.DefaultConfig().SocketPath
}

// bufferPoolCommand is a load that needs buffers of all sizes.
type bufferPoolCommand struct{ soakFlags }

// Run soaks and reports.
func (c *bufferPoolCommand) Run(a *app) error {
	return c.soak(a, plan{command: "buffer-pool", payloadBytesMax: 64 << 10, burst: 8, churn: true})
}

// natsPoolCommand is a load that keeps the connections to NATS busy.
type natsPoolCommand struct{ soakFlags }

// Run soaks and reports.
func (c *natsPoolCommand) Run(a *app) error {
	return c.soak(a, plan{command: "nats-pool", payloadBytesMax: 256, burst: 32})
}

// soak runs a plan and writes what came of it.
func (f *soakFlags) soak(a *app, p plan) error {
	p, err := f.plan(a, p)
	if err != nil {
		return err
	}
	r, err := p.run()
	if err != nil {
		return err
	}
	if f.JSON {
		err = r.writeJSON(a.stdout)
	} else {
		err = r.writeText(a.stdout)
	}
	if err == nil && len(r.Findings) > 0 {
		err = errFindings
	}
	return err
}
