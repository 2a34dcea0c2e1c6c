package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	gateRun     = 3 * time.Second
	straceRun   = 700 * time.Millisecond
	ratioRun    = 600 * time.Millisecond
	ratioRounds = 3
)

// mallocsRequestsMin is how many requests mallocs are counted over, at least: so many that what is allowed for a run is little
// for a request.
const mallocsRequestsMin = 200_000

// mallocsMost bounds the gateway's mallocs: those of the requests, which have none but a rounding error, and of each run those
// of the clients' connects and of asking for the count.
func mallocsMost(requests, runs float64) float64 { return 0.0005*requests + 300*runs }

// GateSettings say what a gate does besides counting mallocs, system calls and what is inlined.
type GateSettings struct {
	Base  string // the commit whose gateway's speed is compared with, for information; empty: none
	Tests bool   // run the tests that count allocations
}

// Gate checks what is exact about the gateway's data path.
//
// REQUIRES: on the main thread.
func Gate(ctx context.Context, s GateSettings, progress func(format string, args ...any)) (*GateResult, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	result := &GateResult{}
	if result.Checks, err = inlined(ctx, root); err != nil {
		return nil, err
	}
	if s.Tests {
		result.Checks = append(result.Checks, allocationTests(ctx, root)...)
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
	binary, err := buildBase(ctx, root, r.folder, s.Base)
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
		var requests, mallocs, runs float64
		for requests < mallocsRequestsMin {
			s, err := r.run(ctx, r.sides[SideGateway], c, gateRun)
			if err != nil {
				return fmt.Errorf("%v: %w", c, err)
			}
			requests += float64(s.Requests)
			mallocs += *s.Mallocs * float64(s.Requests)
			runs++
		}
		result.Checks = append(result.Checks, &Check{
			Name: fmt.Sprintf("mallocs in %.0f requests, %v", requests, c), Got: mallocs, Most: mallocsMost(requests, runs)})
	}
	return nil
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
