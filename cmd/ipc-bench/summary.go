package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/aigroup/ipc-gateway/perf/compare"
)

// summaryCommand makes one document of what perf/run_benchmarks.sh has measured.
type summaryCommand struct {
	Folder string `arg:"" type:"existingdir" help:"Where throughput*.json, latency*.json, rate_latency*.json, compare.json and the pictures are."`
}

// Run writes summary.md.
func (c *summaryCommand) Run() error {
	var document strings.Builder
	if err := c.write(&document); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Folder, "summary.md"), []byte(document.String()), 0o644)
}

func (c *summaryCommand) write(w io.Writer) error {
	fmt.Fprintf(w, "# Benchmarks of ipc-gateway, %s\n\n%s/%s, %s, %d CPUs. The columns are explained in perf/README.md.\n",
		filepath.Base(c.Folder), runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.NumCPU())
	for _, section := range []struct{ title, pattern string }{
		{"Throughput", "throughput*.json"},
		{"Latency, one request after the other", "latency*.json"},
		{"Latency, sent by the clock and measured from when each was due", "rate_latency*.json"},
	} {
		if err := c.writeSection(w, section.title, section.pattern); err != nil {
			return err
		}
	}
	if err := c.writeComparison(w); err != nil {
		return err
	}
	pictures, err := filepath.Glob(filepath.Join(c.Folder, "*.svg"))
	if err != nil || len(pictures) == 0 {
		return err
	}
	fmt.Fprint(w, "\n## Pictures\n\n")
	for _, picture := range pictures {
		fmt.Fprintf(w, "![%[1]s](%[1]s)\n", filepath.Base(picture))
	}
	return nil
}

// writeSection writes a table of results, a file in each row. Without files it writes nothing.
func (c *summaryCommand) writeSection(w io.Writer, title, pattern string) error {
	files, err := filepath.Glob(filepath.Join(c.Folder, pattern))
	if err != nil || len(files) == 0 {
		return err
	}
	fmt.Fprintf(w, "\n## %s\n\n", title)
	fmt.Fprintln(w, "| requests | conns x window | bytes | req/s | success | p50 us | p95 us | p99 us | p99.9 us | max us | server CPU us/req | client CPU | verdict |")
	fmt.Fprintln(w, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
	for _, file := range files {
		var s summary
		if err := readJSON(file, &s); err != nil {
			return err
		}
		l := &s.Latency
		fmt.Fprintf(w, "| %s v%d | %d x %d | %d | %.0f | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %s | %.0f%% | %s |\n",
			s.Type, s.Version, s.Connections, s.Window, s.Payload, s.PerSecond, percent(s.SuccessRate),
			l.P50, l.P95, l.P99, l.P999, l.Max, s.Server.cost(), 100*s.CPUShare, s.Verdict.text())
	}
	return nil
}

func (v verdict) text() string {
	if v.Throughput == "" {
		return "p99 " + v.P99
	}
	return v.Throughput + ", p99 " + v.P99
}

// writeComparison writes the tables of compare.json, if it is there.
func (c *summaryCommand) writeComparison(w io.Writer) error {
	var result compare.Result
	err := readJSON(filepath.Join(c.Folder, "compare.json"), &result)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprint(w, "\n## The gateway beside its peers\n\n")
	result.WriteMarkdown(w)
	return nil
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
