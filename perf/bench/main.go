// Command bench compares, in one go and on this machine, programs that go through the gateway with programs that use nats.go
// directly, and its PING with a bare C epoll echo. It builds and starts all that it needs, on
// loopback and in a temporary folder, and ends it again. See perf/README.md for how to read what it
// prints.
//
// It exits with 1 if anything failed, one wrong answer included, and with 0 otherwise, whether the
// goals were reached or not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// buildTimeout is how long the builds may take, with nothing in the cache.
const buildTimeout = 10 * time.Minute

// pingShapes are the connections and windows of the PING runs.
var pingShapes = []struct{ connections, window int }{{16, 1}, {64, 1}, {16, 16}}

// The main goroutine starts the children, and they are killed when the thread that started them
// ends: so it stays on the main thread, which ends last.
func init() { runtime.LockOSThread() }

func main() {
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = run(ctx, s)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *settings) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout+s.estimate()*2)
	defer cancel()
	progress("building, then about %v of runs", s.estimate().Round(time.Second))
	r, err := startRig(ctx, s)
	defer r.stop()
	if err != nil {
		return err
	}

	apart := *s // each client a program, whatever -shared says of those in Go
	apart.shared = false
	var sockets, requests, pings []*duel
	for _, n := range s.connections {
		if r.echo != nil {
			sockets = append(sockets, &duel{connections: n, window: 1, a: r.throughSockets(s, n), b: r.direct(&apart, n)})
		}
		if s.goClients || r.echo == nil {
			requests = append(requests, &duel{connections: n, window: 1, a: r.throughGateway(s, n), b: r.direct(s, n)})
		}
	}
	if r.echo != nil {
		for _, p := range pingShapes {
			pings = append(pings, &duel{connections: p.connections, window: p.window,
				a: r.pingGateway(p.connections, p.window), b: r.pingEcho(p.connections, p.window)})
		}
	}
	all := slices.Concat(sockets, requests, pings)
	for _, d := range all {
		if err := d.fight(ctx, r, s); err != nil {
			return err
		}
	}

	out := os.Stdout
	fmt.Fprintf(out, "%s/%s, %s, %d CPUs; medians of %d runs of %v each, in turns\n",
		runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.NumCPU(), s.repeats, s.duration)
	var goals []*goal
	if len(sockets) > 0 {
		writeTable(out, fmt.Sprintf("gateway (v1 TASK_SUBMIT), clients in C with a plain blocking socket, vs nats.go directly, %d B echo, each client a program of its own", s.payload), sockets)
		goals = append(goals, requestGoals(sockets, "C", "programs")...)
	}
	if len(requests) > 0 {
		writeTable(out, fmt.Sprintf("gateway (%s), clients in Go, vs nats.go directly, %d B echo, %s", s.frame(), s.payload, s.clients()), requests)
	}
	if len(sockets) == 0 {
		goals = append(goals, requestGoals(requests, "Go", s.spread())...)
	}
	if len(pings) > 0 {
		writeTable(out, "PING: gateway vs C echo", pings)
		goals = append(goals, pingGoals(pings)...)
	}
	writeNoise(out, all)
	writeGoals(out, goals, s, len(pings) > 0)
	fmt.Fprintf(out, "\nagain: %s\n", s.command())
	return nil
}

// estimate is how long the runs take.
func (s *settings) estimate() time.Duration {
	const around = 300 * time.Millisecond // starting load, connecting, ending it
	pairs := len(s.connections) + len(pingShapes)
	if s.goClients {
		pairs += len(s.connections)
	}
	perPair := 2 * (min(s.duration, warmUpMax) + around + time.Duration(s.repeats)*(s.duration+around))
	return time.Duration(pairs) * perPair
}

// progress tells on stderr how far it is: stdout is for the result.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
