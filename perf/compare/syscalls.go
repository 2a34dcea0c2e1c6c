package compare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// syscallBounds are the system calls of the gateway for a request with one in flight on each connection, by kind. With one
// connection read, write and wait are what the code does: one of each for a PING, two for a request, which goes to NATS and back. With
// 16, requests that come together share them; while it is counted, which makes the gateway slow, nearly all do. Futex calls are
// the Go scheduler's, which wakes a thread or puts it to sleep, and so is most of the rest: how many depends on the machine.
var syscallBounds = []struct {
	cell Cell
	most map[string]float64
}{
	{Cell{KindPing, 1, 1, 0}, map[string]float64{"read": 1.2, "write": 1.1, "wait": 1.1, "futex": 0.3, "all": 6}},
	{Cell{KindPing, 16, 1, 0}, map[string]float64{"read": 1.2, "write": 1.1, "wait": 0.3, "futex": 0.2, "all": 4}},
	{Cell{KindRequest, 1, 1, 256}, map[string]float64{"read": 2.3, "write": 2.2, "wait": 2.2, "futex": 3, "all": 15}},
	{Cell{KindRequest, 16, 1, 256}, map[string]float64{"read": 1.5, "write": 1.5, "wait": 0.6, "futex": 0.3, "all": 5}},
}

// bySecond is what else a gateway may do in a second, requests or not: it looks for deadlines, and the Go runtime for work. Where a
// busy machine carries few requests, that counts for each of them.
var bySecond = map[string]float64{"read": 50, "write": 300, "wait": 300, "futex": 1000, "all": 3000}

// syscallKinds are the kinds of system calls that have a bound, in the order in which they are told. The last one is their sum and all others.
var syscallKinds = []string{"read", "write", "wait", "futex", "all"}

// kindOf says which system calls are of a kind.
var kindOf = map[string]string{
	"read": "read", "readv": "read", "recvfrom": "read", "recvmsg": "read",
	"write": "write", "writev": "write", "sendto": "write", "sendmsg": "write",
	"epoll_wait": "wait", "epoll_pwait": "wait", "epoll_pwait2": "wait",
	"futex": "futex",
}

// countSyscalls adds checks for syscallBounds, or says why it cannot.
func (r *rig) countSyscalls(ctx context.Context, result *GateResult) error {
	unwatched := *r.sides[SideGateway]
	unwatched.meter = nil // a scrape has system calls of its own
	for _, b := range syscallBounds {
		counts, perSecond, err := r.trace(ctx, &unwatched, b.cell)
		if errors.Is(err, errUncounted) {
			result.Checks = append(result.Checks, &Check{Name: "system calls per request", Skipped: err.Error()})
			return nil
		}
		if err != nil {
			return fmt.Errorf("%v while system calls are counted: %w", b.cell, err)
		}
		for _, kind := range syscallKinds {
			result.Checks = append(result.Checks, &Check{Name: fmt.Sprintf("system calls per request, %s, %v", kind, b.cell), Got: counts[kind], Most: b.most[kind] + bySecond[kind]/perSecond})
		}
	}
	return nil
}

// errUncounted is returned where system calls cannot be counted.
var errUncounted = errors.New("they cannot be counted here")

// tracers count the system calls of a process, the best one first.
var tracers = []*tracer{
	{
		tool: "strace", args: []string{"-f", "-c"}, parse: parseStrace,
		// At SIGINT it detaches and writes what it has counted.
		end: func(p *process) error { return p.cmd.Process.Signal(os.Interrupt) },
		attached: func(ctx context.Context, p *process) error {
			return p.await(ctx, func() error {
				if !strings.Contains(p.stderr.quoted(), "attached") {
					return errors.New("it has not attached")
				}
				return nil
			})
		},
	},
	{
		// It counts while a command runs, which begins when it has attached. On a machine with too much to do it may lose some.
		tool: "perf", args: []string{"trace", "-s"}, command: []string{"sh", "-c", "echo ready; exec cat"}, parse: parsePerfTrace,
		end:      func(p *process) error { return p.stdin.Close() },
		attached: func(_ context.Context, p *process) error { _, err := p.awaitReady(); return err },
	},
}

