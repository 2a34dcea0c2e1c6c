package load

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// server is a gateway that answers by itself: each frame with what answer appends to dst.
type server struct {
	path   string
	frames atomic.Int64 // that it has read
}

// number is that of the frame on its connection, from 0.
type answerFunc func(dst []byte, f *codec.Frame, number int) []byte

func startServer(t *testing.T, answer answerFunc) *server {
	t.Helper()
	folder, err := os.MkdirTemp("", "load")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{path: filepath.Join(folder, "s")}
	listener, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serve(conn, answer) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
		_ = os.RemoveAll(folder)
	})
	return s
}

// serve ends when the client has gone, or an answer was hangUp.
func (s *server) serve(conn net.Conn, answer answerFunc) {
	defer conn.Close()
	in, have, number := make([]byte, 1<<20), 0, 0
	var out []byte
	var f codec.Frame // not one for each frame: the client's allocations are counted beside it
	for {
		n, err := conn.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		out = out[:0]
		rest := in[:have]
		for {
			f, n, err = codec.Decode(rest)
			if err != nil {
				return
			}
			if n == 0 {
				break
			}
			s.frames.Add(1)
			out = answer(out, &f, number)
			if out == nil {
				return
			}
			number++
			rest = rest[n:]
		}
		have = copy(in, rest)
		if len(out) == 0 {
			continue
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// echo answers as a gateway before an echo does.
func echo(dst []byte, f *codec.Frame, _ int) []byte {
	answer := *f
	answer.Subject = nil
	answer.Type = codec.TypeResponseOK
	if f.Type == codec.TypePing {
		answer.Type = codec.TypePong
	}
	return codec.AppendFrame(dst, &answer)
}

func defaults(path string) Spec {
	return Spec{
		Socket: path, Type: codec.TypeTaskSubmit, Version: codec.Version1, Connections: 1, Window: 1, PayloadBytes: 64, Workers: 1,
		Expect: ExpectEcho, Count: 1000, Timeout: 10 * time.Second,
	}
}

func run(t *testing.T, s Spec) *Result {
	t.Helper()
	l, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.WarmUp(); err != nil {
		t.Fatal(err)
	}
	return l.Run()
}

// Goal: every kind of load gets its answers, exactly as many as asked for, and counts each once.
func TestLoads(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"v1":               func(*Spec) {},
		"v1 window":        func(s *Spec) { s.Window, s.Connections = 16, 3 },
		"v2":               func(s *Spec) { s.Version = codec.Version2 },
		"v2 window":        func(s *Spec) { s.Version, s.Window, s.Connections = codec.Version2, 16, 3 },
		"request":          func(s *Spec) { s.Version, s.Type, s.Subject = codec.Version2, codec.TypeRequest, "a.b" },
		"ping":             func(s *Spec) { s.Type, s.PayloadBytes = codec.TypePing, 0 },
		"ping v2":          func(s *Spec) { s.Type, s.Version = codec.TypePing, codec.Version2 },
		"no payload":       func(s *Spec) { s.PayloadBytes = 0 },
		"7 bytes":          func(s *Spec) { s.PayloadBytes = 7 },
		"1 MiB":            func(s *Spec) { s.PayloadBytes, s.Count, s.Window = 1000<<10, 40, 4 },
		"workers":          func(s *Spec) { s.Connections, s.Workers, s.Window = 5, 3, 2 },
		"more than wanted": func(s *Spec) { s.Count, s.Connections, s.Window = 7, 5, 4 },
		"rate":             func(s *Spec) { s.Rate, s.Connections, s.Workers, s.Window = 20_000, 5, 2, 64 },
		"rate, one slot":   func(s *Spec) { s.Rate, s.Connections = 1e8, 3 },
	} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, echo)
			s := defaults(server.path)
			change(&s)
			s.Warmup = 10
			r := run(t, s)
			if !r.OK() || r.Right != s.Count || r.Latencies.TotalCount() != s.Count || r.FirstError != nil {
				t.Fatalf("%d sent, %d right, %d failed, %d wrong, %v", r.Sent, r.Right, r.Failed, r.Wrong, r.FirstError)
			}
			if got := server.frames.Load(); got != s.Count+s.Warmup {
				t.Errorf("the server got %d frames, want %d", got, s.Count+s.Warmup)
			}
			if r.Active <= 0 || r.Latencies.Min() <= 0 || r.Latencies.Max() > int64(r.Active)*2 || r.CPUShare <= 0 {
				t.Errorf("not believable: %+v", r)
			}
			if s.Rate > 0 && r.Late.TotalCount() != s.Count {
				t.Errorf("%d of %d requests have a place in the schedule", r.Late.TotalCount(), s.Count)
			}
		})
	}
}

