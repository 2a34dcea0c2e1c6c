package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot/plotter"
)

// quantiles are those of the latencies in a comparison, as perf/internal/report has them.
var quantiles = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1}

// pictures are those of a comparison: of each kind, payload and window, rate and CPU over connections, if there are several
// numbers of them, and of requests the latencies of each.
func (c *comparison) pictures() []*picture {
	var all []*picture
	groups := map[string][]*cell{}
	var names []string
	for _, one := range c.Results {
		name := fmt.Sprintf("%s_w%d", one.Kind, one.Window)
		if one.Payload > 0 {
			name += fmt.Sprintf("_%db", one.Payload)
		}
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], one)
		if one.Kind == "request" {
			all = append(all, one.latencies(fmt.Sprintf("latency_%s_c%d.svg", name, one.Connections)))
		}
	}
	for _, name := range names {
		if len(groups[name]) > 1 {
			all = append(all,
				overConnections(groups[name], "rate_"+name+".svg", "requests per second", func(s *sample) (float64, bool) {
					return s.Requests / s.Seconds, true
				}),
				overConnections(groups[name], "cpu_"+name+".svg", "CPU us per request of the process in the middle", func(s *sample) (float64, bool) {
					if s.MiddleUs == nil {
						return 0, false
					}
					return *s.MiddleUs, true
				}))
		}
	}
	return slices.DeleteFunc(all, func(p *picture) bool { return len(p.lines) == 0 })
}

// title names what the cells have in common.
func (c *cell) title() string {
	title := fmt.Sprintf("%s, window %d", c.Kind, c.Window)
	if c.Payload > 0 {
		title += fmt.Sprintf(", %d B", c.Payload)
	}
	return title
}

// overConnections draws a figure of the sides over the number of connections.
func overConnections(cells []*cell, file, yName string, value func(*sample) (float64, bool)) *picture {
	p := &picture{file: file, title: cells[0].title(), xName: "connections", yName: yName}
	var counts []int
	for _, c := range cells {
		counts = append(counts, c.Connections)
		for _, s := range c.Sides {
			if y, ok := median(s.Runs, value); ok && y > 0 {
				l := p.line(s.Name)
				l.points = append(l.points, plotter.XY{X: float64(c.Connections), Y: y})
			}
		}
	}
	p.xTicks = connectionTicks(counts)
	return p
}

// latencies draws those of all sides by percentile.
func (c *cell) latencies(file string) *picture {
	p := &picture{file: file, title: fmt.Sprintf("%s, %d connections", c.title(), c.Connections), xName: "percentile", yName: "latency, us", xTicks: percentileTicks}
	for _, s := range c.Sides {
		for i, q := range quantiles[:len(quantiles)-1] {
			y, ok := median(s.Runs, func(s *sample) (float64, bool) {
				if i >= len(s.QuantilesUs) {
					return 0, false
				}
				return s.QuantilesUs[i], true
			})
			if ok && y > 0 {
				l := p.line(s.Name)
				l.points = append(l.points, plotter.XY{X: percentileX(q), Y: y})
			}
		}
	}
	return p
}

// line returns that with the name.
func (p *picture) line(name string) *line {
	for _, l := range p.lines {
		if l.name == name {
			return l
		}
	}
	p.lines = append(p.lines, &line{name: name})
	return p.lines[len(p.lines)-1]
}

// percentilesOf draws the histograms of "ipc-bench latency", if there are any: all in one picture.
func percentilesOf(folder string) ([]*picture, error) {
	files, err := filepath.Glob(filepath.Join(folder, "latency_*.hdr"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	p := &picture{file: "latency.svg", title: "latency through the gateway, one connection", xName: "percentile", yName: "latency, us", xTicks: percentileTicks}
	for _, file := range files {
		points, err := readHDR(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "latency_"), ".hdr")
		p.lines = append(p.lines, &line{name: name, points: points})
	}
	return []*picture{p}, nil
}

// apart is how far points of a histogram lie apart on the axis, at least: one for each recorded value would be thousands.
const apart = 1.05

// readHDR reads HdrHistogram's text format up to 99.99%: value, percentile from 0 to 1, and two more numbers.
func readHDR(path string) (plotter.XYs, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var points plotter.XYs
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 4 {
			continue
		}
		value, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue // the heads of the columns
		}
		quantile, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return nil, err
		}
		if quantile > quantiles[len(quantiles)-2] || value <= 0 {
			continue
		}
		if x := percentileX(quantile); len(points) == 0 || x >= apart*points[len(points)-1].X {
			points = append(points, plotter.XY{X: x, Y: value})
		}
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("no percentiles in it")
	}
	return points, nil
}
