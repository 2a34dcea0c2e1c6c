package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
	"github.com/aigroup/ipc-gateway/codec"
)

// hostileKinds are the ways of a client to be a bad neighbour.
var hostileKinds = map[string]func(conn net.Conn) error{
	"deaf":    beDeaf,
	"flood":   func(conn net.Conn) error { return flood(conn, codec.TypeTaskSubmit) },
	"pings":   func(conn net.Conn) error { return flood(conn, codec.TypePing) },
	"trickle": trickle,
}

// fairnessCommand measures what one bad client does to the others.
type fairnessCommand struct {
	loadFlags
	Duration seconds  `short:"d" default:"2" placeholder:"SECONDS" help:"How long each run is [${default}]."`
	Threads  int      `short:"t" default:"15" placeholder:"N" help:"Connections of good clients [${default}]."`
	Repeats  int      `default:"5" placeholder:"N" help:"Runs without, and with, each hostile client, in turns [${default}]."`
	Limit    float64  `default:"1.3" placeholder:"TIMES" help:"How many times worse the others may fare, in rate and in p99, for exit code 0 [${default}]."`
	Hostile  []string `enum:"deaf,trickle,pings,flood" default:"deaf,trickle,pings,flood" placeholder:"KIND,..." help:"deaf (sends requests without end and never reads), trickle (sends a byte a second), pings and flood (send pings or requests without end, and read the answers) [${default}]."`
}

// Help is what "fairness --help" says before the flags.
func (*fairnessCommand) Help() string {
	return `Measures good clients alone and beside one hostile client, in turns, and tells how many times worse the second is: medians over the pairs of runs, and the lowest and highest. The hostile client is a process of its own. Exit code 1 if a good client's request failed, or a median is over --limit.`
}

// Run measures and reports.
func (c *fairnessCommand) Run(a *app) error {
	s, err := c.spec(a, c.Threads)
	if err != nil {
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	s.Duration = time.Duration(c.Duration)
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
	out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "hostile\treq/s alone\tp99 alone us\tslower\tp99 longer\t")
	unfair := false
	for _, kind := range c.Hostile {
		f, err := c.compare(l, s.Socket, kind)
		if err != nil {
			return fmt.Errorf("beside a client of the kind %s: %w", kind, err)
		}
		fmt.Fprintf(out, "%s\t%.0f\t%.0f\t%s\t%s\t\n", kind, median(f.rates), median(f.p99s), spread(f.slower), spread(f.longer))
		unfair = unfair || median(f.slower) > c.Limit || median(f.longer) > c.Limit
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if unfair {
		return fmt.Errorf("a hostile client makes the others more than %v times worse", c.Limit)
	}
	return nil
}

// fairness is what pairs of runs have measured.
type fairness struct {
	rates, p99s    []float64 // alone
	slower, longer []float64 // beside a hostile client: how many times
}

func (c *fairnessCommand) compare(l *load.Load, socket, kind string) (f fairness, err error) {
	for range c.Repeats {
		alone := l.Run()
		if !alone.OK() {
			return f, errors.Join(errRequests, alone.FirstError)
		}
		beside, err := runBeside(l, socket, kind)
		if err != nil {
			return f, err
		}
		p99 := func(r *load.Result) float64 { return float64(r.Latencies.ValueAtQuantile(99)) / 1e3 }
		f.rates, f.p99s = append(f.rates, alone.PerSecond()), append(f.p99s, p99(alone))
		f.slower = append(f.slower, alone.PerSecond()/beside.PerSecond())
		f.longer = append(f.longer, p99(beside)/p99(alone))
	}
	return f, nil
}

// runBeside runs the load beside a hostile client.
func runBeside(l *load.Load, socket, kind string) (*load.Result, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	hostile := exec.CommandContext(ctx, program, "hostile", "--socket", socket, "--kind", kind)
	hostile.Stderr = os.Stderr
	ready, err := hostile.StdoutPipe()
	if err == nil {
		err = hostile.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	defer func() {
		cancel()
		_ = hostile.Wait()
	}()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("the hostile client did not begin: %w", err)
	}
	r := l.Run()
	if !r.OK() {
		return nil, errors.Join(errRequests, r.FirstError)
	}
	return r, nil
}

// hostileCommand is the hostile client of fairnessCommand.
type hostileCommand struct {
	Socket string `required:""`
	Kind   string `required:"" enum:"deaf,trickle,pings,flood"`
}

// Run goes on until it is killed, or the gateway has had enough.
func (c *hostileCommand) Run(a *app) error {
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(a.stdout, "ready"); err != nil {
		return err
	}
	return hostileKinds[c.Kind](conn)
}

// manyFrames is as much of one frame as is worth a write.
func manyFrames(t codec.Type) (b []byte) {
	f := codec.Frame{Version: codec.Version1, Type: t}
	if t != codec.TypePing {
		f.Payload = make([]byte, payloadBytesDefault)
	}
	for len(b) < 64<<10 {
		b = codec.AppendFrame(b, &f)
	}
	return b
}

func beDeaf(conn net.Conn) error {
	frames := manyFrames(codec.TypeTaskSubmit)
	for {
		if _, err := conn.Write(frames); err != nil {
			return err
		}
	}
}

func flood(conn net.Conn, t codec.Type) error {
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	frames := manyFrames(t)
	for {
		if _, err := conn.Write(frames); err != nil {
			return err
		}
	}
}

func trickle(conn net.Conn) error {
	frame := manyFrames(codec.TypeTaskSubmit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range frame {
		if _, err := conn.Write(frame[i : i+1]); err != nil {
			return err
		}
		<-tick.C
	}
	return nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// spread is a median with its lowest and highest value, for a table.
func spread(values []float64) string {
	return fmt.Sprintf("%.2fx (%.2f..%.2f)", median(values), slices.Min(values), slices.Max(values))
}
