package main

import (
	"fmt"
	"io"
	"slices"
)

// Goals of the project. The two differences are what a second hop may cost a program that has the
// machine for itself.
const (
	goalPingCPU    = 1.4 // at most so many times the C echo's CPU per PING
	goalExtraP50Us = 40  // at most so much above direct, one connection
	goalExtraP99Us = 150 // the same at p99
)

// goalRate is how many times the requests per second of direct are wanted at least, by connections.
var goalRate = map[int]float64{16: 1.2, 64: 2}

// goal is one goal and what was measured.
type goal struct {
	what      string
	got, want float64
	atLeast   bool   // else at most
	unit      string // of got and want
}

func (g *goal) reached() bool {
	if g.atLeast {
		return g.got >= g.want
	}
	return g.got <= g.want
}

func (g *goal) String() string {
	verdict, bound := "NOT REACHED", "at most"
	if g.reached() {
		verdict = "reached"
	}
	if g.atLeast {
		bound = "at least"
	}
	return fmt.Sprintf("%-11s  %s: %.3f%s, goal %s %v%s", verdict, g.what, g.got, g.unit, bound, g.want, g.unit)
}

// requestGoals judges duels of gateway and direct. language is that of the gateway's clients; the goals are about
// programs, and what connections in one process reach is not called so.
func requestGoals(duels []*duel, language, clients string) []*goal {
	var goals []*goal
	for _, d := range duels {
		if d.connections == 1 {
			goals = append(goals, extra("p50", d, p50, goalExtraP50Us), extra("p99", d, p99, goalExtraP99Us))
		}
		if want, wanted := goalRate[d.connections]; wanted {
			what := fmt.Sprintf("requests/s, %d %s, gateway (%s) / direct", d.connections, clients, language)
			goals = append(goals, &goal{what, d.compare(perSecond).medians, want, true, "x"})
		}
	}
	return goals
}

// extra judges how far the gateway's median is above direct's.
func extra(name string, d *duel, value func(*sample) float64, wantUs float64) *goal {
	gotUs := median(valuesOf(d.aRuns, value)) - median(valuesOf(d.bRuns, value))
	return &goal{name + ", 1 connection, gateway - direct", gotUs, wantUs, false, " us"}
}

// pingGoals judges duels of gateway and C echo.
func pingGoals(duels []*duel) []*goal {
	var goals []*goal
	for _, d := range duels {
		what := fmt.Sprintf("CPU per PING, %d x %d, gateway / C echo", d.connections, d.window)
		goals = append(goals, &goal{what, d.compare(serverUs).medians, goalPingCPU, false, "x"})
	}
	return goals
}

// writeGoals writes goals, and which of the project's were not measured.
func writeGoals(w io.Writer, goals []*goal, s *settings, pinged bool) {
	fmt.Fprintln(w, "\ngoals")
	for _, g := range goals {
		fmt.Fprintf(w, "  %v\n", g)
	}
	for _, connections := range []int{16, 64} {
		if !slices.Contains(s.connections, connections) {
			fmt.Fprintf(w, "  %-11s  requests/s, %d programs: not among -conns\n", "not measured", connections)
		}
	}
	if !pinged {
		fmt.Fprintf(w, "  %-11s  CPU per PING: %v\n", "not measured", errNoCompiler)
	}
}
