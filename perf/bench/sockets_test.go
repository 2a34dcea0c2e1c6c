package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// buildForTest builds one of the programs in C into a folder, which it returns.
func buildForTest(t *testing.T, name string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	err := buildC(t.Context(), "../..", folder, name)
	if errors.Is(err, errNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// serveWith answers every frame on path with what answer makes of it.
func serveWith(t *testing.T, path string, answer func(f codec.Frame, number int) codec.Frame) {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			clients.Go(func() {
				defer conn.Close()
				var in, out []byte
				chunk := make([]byte, 100) // frames come in parts
				for number := 0; ; {
					n, err := conn.Read(chunk)
					if err != nil {
						return
					}
					in = append(in, chunk[:n]...)
					f, n, err := codec.Decode(in)
					if n == 0 || err != nil {
						continue
					}
					reply := answer(f, number)
					number++
					out = codec.AppendFrame(out[:0], &reply)
					in = slices.Delete(in, 0, n)
					if _, err := conn.Write(out); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		clients.Wait()
	})
}

// runSockets runs three programs of perf/sockets for a moment, and returns their report.
func runSockets(t *testing.T, folder, socket string) (report.Report, error) {
	t.Helper()
	p := startTest(t, folder+"/sockets", socket, "3", "300", "0.1")
	if _, err := p.awaitReady(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.awaitDone(); err != nil {
		t.Fatal(err)
	}
	_ = p.stdin.Close()
	line, err := p.line()
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return r, p.finish()
}

func TestSocketsReport(t *testing.T) {
	folder := buildForTest(t, "sockets")
	var mu sync.Mutex
	seen := map[string]bool{}
	serveWith(t, folder+"/s", func(f codec.Frame, _ int) codec.Frame {
		mu.Lock()
		defer mu.Unlock()
		if f.Version != codec.Version1 || f.Type != codec.TypeTaskSubmit || len(f.Payload) != 300 || seen[string(f.Payload)] {
			t.Errorf("got version %d %v with %d bytes, seen before: %v", f.Version, f.Type, len(f.Payload), seen[string(f.Payload)])
		}
		seen[string(f.Payload)] = true
		return codec.Frame{Version: codec.Version1, Type: codec.TypeResponseOK, Payload: f.Payload}
	})
	r, err := runSockets(t, folder, folder+"/s")
	if err != nil {
		t.Fatal(err)
	}
	// The first request of each is not counted.
	if want := int64(len(seen) - 3); r.Requests != want || r.Errors != 0 || r.Programs != 3 {
		t.Errorf("%d requests were answered: %+v", want, r)
	}
	if r.Seconds < 0.1 || r.P50Us <= 0 || r.P50Us > r.P99Us || r.P99Us > r.P999Us || r.CPUSeconds <= 0 ||
		r.P999Us > r.Seconds*1e6 || r.PerSecond < float64(r.Requests)/r.Seconds*0.99 {
		t.Errorf("%+v", r)
	}
}

// One wrong answer among many is found, said and ends with 1.
func TestSocketsCheckTheAnswers(t *testing.T) {
	folder := buildForTest(t, "sockets")
	for name, c := range map[string]struct {
		wrong func(f *codec.Frame)
		want  string
	}{
		"another request's": {func(f *codec.Frame) { f.Payload = slices.Concat(f.Payload[:8], make([]byte, 8), f.Payload[16:]) }, "another request"},
		"short":             {func(f *codec.Frame) { f.Payload = f.Payload[1:] }, "another length"},
		"an error": {func(f *codec.Frame) {
			f.Type, f.Payload = codec.TypeResponseError, codec.AppendError(nil, codec.CodeTimeout, "too late", true)
		}, "too late"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := folder + "/" + name[:2]
			serveWith(t, socket, func(f codec.Frame, number int) codec.Frame {
				answer := codec.Frame{Version: codec.Version1, Type: codec.TypeResponseOK, Payload: f.Payload}
				if number == 20 {
					c.wrong(&answer)
				}
				return answer
			})
			r, err := runSockets(t, folder, socket)
			if err == nil || r.Errors == 0 || !strings.Contains(r.FirstError, c.want) {
				t.Errorf("%v: %+v", err, r)
			}
		})
	}
}
