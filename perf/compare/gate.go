package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Check is something exact about the gateway: it is the same on any machine, so a change for the worse is one of the code.
type Check struct {
	Name    string
	Got     float64
	Most    float64 // the bound
	Skipped string  // why it was not made; empty: it was
}

// Passed says that the bound is kept, or that nobody could look.
func (c *Check) Passed() bool { return c.Skipped != "" || c.Got <= c.Most }

func (c *Check) String() string {
	switch {
	case c.Skipped != "":
		return fmt.Sprintf("skipped  %s: %s", c.Name, c.Skipped)
	case c.Passed():
		return fmt.Sprintf("ok       %s: %.4g, at most %.4g", c.Name, c.Got, c.Most)
	}
	return fmt.Sprintf("FAILED   %s: %.4g, at most %.4g", c.Name, c.Got, c.Most)
}

// GateResult is what a gate found.
type GateResult struct {
	Checks []*Check
	Ratio  *Result // the gateway beside that of another commit: noisy, and for information; nil: it was not compared
	NoBase string  // why not
}

// Passed says that all checks have passed.
func (g *GateResult) Passed() bool {
	for _, c := range g.Checks {
		if !c.Passed() {
			return false
		}
	}
	return true
}

// Write writes all of it.
func (g *GateResult) Write(w io.Writer) {
	for _, c := range g.Checks {
		fmt.Fprintln(w, c)
	}
	if g.Ratio == nil {
		fmt.Fprintf(w, "skipped  comparison with another commit: %s\n", g.NoBase)
		return
	}
	fmt.Fprintln(w, "\nbeside the base commit, which is noisy and not gated:")
	g.Ratio.writeTables(w)
}

const (
	gateRun     = 1500 * time.Millisecond
	straceRun   = 700 * time.Millisecond
	ratioRun    = 600 * time.Millisecond
	ratioRounds = 3
)

// mallocsMost bounds the gateway's mallocs in a run: those of the requests, which have none but a rounding error, and those
// of the clients' connects and of asking for the count.
func mallocsMost(requests float64) float64 { return 0.0005*requests + 400 }

// syscallBounds are the reads, writes and waits of the gateway for a request with one in flight on each connection. With one
// connection they are what the code does, and little more. With 16, requests that come together share them; under strace,
// which makes the gateway slow, nearly all do.
var syscallBounds = []struct {
	cell Cell
	most map[string]float64
}{
	{Cell{KindPing, 1, 1, 0}, map[string]float64{"read": 2.2, "write": 1.1, "wait": 2.4}},
	{Cell{KindPing, 16, 1, 0}, map[string]float64{"read": 1.6, "write": 1.1, "wait": 0.8}},
	{Cell{KindRequest, 1, 1, 256}, map[string]float64{"read": 3.3, "write": 2.2, "wait": 5}},
	{Cell{KindRequest, 16, 1, 256}, map[string]float64{"read": 1.8, "write": 1.6, "wait": 1.2}},
}

// Gate checks what is exact about the gateway's data path, and compares its speed with that of the commit base, if
// there is one.
//
// REQUIRES: on the main thread.
func Gate(ctx context.Context, base string, progress func(format string, args ...any)) (*GateResult, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	result := &GateResult{}
	if result.Checks, err = inlined(ctx, root); err != nil {
		return nil, err
	}
	exact := Settings{Sides: []string{SideGateway}, Repeats: 1, Duration: gateRun, Cells: Cells(
		[]string{KindPing, KindRequest, KindPublish, KindPublishAnswered}, []int{16}, []int{16}, []int{256})}
	for _, b := range syscallBounds {
		exact.Cells = append(exact.Cells, b.cell)
	}
	r, err := startRig(ctx, &exact, progress)
	defer r.stop()
	if err != nil {
		return nil, err
	}
	if err := r.countMallocs(ctx, exact.Cells[:4], result); err != nil {
		return nil, err
	}
	if err := r.countSyscalls(ctx, result); err != nil {
		return nil, err
	}
	binary, err := buildBase(ctx, root, r.folder, base)
	if err != nil {
		result.NoBase = err.Error()
		return result, nil
	}
	ratio := Settings{Sides: []string{SideGateway}, Base: binary, Repeats: ratioRounds, Duration: ratioRun, Warmup: straceRun / 2, Cells: append(
		Cells([]string{KindRequest}, []int{16, 64}, []int{1}, []int{256}), Cells([]string{KindPing}, []int{64}, []int{1}, nil)...)}
	result.Ratio, err = Run(ctx, ratio, progress)
	return result, err
}

