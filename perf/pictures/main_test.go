package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const compared = `{"results":[
{"kind":"request","connections":1,"window":1,"payload":256,"sides":[
 {"name":"gateway","runs":[{"requests":100,"seconds":1,"middle_us":30,"quantiles_us":[1,2,3,4,5,6,7,8,9,10,11,12,13]},
                           {"requests":300,"seconds":1,"middle_us":10,"quantiles_us":[1,2,3,4,5,6,7,8,9,10,11,12,13]}]},
 {"name":"direct","runs":[{"requests":100,"seconds":1,"middle_us":null,"quantiles_us":[1,2,3,4,5,6,7,8,9,10,11,12,13]}]}]},
{"kind":"request","connections":16,"window":1,"payload":256,"sides":[
 {"name":"gateway","runs":[{"requests":1000,"seconds":1,"middle_us":3,"quantiles_us":[1,2,3,4,5,6,7,8,9,10,11,12,13]}]},
 {"name":"direct","runs":[{"requests":900,"seconds":1,"quantiles_us":[1,2,3,4,5,6,7,8,9,10,11,12,13]}]}]},
{"kind":"publish","connections":16,"window":16,"payload":256,"sides":[
 {"name":"gateway","runs":[{"requests":1000,"seconds":1,"middle_us":3,"quantiles_us":[0,0,0,0,0,0,0,0,0,0,0,0,0]}]}]}]}`

const histogram = " Value\tPercentile\tTotalCount\t1/(1-Percentile)\n\n     57.471     0.000000            1         1.00\n" +
	"     90.000     0.500000          150         2.00\n    120.000     1.000000          300          inf\n#[Mean    =      100.000, StdDeviation   =        1.000]\n"

// Goal: every picture that the files have figures for is drawn, with a line for each side that has them, and no other.
func TestPictures(t *testing.T) {
	folder := t.TempDir()
	for name, text := range map[string]string{"compare.json": compared, "latency_64b.hdr": histogram, "latency_256b.hdr": histogram} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(folder); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"latency.svg":                     {"64b", "256b"},
		"latency_request_w1_256b_c1.svg":  {"gateway", "direct"},
		"latency_request_w1_256b_c16.svg": {"gateway", "direct"},
		"rate_request_w1_256b.svg":        {"gateway", "direct"},
		"cpu_request_w1_256b.svg":         {"gateway"},
	}
	drawn, err := filepath.Glob(filepath.Join(folder, "*.svg"))
	if err != nil || len(drawn) != len(want) {
		t.Errorf("drawn: %v, %v", drawn, err)
	}
	for file, names := range want {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range []string{"gateway", "direct", "64b", "256b"} {
			wanted := false
			for _, n := range names {
				wanted = wanted || n == name
			}
			if strings.Contains(string(text), ">"+name+"<") != wanted {
				t.Errorf("%s: %s is wanted: %v", file, name, wanted)
			}
		}
	}
}

// Goal: the line over connections has the medians.
func TestMedians(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "compare.json")
	if err := os.WriteFile(path, []byte(compared), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readComparison(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.pictures() {
		if p.file == "rate_request_w1_256b.svg" {
			if points := p.line("gateway").points; len(points) != 2 || points[0].X != 1 || points[0].Y != 200 || points[1].Y != 1000 {
				t.Errorf("got %v", points)
			}
			return
		}
	}
	t.Error("no picture of the rate")
}

// Goal: a folder without figures, and files that cannot be read, are told.
func TestFails(t *testing.T) {
	folder := t.TempDir()
	if err := run(folder); err == nil || !strings.Contains(err.Error(), "nothing to draw") {
		t.Errorf("got %v", err)
	}
	for name, text := range map[string]string{"compare.json": "{", "latency_1b.hdr": "nothing"} {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(folder); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// Goal: of a histogram with a line for each recorded value as many points are drawn as can be told apart.
func TestHistogramIsThinned(t *testing.T) {
	const lines = 10_000
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "%12.3f %14.12f %12d %12.2f\n", 1+float64(i), float64(i)/lines, i, lines/float64(lines-i))
	}
	path := filepath.Join(t.TempDir(), "latency_64b.hdr")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	points, err := readHDR(path)
	if err != nil || len(points) < 100 || len(points) > 200 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	if first, last := points[0], points[len(points)-1]; first.X != 1 || first.Y != 1 || last.X < 9000 {
		t.Errorf("from %v to %v", first, last)
	}
}
