// Command flame draws a flame graph of a profile, as an SVG file that needs nothing else:
//
//	flame -o cpu.svg cpu.pprof                      a profile of Go, as /debug/pprof/ serves it
//	flame -o allocs.svg -sample alloc_objects allocs.pprof
//	perf script | flame -o perf.svg -               what perf record -g has sampled, kernel included
//	flame -o some.svg some.folded                   lines of "outermost;inner;innermost 17"
//
// The width of a frame is its share of all samples, callers stand below what they call, and what lies side by side is sorted
// by name and not by time. A click on a frame makes it as wide as the picture; one on the lowest puts all back. Goroutines'
// labels are frames below the stacks.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "flame:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader) error {
	flags := flag.NewFlagSet("flame", flag.ContinueOnError)
	out := flags.String("o", "flame.svg", "the SVG file")
	title := flags.String("title", "", "heading of the picture; by default the profile's file name")
	sample := flags.String("sample", "", "type of the samples of a Go profile, as alloc_objects; by default the profile's own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one profile, or - for standard input")
	}
	p, err := read(flags.Arg(0), *sample, stdin)
	if err != nil {
		return err
	}
	if p.root.total == 0 {
		return errNoSamples
	}
	if *title == "" {
		*title = filepath.Base(flags.Arg(0))
	}
	var picture bytes.Buffer
	draw(&picture, p, *title)
	return os.WriteFile(*out, picture.Bytes(), 0o644)
}

// errNoSamples is returned for a profile of a time in which nothing of its kind happened.
var errNoSamples = errors.New("there are no samples in it")

// profile is a tree of stacks with what is counted.
type profile struct {
	root *frame
	unit string // of the values: samples, nanoseconds, bytes, count
}

// read reads the profile at path, or stdin if that is "-", in any of the forms that it knows.
func read(path, sample string, stdin io.Reader) (*profile, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(text, []byte{0x1f, 0x8b}): // gzip
		if path == "-" {
			return nil, errors.New("a profile of Go has to be a file")
		}
		raw, err := exec.Command("go", "tool", "pprof", "-raw", path).Output()
		if err != nil {
			return nil, fmt.Errorf("go tool pprof -raw %s: %w", path, err)
		}
		return parseRaw(raw, sample)
	case isPerfScript(text):
		return parsePerf(text), nil
	}
	return parseFolded(text)
}
