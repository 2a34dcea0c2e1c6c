// Command pictures draws what a run of perf/run_benchmarks.sh measured, as SVG beside its files: latency by percentile, and
// rate and CPU time per request over the number of connections, of the gateway and its peers.
//
//	pictures results/20260131_120000
//
// It is a module of its own, so that nothing of a plotting library is in the gateway's.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pictures FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

// run draws what there are files for.
func run(folder string) error {
	pictures, err := percentilesOf(folder)
	if err != nil {
		return err
	}
	compared, err := readComparison(filepath.Join(folder, "compare.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pictures = append(pictures, compared.pictures()...)
	if len(pictures) == 0 {
		return fmt.Errorf("nothing to draw in %s: neither compare.json nor latency_*.hdr is there", folder)
	}
	for _, p := range pictures {
		if err := p.save(folder); err != nil {
			return fmt.Errorf("%s: %w", p.file, err)
		}
	}
	return nil
}

// comparison is what is drawn of the JSON of "ipc-bench compare".
type comparison struct {
	Results []*cell `json:"results"`
}

type cell struct {
	Kind        string `json:"kind"`
	Connections int    `json:"connections"`
	Window      int    `json:"window"`
	Payload     int    `json:"payload"`
	Sides       []struct {
		Name string    `json:"name"`
		Runs []*sample `json:"runs"`
	} `json:"sides"`
}

type sample struct {
	Requests    float64   `json:"requests"`
	Seconds     float64   `json:"seconds"`
	MiddleUs    *float64  `json:"middle_us"`
	QuantilesUs []float64 `json:"quantiles_us"`
}

func readComparison(path string) (*comparison, error) {
	c := &comparison{}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// median of the runs, by value; false: a run has none.
func median(runs []*sample, value func(*sample) (float64, bool)) (float64, bool) {
	var values []float64
	for _, r := range runs {
		v, ok := value(r)
		if !ok {
			return 0, false
		}
		values = append(values, v)
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle], true
	}
	return (values[middle-1] + values[middle]) / 2, true
}