// tracer is a tool that counts system calls.
type tracer struct {
	tool          string
	args, command []string
	attached      func(context.Context, *process) error // waits until it counts
	end           func(*process) error                  // makes it end and write its summary
	parse         func(string) (map[string]float64, error)
}

// trace makes a run with the process in the middle watched, and returns the system calls per request, by kind, and how many
// requests there were in a second.
func (r *rig) trace(ctx context.Context, one *side, c Cell) (counts map[string]float64, perSecond float64, err error) {
	var reasons []error
	for _, t := range tracers {
		counts, perSecond, err := r.traceWith(ctx, t, one, c)
		if !errors.Is(err, errUncounted) {
			return counts, perSecond, err
		}
		reasons = append(reasons, err)
	}
	return nil, 0, errors.Join(reasons...)
}

func (r *rig) traceWith(ctx context.Context, t *tracer, one *side, c Cell) (map[string]float64, float64, error) {
	tool, err := exec.LookPath(t.tool)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s is not installed", errUncounted, t.tool)
	}
	out := r.path(t.tool + ".out")
	args := append(append([]string{}, t.args...), "-o", out, "-p", strconv.Itoa(one.middle.pid()))
	if len(t.command) > 0 {
		args = append(append(args, "--"), t.command...)
	}
	p, err := start(ctx, t.tool, tool, args...)
	if err != nil {
		return nil, 0, err
	}
	defer p.stop()
	if err := t.attached(ctx, p); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errUncounted, err)
	}
	s, err := r.run(ctx, one, c, straceRun)
	if err != nil {
		return nil, 0, err
	}
	if err := t.end(p); err != nil {
		return nil, 0, err
	}
	select {
	case <-p.ended:
	case <-time.After(startTimeout):
		return nil, 0, fmt.Errorf("%s does not end", t.tool)
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return nil, 0, err
	}
	counts, err := t.parse(string(text))
	for kind := range counts {
		counts[kind] /= float64(s.Requests + int64(c.Connections*c.Window)) // the first window is not in the report
	}
	return counts, s.PerSecond(), err
}

// addCalls adds so many calls, by name, to the counts by kind.
func addCalls(counts map[string]float64, name, calls string) error {
	n, err := strconv.ParseFloat(calls, 64)
	if err != nil {
		return fmt.Errorf("calls of %s: %w", name, err)
	}
	counts["all"] += n
	if kind := kindOf[name]; kind != "" {
		counts[kind] += n
	}
	return nil
}

// parseStrace adds up the calls of a summary of strace -c by kind: lines of % time, seconds, usecs/call, calls, errors (or
// nothing), name.
func parseStrace(text string) (map[string]float64, error) {
	counts := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || fields[0] == "%" || fields[0][0] == '-' || fields[len(fields)-1] == "total" {
			continue
		}
		if err := addCalls(counts, fields[len(fields)-1], fields[3]); err != nil {
			return nil, fmt.Errorf("strace says %q: %w", lines.Text(), err)
		}
	}
	return counted(counts, text)
}

// parsePerfTrace adds up the calls of a summary of perf trace -s, a block for each thread with lines of name, calls, errors, total,
// min, avg, max and stddev.
func parsePerfTrace(text string) (map[string]float64, error) {
	counts := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 7 || !isNumber(fields[1]) || !isNumber(fields[2]) {
			continue
		}
		if err := addCalls(counts, fields[0], fields[1]); err != nil {
			return nil, fmt.Errorf("perf trace says %q: %w", lines.Text(), err)
		}
	}
	return counted(counts, text)
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil
}

// counted is an error for counts of nothing.
func counted(counts map[string]float64, text string) (map[string]float64, error) {
	if len(counts) == 0 {
		return nil, fmt.Errorf("no system calls in %q", text)
	}
	return counts, nil
}
