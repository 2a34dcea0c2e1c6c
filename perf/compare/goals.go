package compare

import (
	"fmt"
	"io"
)

// goal is one that the project has set itself.
type goal struct {
	kind                string
	connections, window int
	side                string // that the gateway is compared with; empty: bound is the gateway's own
	what                string
	value               func(*Sample) float64
	difference          bool // gateway - side; else gateway / side
	atLeast             bool // else at most
	bound               float64
	unit                string
}

// goalPayload is the payload, in bytes, that the goals are about; ping has none.
const goalPayload = 256

var goals = []goal{
	{KindRequest, 1, 1, SideDirect, "p50 added", p50, true, false, 40, " us"},
	{KindRequest, 1, 1, SideDirect, "p99 added", p99, true, false, 150, " us"},
	{KindRequest, 16, 1, SideDirect, "rate", perSecond, false, true, 1.4, "x"},
	{KindRequest, 16, 1, SideDirect, "p99", p99, false, false, 0.65, "x"},
	{KindRequest, 64, 1, SideDirect, "rate", perSecond, false, true, 2.5, "x"},
	{KindRequest, 64, 1, SideDirect, "p99", p99, false, false, 0.5, "x"},

	{KindRequest, 16, 1, SideHAProxy, "rate", perSecond, false, true, 2, "x"},
	{KindRequest, 16, 1, SideHAProxy, "CPU", middleUs, false, false, 0.5, "x"},
	{KindRequest, 64, 1, SideHAProxy, "rate", perSecond, false, true, 3.5, "x"},
	{KindRequest, 64, 1, SideHAProxy, "CPU", middleUs, false, false, 0.33, "x"},

	{KindRequest, 16, 1, SideRing, "rate", perSecond, false, true, 1.5, "x"},
	{KindRequest, 16, 1, SideRing, "CPU", middleUs, false, false, 0.4, "x"},
	{KindRequest, 64, 1, SideRing, "rate", perSecond, false, true, 1.9, "x"},
	{KindRequest, 64, 1, SideRing, "CPU", middleUs, false, false, 0.4, "x"},
	{KindRequest, 16, 16, SideRing, "rate", perSecond, false, true, 1.9, "x"},
	{KindRequest, 16, 16, SideRing, "CPU", middleUs, false, false, 0.4, "x"},

	{KindConnect, 16, 1, SideDirect, "rate", perSecond, false, true, 1.8, "x"}, // 3.5 with TLS, see limit

	{KindPing, 16, 1, SideEcho, "CPU", middleUs, false, false, 1.25, "x"},
	{KindPing, 64, 1, SideEcho, "CPU", middleUs, false, false, 1.25, "x"},
	{KindPing, 16, 16, SideEcho, "CPU", middleUs, false, false, 1.05, "x"},

	{KindPublish, 16, publishWindow, SideDirect, "rate", perSecond, false, true, 1, "x"},
	{KindPublishAnswered, 16, publishWindow, SideDirect, "rate", perSecond, false, true, 0.5, "x"},

	{KindJetStream, 16, 16, SideDirect, "rate", perSecond, false, true, 1, "x"},

	{KindRequest, 16, 16, "", "mallocs per request", mallocs, false, false, 0.001, ""},
	{KindRequest, 64, 1, "", "RSS", rssMiB, false, false, 60, " MiB"},
}

// cell returns the result that g is about, or nil.
func (g *goal) cell(r *Result) *CellResult {
	for _, c := range r.Cells {
		if c.Kind == g.kind && c.Connections == g.connections && c.Window == g.window && (c.Payload == goalPayload || c.Kind == KindPing) {
			return c
		}
	}
	return nil
}

// limit is the bound. Over TLS a connection costs more, so that more is wanted of not making one.
func (g *goal) limit(r *Result) float64 {
	if g.kind == KindConnect && r.Settings.TLS {
		return 3.5
	}
	return g.bound
}

// judge returns what was measured; false: it was not.
func (g *goal) judge(r *Result) (got float64, reached, measured bool) {
	c := g.cell(r)
	if c == nil || c.side(SideGateway) == nil {
		return 0, false, false
	}
	got = c.side(SideGateway).median(g.value)
	if g.side != "" {
		peer := c.side(g.side)
		if peer == nil {
			return 0, false, false
		}
		if g.difference {
			got -= peer.median(g.value)
		} else {
			got /= peer.median(g.value)
		}
	}
	if g.atLeast {
		return got, got >= g.limit(r), true
	}
	return got, got <= g.limit(r), true
}

// judgement is a goal beside what was measured, in words.
type judgement struct{ what, bound, got, verdict string }

// judged are the goals that were measured.
func (r *Result) judged() []judgement {
	var all []judgement
	for _, g := range goals {
		got, reached, measured := g.judge(r)
		if !measured {
			continue
		}
		j := judgement{
			what:    fmt.Sprintf("%s %d x %d, %s", g.kind, g.connections, g.window, g.what),
			bound:   fmt.Sprintf("at most %g%s", g.limit(r), g.unit),
			got:     fmt.Sprintf("%.3f%s", got, g.unit),
			verdict: verdictOf(reached),
		}
		if g.atLeast {
			j.bound = fmt.Sprintf("at least %g%s", g.limit(r), g.unit)
		}
		if g.side != "" {
			j.what += " against " + g.side
		}
		all = append(all, j)
	}
	return all
}

func verdictOf(reached bool) string {
	if reached {
		return "reached"
	}
	return "NOT REACHED"
}

// writeGoals writes those that were measured. They say nothing about the exit code.
func (r *Result) writeGoals(w io.Writer) {
	for i, j := range r.judged() {
		if i == 0 {
			fmt.Fprintln(w, "\ngoals")
		}
		fmt.Fprintf(w, "  %-11s  %s: %s, goal %s\n", j.verdict, j.what, j.got, j.bound)
	}
}
