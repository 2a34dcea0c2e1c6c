package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// Parts of the goals that the gateway is measured for alone, without a peer.
const (
	PartGarbage = "garbage" // mallocs and collections under load
	PartMemory  = "memory"  // idle, with idle connections, under load
	PartIdle    = "idle"    // CPU time with idle clients
	PartFlat    = "flat"    // CPU time per request over the number of connections
	PartLoops   = "loops"   // two loops against one
)

// OwnParts are all of them, in the order in which they are measured.
var OwnParts = []string{PartGarbage, PartMemory, PartIdle, PartFlat, PartLoops}

// OwnSettings say how the gateway is measured alone.
type OwnSettings struct {
	Parts    []string      `json:"parts"`
	Garbage  time.Duration `json:"garbage_ns"`       // of load in which nothing is to be collected
	Requests int64         `json:"garbage_requests"` // that the mallocs are counted over, at least
	Idle     time.Duration `json:"idle_ns"`          // that idle clients are watched
	Run      time.Duration `json:"run_ns"`           // of each run of PartFlat and PartLoops
	Repeats  int           `json:"repeats"`          // of these runs
	Rate     float64       `json:"rate"`             // requests per second of PartFlat
}

// DefaultOwn takes four minutes.
func DefaultOwn() OwnSettings {
	return OwnSettings{Parts: OwnParts, Garbage: time.Minute, Requests: 1_000_000, Idle: 30 * time.Second, Run: 4 * time.Second, Repeats: 3, Rate: 5000}
}

// QuickOwn takes less than a minute, and does not show what needs longer.
func QuickOwn() OwnSettings {
	return OwnSettings{Parts: OwnParts, Garbage: 3 * time.Second, Requests: 100_000, Idle: 3 * time.Second, Run: time.Second, Repeats: 1, Rate: 5000}
}

// Validate returns every problem of s, joined.
func (s *OwnSettings) Validate() error {
	var problems []error
	for _, part := range s.Parts {
		if !slices.Contains(OwnParts, part) {
			problems = append(problems, fmt.Errorf("%q is none of %v", part, OwnParts))
		}
	}
	if s.Rate < 1 || s.Rate > 1e6 {
		problems = append(problems, fmt.Errorf("rate %v: want 1 to 1e6", s.Rate))
	}
	return errors.Join(problems...)
}

// Verdicts on a goal.
const (
	Reached    = "reached"
	NotReached = "NOT REACHED"
	NotShown   = "not shown" // the machine, or so short a run, cannot show it; OwnGoal.Note says why
)

// OwnGoal is a goal beside what was measured.
type OwnGoal struct {
	Part    string  `json:"part"`
	What    string  `json:"what"`
	Got     float64 `json:"got"`
	Unit    string  `json:"unit,omitempty"`
	Least   float64 `json:"least"` // the bounds; with one over 0 the other, if it is 0, is none
	Most    float64 `json:"most"`
	Verdict string  `json:"verdict"`
	Note    string  `json:"note,omitempty"` // what was measured, and what is to be known about it
}

// goal says what is wanted, in words.
func (g *OwnGoal) goal() string {
	switch {
	case g.Least > 0 && g.Most > 0:
		return fmt.Sprintf("%g to %g%s", g.Least, g.Most, g.Unit)
	case g.Least > 0:
		return fmt.Sprintf("at least %g%s", g.Least, g.Unit)
	}
	return fmt.Sprintf("at most %g%s", g.Most, g.Unit)
}

// OwnResult is all that was measured.
type OwnResult struct {
	Started  time.Time   `json:"started"`
	Machine  string      `json:"machine"`
	Settings OwnSettings `json:"settings"`
	Goals    []*OwnGoal  `json:"goals"`
	Failed   []string    `json:"failed,omitempty"` // parts that could not be measured, and why
}

