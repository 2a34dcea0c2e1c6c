package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// parseFolded reads lines of frames, the outermost first, separated by semicolons, and a value.
func parseFolded(text []byte) (*profile, error) {
	p := &profile{root: newFrame("all"), unit: "samples"}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseInt(line[at+1:], 10, 64)
		if at < 0 || err != nil {
			return nil, fmt.Errorf("neither a profile of Go, nor the output of perf script, nor folded stacks: %.60q", line)
		}
		p.root.add(strings.Split(line[:at], ";"), value)
	}
	return p, nil
}

var (
	// perfHead begins a sample of perf script: command, thread, seconds, period and event.
	perfHead = regexp.MustCompile(`^(\S.*?)\s+\d+(?:/\d+)?\s+(?:\[\d+\]\s+)?[\d.]+:\s.*:\s*$`)
	// perfFrame is a line of its stack: address, function and offset, object.
	perfFrame = regexp.MustCompile(`^\s+[0-9a-f]+ (.+) \((.*)\)$`)
	offset    = regexp.MustCompile(`\+0x[0-9a-f]+$`)
)

// isPerfScript reports whether the first sample of text looks as perf script writes it.
func isPerfScript(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\n")
		if len(line) > 0 && line[0] != '#' {
			return perfHead.Match(line)
		}
	}
	return false
}

// kernelSuffix marks a frame of the kernel.
const kernelSuffix = " [k]"

// parsePerf reads what perf script writes: a head for each sample, its stack with the innermost frame first, an empty line.
func parsePerf(text []byte) *profile {
	p := &profile{root: newFrame("all"), unit: "samples"}
	var stack []string
	thread := ""
	end := func() {
		if thread != "" {
			slices.Reverse(stack)
			p.root.add(append([]string{thread}, stack...), 1)
		}
		thread, stack = "", nil
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if head := perfHead.FindStringSubmatch(line); head != nil {
			end()
			thread = "thread " + head[1]
		} else if at := perfFrame.FindStringSubmatch(line); at != nil {
			stack = append(stack, perfName(at[1], at[2]))
		}
	}
	end()
	return p
}

func perfName(function, object string) string {
	name := offset.ReplaceAllString(function, "")
	switch {
	case strings.HasPrefix(object, "[kernel") || strings.HasSuffix(object, ".ko"):
		name += kernelSuffix
	case name == "[unknown]":
		name = object
	}
	return name
}

var (
	rawSample   = regexp.MustCompile(`^\s*((?:-?\d+\s+)*-?\d+): ([\d ]*)$`)
	rawLabel    = regexp.MustCompile(`([\w.-]+):\[([^\]]*)\]`)
	rawLocation = regexp.MustCompile(`^\s*(\d+): 0x[0-9a-f]+(?: M=\d+)?(.*)$`)
	rawFunction = regexp.MustCompile(`^\s*(.*?) \S*:\d+:\d+ s=-?\d+`)
)

// sampled is one entry of a raw profile.
type sampled struct {
	value     int64
	locations []string // by id, the innermost first
	labels    []string
}

// parseRaw reads the output of go tool pprof -raw. Empty sample is the profile's default.
func parseRaw(text []byte, sample string) (*profile, error) {
	head, rest, ok := strings.Cut(string(text), "\nSamples:\n")
	body, locations, ok2 := strings.Cut(rest, "\nLocations\n")
	if !ok || !ok2 {
		return nil, fmt.Errorf("go tool pprof -raw wrote no samples and locations: %.60q", head)
	}
	types, body, _ := strings.Cut(body, "\n")
	column, unit, err := chooseColumn(strings.Fields(types), sample)
	if err != nil {
		return nil, err
	}
	samples, err := readSamples(body, column)
	if err != nil {
		return nil, err
	}
	functions := readLocations(locations)
	p := &profile{root: newFrame("all"), unit: unit}
	for _, s := range samples {
		stack := s.labels
		for _, id := range slices.Backward(s.locations) {
			for _, function := range slices.Backward(functions[id]) {
				stack = append(stack, function)
			}
		}
		p.root.add(stack, s.value)
	}
	return p, nil
}

// chooseColumn finds the wanted type, as cpu, in types, as cpu/nanoseconds[dflt]; else the default, which is the last one
// unless one is marked.
func chooseColumn(types []string, want string) (column int, unit string, err error) {
	if len(types) == 0 {
		return 0, "", errors.New("the profile has no types of samples")
	}
	column = len(types) - 1
	found := want == ""
	for i, text := range types {
		name, _, _ := strings.Cut(text, "/")
		if want == "" && strings.HasSuffix(text, "[dflt]") || want != "" && name == want {
			column, found = i, true
		}
	}
	if !found {
		return 0, "", fmt.Errorf("there are no samples of type %q: the profile has %s", want, strings.Join(types, ", "))
	}
	_, unit, _ = strings.Cut(strings.TrimSuffix(types[column], "[dflt]"), "/")
	return column, unit, nil
}

// sizeLabel is what profiles of memory label samples with: it would tear stacks apart.
const sizeLabel = "bytes"

func readSamples(body string, column int) (samples []sampled, err error) {
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		if parts := rawSample.FindStringSubmatch(line); parts != nil {
			value, err := strconv.ParseInt(strings.Fields(parts[1])[column], 10, 64)
			if err != nil {
				return nil, err
			}
			samples = append(samples, sampled{value: value, locations: strings.Fields(parts[2])})
			continue
		}
		for _, label := range rawLabel.FindAllStringSubmatch(line, -1) {
			if len(samples) > 0 && label[1] != sizeLabel {
				s := &samples[len(samples)-1]
				s.labels = append(s.labels, label[1]+"="+label[2])
			}
		}
	}
	return samples, nil
}

// readLocations returns the functions of each location, by id: the innermost first, for a function that was inlined is
// listed before the one that it was inlined into.
func readLocations(text string) map[string][]string {
	functions := map[string][]string{}
	id := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "Mappings" {
			break
		}
		function := line
		if location := rawLocation.FindStringSubmatch(line); location != nil {
			id, function = location[1], location[2]
		}
		if name := rawFunction.FindStringSubmatch(function); name != nil {
			functions[id] = append(functions[id], strings.TrimSpace(name[1]))
		} else if id != "" && functions[id] == nil {
			functions[id] = []string{"?"} // a machine without symbols
		}
	}
	return functions
}
