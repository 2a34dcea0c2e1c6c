// Command pairs compares two binaries of the gateway by the runs of ipc-bench compare --base, run by run: what each
// pair of runs that followed each other says about CPU time and rate, so that what else the machine did meets both.
//
//	ipc-bench compare --sides gateway,base --base OLD --json=FILE
//	pairs FILE
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/aigroup/ipc-gateway/perf/compare"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pairs:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	if len(args) != 1 {
		return errors.New("want one file of ipc-bench compare --json")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var r compare.Result
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	for _, cell := range r.Cells {
		cpu, rate := ratios(cell)
		fmt.Fprintf(w, "%s %dx%d, %d B, %d pairs: gateway/base CPU per request %s; rate %s\n",
			cell.Kind, cell.Connections, cell.Window, cell.Payload, len(cpu), spread(cpu), spread(rate))
	}
	return nil
}

// ratios returns what the gateway had of the base's CPU time per request and of its rate, for each pair of runs.
func ratios(cell *compare.CellResult) (cpu, rate []float64) {
	var gateway, base []*compare.Sample
	for _, side := range cell.Sides {
		switch side.Name {
		case "gateway":
			gateway = side.Runs
		case "base":
			base = side.Runs
		}
	}
	for i := range min(len(gateway), len(base)) {
		if gateway[i].MiddleUs == nil || base[i].MiddleUs == nil {
			continue
		}
		cpu = append(cpu, *gateway[i].MiddleUs / *base[i].MiddleUs)
		rate = append(rate, gateway[i].PerSecond()/base[i].PerSecond())
	}
	return cpu, rate
}

// spread tells the median of values, and between what the middle half of them lies.
func spread(values []float64) string {
	if len(values) == 0 {
		return "unknown"
	}
	sorted := slices.Sorted(slices.Values(values))
	at := func(share float64) float64 { return sorted[int(share*float64(len(sorted)-1)+0.5)] }
	return fmt.Sprintf("%.3f (half of them %.3f to %.3f)", at(0.5), at(0.25), at(0.75))
}