// Goal: a duration ends, with all that was sent answered.
func TestDuration(t *testing.T) {
	server := startServer(t, echo)
	for _, rate := range []float64{0, 5000} {
		s := defaults(server.path)
		s.Count, s.Duration, s.Rate = 0, 100*time.Millisecond, rate
		if r := run(t, s); !r.OK() || r.Active < s.Duration || rate > 0 && r.Sent != 500 {
			t.Errorf("rate %v: %d sent, %d right in %v", rate, r.Sent, r.Right, r.Active)
		}
	}
}

// Goal: whatever a server does wrong is seen and told, in the closed and in the open loop. The server is right about the
// first hundred requests.
func TestLies(t *testing.T) {
	const lieAt = 100
	var held []byte // an answer that the server keeps back
	for name, test := range map[string]struct {
		lie           answerFunc // to request lieAt and the one after it
		version       byte
		want          string // in the first error
		wrong, failed int64
	}{
		"payload": {func(dst []byte, f *codec.Frame, number int) []byte {
			dst = echo(dst, f, number)
			dst[len(dst)-5] ^= 1
			return dst
		}, codec.Version1, "has not its payload", 2, 0},
		"swapped": {func(dst []byte, f *codec.Frame, number int) []byte {
			if number == lieAt {
				held = echo(nil, f, number)
				return dst
			}
			return append(echo(dst, f, number), held...)
		}, codec.Version1, "has not its payload", 2, 0},
		"swapped ids": {func(dst []byte, f *codec.Frame, number int) []byte {
			other := *f
			if number == lieAt {
				held = echo(nil, f, number)
				return dst
			}
			first, _, _ := codec.Decode(held)
			other.CorrelationID, first.CorrelationID, first.Type = first.CorrelationID, f.CorrelationID, f.Type
			return echo(echo(dst, &other, number), &first, number)
		}, codec.Version2, "has not its payload", 2, 0},
		"short": {func(dst []byte, f *codec.Frame, number int) []byte {
			f.Payload = f.Payload[:10]
			return echo(dst, f, number)
		}, codec.Version2, "has not its payload", 2, 0},
		"type": {func(dst []byte, f *codec.Frame, number int) []byte {
			return codec.AppendHeaderV1(dst, codec.TypePong, 0)
		}, codec.Version1, "was answered with PONG", 2, 0},
		"refused": {func(dst []byte, f *codec.Frame, number int) []byte {
			answer := codec.Frame{Version: f.Version, CorrelationID: f.CorrelationID, Type: codec.TypeResponseError,
				Payload: codec.AppendError(nil, codec.CodeOverloaded, "too much", false)}
			return codec.AppendFrame(dst, &answer)
		}, codec.Version2, "OVERLOADED: too much", 0, 2},
		"twice": {func(dst []byte, f *codec.Frame, number int) []byte {
			return echo(echo(dst, f, number), f, number)
		}, codec.Version2, "which is not in flight", 2, 0},
		"never asked": {func(dst []byte, f *codec.Frame, number int) []byte {
			dst = echo(dst, f, number)
			f.CorrelationID += 1 << 40
			return echo(dst, f, number)
		}, codec.Version2, "which is not in flight", 2, 0},
	} {
		for loop, rate := range map[string]float64{"closed": 0, "open": 1e6} {
			t.Run(name+" "+loop, func(t *testing.T) {
				server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
					if number == lieAt || number == lieAt+1 {
						return test.lie(dst, f, number)
					}
					return echo(dst, f, number)
				})
				s := defaults(server.path)
				s.Version, s.Window, s.Rate, s.Count = test.version, 4, rate, 300
				r := run(t, s)
				if r.Wrong != test.wrong || r.Failed != test.failed || r.OK() || r.FirstError == nil || !strings.Contains(r.FirstError.Error(), test.want) {
					t.Errorf("%d wrong, %d failed, %v", r.Wrong, r.Failed, r.FirstError)
				}
			})
		}
	}
}

