package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// folded writes a tree as folded stacks, with what each frame has by itself.
func folded(f *frame, path string) (text string) {
	own := f.total
	for _, child := range f.sorted() {
		own -= child.total
		text += folded(child, path+child.name+";")
	}
	if own > 0 {
		text = strings.TrimSuffix(path, ";") + " " + amount(own, "") + "\n" + text
	}
	return text
}

// fromFile reads a profile of testdata.
func fromFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Goal: the raw form of a profile becomes stacks with the outermost frame first, inlined functions in their place, labels
// below, and the column of samples that was asked for.
func TestParseRaw(t *testing.T) {
	text := fromFile(t, "cpu.raw")
	for sample, want := range map[string]string{
		"":        "loop=0;part=loop;main.run;main.inlined;syscall.Read 170000000 \nmain.run;? 90000000 \n",
		"samples": "loop=0;part=loop;main.run;main.inlined;syscall.Read 17 \nmain.run;? 9 \n",
	} {
		p, err := parseRaw(text, sample)
		if err != nil {
			t.Fatal(err)
		}
		if got := folded(p.root, ""); got != want {
			t.Errorf("%q: got %s, want %s", sample, got, want)
		}
	}
	if _, err := parseRaw(text, "bytes"); err == nil || !strings.Contains(err.Error(), "samples/count, cpu/nanoseconds") {
		t.Errorf("a type that is not there: %v", err)
	}
	if _, err := parseRaw([]byte("nothing"), ""); err == nil {
		t.Error("no profile at all was read")
	}
}

// Goal: the default of a memory profile is the type that is marked, and the sizes that label its samples are not frames.
func TestParseRawMemory(t *testing.T) {
	p, err := parseRaw(fromFile(t, "allocs.raw"), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := folded(p.root, ""), "main.make 1300 \n"; got != want || p.unit != "bytes" {
		t.Errorf("got %s in %s, want %s", got, p.unit, want)
	}
}

// Goal: samples of perf script become stacks below their thread, kernel frames are marked, and equal ones are one.
func TestParsePerf(t *testing.T) {
	text := fromFile(t, "perf.script")
	if !isPerfScript(text) {
		t.Fatal("not recognized")
	}
	want := "thread ipc-loop-0;main.run;syscall.write;ksys_write [k] 2 \nthread some program;[vdso] 1 \n"
	if got := folded(parsePerf(text).root, ""); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Goal: a picture is XML, shows all that is wide enough with its share and unit, escapes names and gives nobody a
// network address to go to.
func TestDraw(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.folded")
	picture := filepath.Join(t.TempDir(), "a.svg")
	text := "loop=0;main.(*T[<x>]).run;runtime.futex 75\nloop=0;main.(*T[<x>]).run;ksys_write [k] 25\nloop=0;rare 0\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-o", picture, "-title", "a & b", file}, nil); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not XML: %v", err)
		}
	}
	for _, part := range []string{"a &amp; b: 100 samples", "main.(*T[&lt;x&gt;]).run: 100 samples, 100.00%", "runtime.futex: 75 samples, 75.00%", "ksys_write [k]: 25 samples, 25.00%"} {
		if !strings.Contains(string(svg), part) {
			t.Errorf("%q is missing", part)
		}
	}
	if strings.Contains(string(svg), ">rare") || strings.Count(string(svg), "http") != 1 {
		t.Error("what has no width is drawn, or there is more than the name of SVG's own namespace")
	}
	if err := run([]string{"-o", picture, os.DevNull}, nil); !errors.Is(err, errNoSamples) {
		t.Errorf("an empty profile: %v", err)
	}
	if err := run([]string{"-o", picture, "-"}, strings.NewReader("some text\n")); err == nil {
		t.Error("text that is no profile was drawn")
	}
}

// Goal: a real profile of this very process is drawn, with what it did and the label of who did it.
func TestDrawRealProfile(t *testing.T) {
	file, picture := filepath.Join(t.TempDir(), "cpu.pprof"), filepath.Join(t.TempDir(), "cpu.svg")
	var recorded bytes.Buffer
	if err := pprof.StartCPUProfile(&recorded); err != nil {
		t.Skip(err) // go test -cpuprofile records one
	}
	pprof.Do(t.Context(), pprof.Labels("part", "busy"), func(context.Context) {
		for began := time.Now(); time.Since(began) < time.Second; {
			bytes.Count(bytes.Repeat([]byte("x"), 1<<16), []byte("xy"))
		}
	})
	pprof.StopCPUProfile()
	if err := os.WriteFile(file, recorded.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-o", picture, file}, nil); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"<title>part=busy: ", "TestDrawRealProfile.func1: "} {
		if !strings.Contains(string(svg), part) {
			t.Errorf("%q is missing", part)
		}
	}
}