// countMallocs adds a check for each of the cells.
func (r *rig) countMallocs(ctx context.Context, cells []Cell, result *GateResult) error {
	for _, c := range cells {
		s, err := r.run(ctx, r.sides[SideGateway], c, gateRun)
		if err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
		requests := float64(s.Requests)
		result.Checks = append(result.Checks, &Check{
			Name: fmt.Sprintf("mallocs in %d requests, %v", s.Requests, c), Got: *s.Mallocs * requests, Most: mallocsMost(requests)})
	}
	return nil
}

// countSyscalls adds checks for syscallBounds, or says why it cannot.
func (r *rig) countSyscalls(ctx context.Context, result *GateResult) error {
	unwatched := *r.sides[SideGateway]
	unwatched.meter = nil // a scrape has system calls of its own
	for _, b := range syscallBounds {
		counts, err := r.trace(ctx, &unwatched, b.cell)
		if errors.Is(err, errUncounted) {
			result.Checks = append(result.Checks, &Check{Name: "system calls per request", Skipped: err.Error()})
			return nil
		}
		if err != nil {
			return fmt.Errorf("%v under strace: %w", b.cell, err)
		}
		for _, kind := range []string{"read", "write", "wait"} {
			result.Checks = append(result.Checks, &Check{Name: fmt.Sprintf("%ss per request, %v", kind, b.cell), Got: counts[kind], Most: b.most[kind]})
		}
	}
	return nil
}

// syscalls are those that are counted, by kind.
var syscalls = map[string]string{
	"read": "read", "readv": "read", "recvfrom": "read", "recvmsg": "read",
	"write": "write", "writev": "write", "sendto": "write", "sendmsg": "write",
	"epoll_wait": "wait", "epoll_pwait": "wait", "epoll_pwait2": "wait",
}

// errUncounted is returned where system calls cannot be counted.
var errUncounted = errors.New("they cannot be counted here")

// trace makes a run with strace on the process in the middle, and returns the system calls per request.
func (r *rig) trace(ctx context.Context, one *side, c Cell) (map[string]float64, error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("%w: strace is not installed", errUncounted)
	}
	var names []string
	for name := range syscalls {
		names = append(names, name)
	}
	// It says "attached" once it counts.
	p, err := start(ctx, "strace", strace, "-f", "-c", "-e", "trace="+strings.Join(names, ","), "-o", r.path("strace.out"), "-p", fmt.Sprint(one.middle.pid()))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	err = p.await(ctx, func() error {
		if !strings.Contains(p.stderr.quoted(), "attached") {
			return errors.New("it has not attached")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUncounted, err)
	}
	s, err := r.run(ctx, one, c, straceRun)
	if err != nil {
		return nil, err
	}
	// At SIGINT it detaches and writes what it has counted.
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return nil, err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	text, err := os.ReadFile(r.path("strace.out"))
	if err != nil {
		return nil, err
	}
	counts, err := parseStrace(string(text))
	for kind := range counts {
		counts[kind] /= float64(s.Requests + int64(c.Connections*c.Window)) // the first window is not in the report
	}
	return counts, err
}

// buildBase builds the gateway of another commit and returns the binary. The error says why that cannot be.
func buildBase(ctx context.Context, root, folder, base string) (string, error) {
	if base == "" {
		return "", errors.New("no base commit was named")
	}
	source := filepath.Join(folder, "base-source")
	if err := os.Mkdir(source, 0o700); err != nil {
		return "", err
	}
	archive := filepath.Join(folder, "base.tar")
	if err := runTool(ctx, root, "git", "archive", "--output", archive, base); err != nil {
		return "", err
	}
	if err := runTool(ctx, folder, "tar", "-xf", archive, "-C", source); err != nil {
		return "", err
	}
	binary := filepath.Join(folder, "base-gateway")
	return binary, runTool(ctx, source, "go", "build", "-trimpath", "-o", binary, "./cmd/ipc-gateway")
}