// Goal: a connection that ends, an answer that never comes, and bytes that are no frame are told, and nobody waits for ever.
func TestLosses(t *testing.T) {
	for name, test := range map[string]struct {
		at100 answerFunc
		want  string
	}{
		"dropped": {func(dst []byte, _ *codec.Frame, _ int) []byte { return dst }, "has no answer after"},
		"closed":  {func([]byte, *codec.Frame, int) []byte { return nil }, "closed the connection"},
		"garbage": {func(dst []byte, _ *codec.Frame, _ int) []byte { return append(dst, "HTTP/1.1 400"...) }, "no frame"},
	} {
		for loop, rate := range map[string]float64{"closed": 0, "open": 1e6} {
			t.Run(name+" "+loop, func(t *testing.T) {
				server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
					if number == 100 {
						return test.at100(dst, f, number)
					}
					return echo(dst, f, number)
				})
				s := defaults(server.path)
				s.Version, s.Rate, s.Timeout, s.Connections = codec.Version2, rate, 300*time.Millisecond, 2
				r := run(t, s)
				if r.OK() || r.Failed == 0 || r.FailedBy[reasonLost] != r.Failed || r.Right+r.Failed != s.Count {
					t.Errorf("%d sent, %d right, %d failed %v", r.Sent, r.Right, r.Failed, r.FailedBy)
				}
				if r.FirstError == nil || !strings.Contains(r.FirstError.Error(), test.want) {
					t.Errorf("got %v, want %q", r.FirstError, test.want)
				}
			})
		}
	}
}

// Goal: a server that freezes for 200 ms is seen at p99 by the open loop, which goes on sending. The closed loop waits with
// it, so that one slow request among a thousand is all that it sees.
func TestStall(t *testing.T) {
	const freeze = 200 * time.Millisecond
	p99 := func(rate float64) time.Duration {
		server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
			if number == 300 {
				time.Sleep(freeze)
			}
			return echo(dst, f, number)
		})
		s := defaults(server.path)
		s.Version, s.Rate = codec.Version2, rate
		if rate > 0 {
			s.Window = 512
		}
		r := run(t, s)
		if !r.OK() {
			t.Fatalf("rate %v: %v", rate, r.FirstError)
		}
		return time.Duration(r.Latencies.ValueAtPercentile(99))
	}
	if got := p99(1000); got < freeze/2 {
		t.Errorf("the open loop has a p99 of %v: the freeze is missing", got)
	}
	if got := p99(0); got >= freeze/2 {
		t.Errorf("the closed loop has a p99 of %v", got)
	}
}

// Goal: what an answer shows of its request is learned from the first one, and then asked of all.
func TestLearn(t *testing.T) {
	wrapped := func(dst []byte, f *codec.Frame, number int) []byte {
		f.Payload = slices.Concat([]byte(`{"echo":`), f.Payload, []byte("}"))
		return echo(dst, f, number)
	}
	fixed := func(dst []byte, f *codec.Frame, number int) []byte {
		f.Payload = []byte("thank you")
		return echo(dst, f, number)
	}
	for _, test := range []struct {
		answer answerFunc
		want   Expect
	}{{echo, ExpectEcho}, {wrapped, ExpectPart}, {fixed, ExpectOK}} {
		server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
			if number == 500 {
				return fixed(dst, f, number)
			}
			return test.answer(dst, f, number)
		})
		s := defaults(server.path)
		s.Expect = ExpectLearned
		r := run(t, s)
		if r.Expect != test.want || (r.Wrong == 1) != (test.want != ExpectOK) {
			t.Errorf("learned %v, want %v; %d wrong", r.Expect, test.want, r.Wrong)
		}
	}
}