// add judges a figure by its bounds, unless why says that it shows nothing.
func (r *OwnResult) add(g OwnGoal, why string) {
	switch {
	case why != "":
		g.Verdict = NotShown
		if g.Note != "" {
			why = g.Note + "; " + why
		}
		g.Note = why
	case g.Got >= g.Least && (g.Got <= g.Most || g.Most == 0 && g.Least > 0):
		g.Verdict = Reached
	default:
		g.Verdict = NotReached
	}
	r.Goals = append(r.Goals, &g)
}

// Write writes a line for each goal.
func (r *OwnResult) Write(w io.Writer) {
	fmt.Fprintf(w, "%s; the gateway alone\n", r.Machine)
	part := ""
	for _, g := range r.Goals {
		if g.Part != part {
			part = g.Part
			fmt.Fprintf(w, "\n%s\n", part)
		}
		fmt.Fprintf(w, "  %-11s  %s: %.4g%s, goal %s\n", g.Verdict, g.What, g.Got, g.Unit, g.goal())
		if g.Note != "" {
			fmt.Fprintf(w, "               %s\n", g.Note)
		}
	}
	for _, why := range r.Failed {
		fmt.Fprintf(w, "\nFAILED: %s\n", why)
	}
}

// Own measures what s names and returns it: with an error too, if anything was measured.
//
// REQUIRES: on the main thread, since the processes end with the thread that started them.
func Own(ctx context.Context, s OwnSettings, progress func(format string, args ...any)) (*OwnResult, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	o, err := startOwn(ctx, s, progress)
	defer o.stop()
	if err != nil {
		return nil, err
	}
	measure := map[string]func(context.Context) error{
		PartGarbage: o.garbage, PartMemory: o.memory, PartIdle: o.idleCPU, PartFlat: o.flat, PartLoops: o.loops,
	}
	for _, part := range OwnParts {
		if !slices.Contains(s.Parts, part) {
			continue
		}
		progress("measuring %s", part)
		err := measure[part](ctx)
		o.stopGateway()
		if err != nil {
			o.result.Failed = append(o.result.Failed, fmt.Sprintf("%s: %v", part, err))
		}
		if ctx.Err() != nil {
			return o.result, errors.Join(errIncomplete, ctx.Err())
		}
	}
	if len(o.result.Failed) > 0 {
		return o.result, errIncomplete
	}
	return o.result, nil
}

// own is a rig that has one gateway at a time, and ipc-bench for its clients.
type own struct {
	*rig
	settings OwnSettings
	result   *OwnResult
	gateway  *side
}

func startOwn(ctx context.Context, s OwnSettings, progress func(string, ...any)) (*own, error) {
	machine := fmt.Sprintf("%s/%s, %s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.NumCPU())
	o := &own{rig: &rig{sides: map[string]*side{}, progress: progress}, settings: s, result: &OwnResult{Started: time.Now(), Machine: machine, Settings: s}}
	root, err := moduleRoot(ctx)
	if err != nil {
		return o, err
	}
	if o.folder, err = os.MkdirTemp("", "ipc-bench-"); err != nil {
		return o, err
	}
	if err := runTool(ctx, root, "go", "build", "-trimpath", "-o", o.folder+"/", "./cmd/ipc-gateway", "./cmd/ipc-bench", "./perf/natsd", "./perf/responder"); err != nil {
		return o, err
	}
	return o, o.startNATS(ctx, false)
}

// serve puts a gateway with these flags in the place of the one before.
func (o *own) serve(ctx context.Context, flags ...string) error {
	o.stopGateway()
	o.gateway = &side{name: SideGateway}
	if err := o.startGateway(ctx, &Settings{}, o.gateway, o.path("ipc-gateway"), flags...); err != nil {
		return err
	}
	return o.calibrate(ctx, o.gateway)
}

func (o *own) stopGateway() {
	if o.gateway == nil || o.gateway.middle == nil {
		return
	}
	o.gateway.middle.stop()
	o.running = slices.DeleteFunc(o.running, func(p *process) bool { return p == o.gateway.middle })
	o.gateway = nil
}
