package compare

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// buildForTest builds one of the programs in C into a folder, which it returns.
func buildForTest(t *testing.T, source string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	err := buildC(t.Context(), "../..", folder, source)
	if errors.Is(err, errNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// serveWith answers every frame on path with what answer makes of it, one after the other.
func serveWith(t *testing.T, path string, answer func(f codec.Frame, number int) (reply codec.Frame, wanted bool)) {
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
				chunk := make([]byte, 1000) // frames come in parts
				for number := 0; ; number++ {
					f, n, err := codec.Decode(in)
					for n == 0 && err == nil {
						got, err := conn.Read(chunk)
						if err != nil {
							return
						}
						in = append(in, chunk[:got]...)
						f, n, _ = codec.Decode(in)
					}
					reply, wanted := answer(f, number)
					out = out[:0]
					if wanted {
						out = codec.AppendFrame(out, &reply)
					}
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

// startSockets starts three programs of perf/sockets that are to run for a moment.
func startSockets(t *testing.T, folder, kind, socket string, window int) *process {
	t.Helper()
	payload := "300"
	if kind == KindPing {
		payload = "0"
	}
	return startTest(t, folder+"/sockets", kind, socket, "3", strconv.Itoa(window), payload, "0.1", "a.b")
}

// finishSockets takes them through a run, and returns their report and how they ended.
func finishSockets(t *testing.T, p *process) (report.Report, error) {
	t.Helper()
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

// echoFrame answers as the gateway does before an echo.
func echoFrame(f codec.Frame) codec.Frame {
	answer := codec.Frame{Version: f.Version, CorrelationID: f.CorrelationID, Type: codec.TypeResponseOK, Payload: f.Payload}
	switch f.Type {
	case codec.TypePing:
		answer.Type = codec.TypePong
	case codec.TypePublish:
		answer.Payload = nil
	}
	return answer
}

// Goal: every kind of request, with one and with several in flight, is sent as the protocol has it, each once, and
// every answer counts once.
func TestSocketsReport(t *testing.T) {
	folder := buildForTest(t, "perf/sockets/sockets.c")
	for _, kind := range []string{KindRequest, KindConnect, KindPing, KindPublish, KindPublishAnswered, KindJetStream} {
		for _, window := range []int{1, 16} {
			if kind == KindConnect && window > 1 {
				continue
			}
			t.Run(fmt.Sprint(kind, window), func(t *testing.T) {
				var mu sync.Mutex
				seen, requests := map[string]bool{}, int64(0)
				socket := fmt.Sprintf("%s/%s%d", folder, kind, window)
				serveWith(t, socket, func(f codec.Frame, _ int) (codec.Frame, bool) {
					mu.Lock()
					defer mu.Unlock()
					last := kind == KindPublish && f.Type == codec.TypePing
					if !last {
						requests++
					}
					if kind != KindPing && !last && (len(f.Payload) != 300 || seen[string(f.Payload)]) {
						t.Errorf("got %v with %d bytes, seen before: %v", f.Type, len(f.Payload), seen[string(f.Payload)])
					}
					if f.Type == codec.TypePublish && (string(f.Subject) != "a.b" || f.Flags == codec.FlagNoReply != (kind == KindPublish)) {
						t.Errorf("got %v to %s with flags %x", f.Type, f.Subject, f.Flags)
					}
					seen[string(f.Payload)] = true
					return echoFrame(f), f.Flags != codec.FlagNoReply
				})
				r, err := finishSockets(t, startSockets(t, folder, kind, socket, window))
				if err != nil {
					t.Fatal(err)
				}
				// The first window of each is not counted.
				if want := requests - int64(3*window); r.Requests != want || r.Errors != 0 || r.Programs != 3 || r.Window != window {
					t.Errorf("%d requests were answered: %+v", want, r)
				}
				if r.Seconds < 0.1 || r.CPUSeconds <= 0 || !slices.IsSorted(r.QuantilesUs) || len(r.QuantilesUs) != len(report.Quantiles) ||
					r.Latency(1) > r.Seconds*1e6 || (r.Latency(0.5) > 0) != (kind != KindPublish) || kind != KindPublish && r.Answers() != r.Requests {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// Goal: frames larger than any socket buffer, with more in flight than the kernel holds, do not make the two ends wait for
// each other for ever, though the server reads nothing while it writes.
func TestSocketsLargeFrames(t *testing.T) {
	folder := buildForTest(t, "perf/sockets/sockets.c")
	serveWith(t, folder+"/s", func(f codec.Frame, _ int) (codec.Frame, bool) { return echoFrame(f), true })
	r, err := finishSockets(t, startTest(t, folder+"/sockets", KindRequest, folder+"/s", "2", "16", "1000000", "0.1", ""))
	if err != nil || r.Requests < 32 {
		t.Errorf("%v: %+v", err, r)
	}
}

// Goal: one wrong answer among many is found, said and ends with 1.
func TestSocketsCheckTheAnswers(t *testing.T) {
	folder := buildForTest(t, "perf/sockets/sockets.c")
	for name, c := range map[string]struct {
		kind  string
		wrong func(f *codec.Frame)
		want  string
	}{
		"another request's": {KindRequest, func(f *codec.Frame) { f.Payload = slices.Concat(f.Payload[:8], make([]byte, 8), f.Payload[16:]) }, "another request"},
		"short":             {KindRequest, func(f *codec.Frame) { f.Payload = f.Payload[1:] }, "another length"},
		"an error": {KindRequest, func(f *codec.Frame) {
			f.Type, f.Payload = codec.TypeResponseError, codec.AppendError(nil, codec.CodeTimeout, "too late", true)
		}, "too late"},
		"type":          {KindPing, func(f *codec.Frame) { f.Type = codec.TypeResponseOK }, "another type"},
		"never asked":   {KindPublishAnswered, func(f *codec.Frame) { f.CorrelationID += 100 }, "not in flight"},
		"already known": {KindPublishAnswered, func(f *codec.Frame) { f.CorrelationID-- }, "not in flight"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := folder + "/" + name[:3]
			serveWith(t, socket, func(f codec.Frame, number int) (codec.Frame, bool) {
				answer := echoFrame(f)
				if number == 20 {
					c.wrong(&answer)
				}
				return answer, true
			})
			r, err := finishSockets(t, startSockets(t, folder, c.kind, socket, 1))
			if err == nil || r.Errors == 0 || !strings.Contains(r.FirstError, c.want) {
				t.Errorf("%v: %+v", err, r)
			}
		})
	}
}

// Goal: a server that closes after an answer fails the run and says so: it neither kills the programs, which write to a
// closed socket, nor lets anybody wait for them.
func TestSocketsServerCloses(t *testing.T) {
	folder := buildForTest(t, "perf/sockets/sockets.c")
	for _, kind := range []string{KindRequest, KindPublish} {
		for _, last := range []int{0, 20} {
			t.Run(fmt.Sprint(kind, last), func(t *testing.T) {
				socket := fmt.Sprintf("%s/%s%d", folder, kind, last)
				listener, err := net.Listen("unix", socket)
				if err != nil {
					t.Fatal(err)
				}
				defer listener.Close()
				go func() {
					for {
						conn, err := listener.Accept()
						if err != nil {
							return
						}
						go func() {
							defer conn.Close()
							in := make([]byte, 1000)
							for range last {
								n, err := conn.Read(in)
								if err != nil {
									return
								}
								for rest := in[:n]; len(rest) > 0; {
									f, n, err := codec.Decode(rest)
									if err != nil || n == 0 {
										return
									}
									rest = rest[n:]
									if answer := echoFrame(f); f.Flags != codec.FlagNoReply {
										_, _ = conn.Write(codec.AppendFrame(nil, &answer))
									}
								}
							}
						}()
					}
				}()
				r, err := finishSockets(t, startSockets(t, folder, kind, socket, 1))
				if err == nil || r.Errors != 3 || strings.Contains(r.FirstError, "signal") {
					t.Errorf("%v: %+v", err, r)
				}
			})
		}
	}
}

// Goal: a program that dies is told, and the others and their parent do not wait for it.
func TestSocketsProgramDies(t *testing.T) {
	folder := buildForTest(t, "perf/sockets/sockets.c")
	serveWith(t, folder+"/s", func(f codec.Frame, _ int) (codec.Frame, bool) { return echoFrame(f), true })
	p := startSockets(t, folder, KindRequest, folder+"/s", 1)
	if _, err := p.awaitReady(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid(), p.pid()))
	if err != nil {
		t.Skip(err)
	}
	child, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
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
	if err != nil || !strings.Contains(line, `"errors":1,"first_error":"program 1: Killed"`) {
		t.Errorf("%v: %s", err, line)
	}
	if p.finish() == nil {
		t.Error("it ended well")
	}
}