// Goal: a warm-up that fails ends the run, with its reason.
func TestWarmUpFails(t *testing.T) {
	server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
		f.Payload = nil
		return echo(dst, f, number)
	})
	s := defaults(server.path)
	s.Warmup = 1
	l, err := Open(s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.WarmUp(); err == nil || !strings.Contains(err.Error(), "has not its payload") {
		t.Errorf("got %v", err)
	}
}

// Goal: a request costs the client no allocation.
func TestAllocs(t *testing.T) {
	server := startServer(t, echo)
	mallocs := func(count int64, rate float64) uint64 {
		s := defaults(server.path)
		s.Count, s.Rate, s.Connections, s.Window = count, rate, 4, 4
		l, err := Open(s)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := l.Run()
		runtime.ReadMemStats(&after)
		if !r.OK() {
			t.Fatal(r.FirstError)
		}
		return after.Mallocs - before.Mallocs
	}
	for _, rate := range []float64{0, 1e6} {
		few, many := mallocs(1000, rate), mallocs(21_000, rate)
		if many > few+1000 { // the runtime has some of its own
			t.Errorf("rate %v: %d mallocs for 1000 requests, %d for 21000", rate, few, many)
		}
	}
}

// Goal: payloads have the size asked for, tell requests apart, and are JSON where that fits.
func TestPayload(t *testing.T) {
	for _, size := range []int{0, 1, 7, 16, 30, payloadBytesJSON, 64, 1000} {
		p := newPayload(3, size)
		first := string(p.of(3, 7))
		second := string(p.of(3, 8))
		if len(first) != size || (first == second) != (size == 0) {
			t.Errorf("%d bytes: %q, then %q", size, first, second)
		}
		if size >= payloadBytesJSON && !json.Valid([]byte(first)) {
			t.Errorf("%s is not JSON", first)
		}
		other := newPayload(4, size)
		if got := string(other.of(4, 7)); size >= markBytes && got == first {
			t.Errorf("two connections send %s", got)
		}
	}
}

// Goal: the process behind the socket is known.
func TestServerPID(t *testing.T) {
	l, err := Open(defaults(startServer(t, echo).path))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.ServerPID(); got != os.Getpid() {
		t.Errorf("got %d", got)
	}
}

// Goal: what cannot work is refused before anything is opened, and a socket that is not there is named.
func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"no connection":   func(s *Spec) { s.Connections = 0 },
		"window":          func(s *Spec) { s.Window = WindowMax + 1 },
		"workers":         func(s *Spec) { s.Workers = 2 },
		"ping payload":    func(s *Spec) { s.Type = codec.TypePing },
		"v1 request":      func(s *Spec) { s.Type = codec.TypeRequest },
		"stream":          func(s *Spec) { s.Type = codec.TypeStreamSubscribe },
		"no subject":      func(s *Spec) { s.Type, s.Version = codec.TypePublish, codec.Version2 },
		"v1 subject":      func(s *Spec) { s.Subject = "a" },
		"count, duration": func(s *Spec) { s.Duration = time.Second },
		"nothing":         func(s *Spec) { s.Count = 0 },
		"timeout":         func(s *Spec) { s.Timeout = time.Hour },
		"version":         func(s *Spec) { s.Version = 3 },
	} {
		s := defaults("/nowhere")
		change(&s)
		if _, err := Open(s); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Open(defaults("/nowhere")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("got %v", err)
	}
}
