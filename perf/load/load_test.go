package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// serve answers each frame on a Unix socket with what answer makes of it, all the answers to one
// read in one write, and returns the socket's path.
func serve(t *testing.T, answer func(f codec.Frame) codec.Frame) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveConn(conn, answer)
		}
	}()
	return path
}

func serveConn(conn net.Conn, answer func(f codec.Frame) codec.Frame) {
	defer conn.Close()
	in, have := make([]byte, 64<<10), 0
	for {
		n, err := conn.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		var out []byte
		rest := in[:have]
		for {
			f, n, err := codec.Decode(rest)
			if err != nil {
				return
			}
			if n == 0 {
				break
			}
			reply := answer(f)
			out = codec.AppendFrame(out, &reply)
			rest = rest[n:]
		}
		have = copy(in, rest)
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// echo answers as the gateway does before an echo.
func echo(f codec.Frame) codec.Frame {
	if f.Type == codec.TypePing {
		f.Type = codec.TypePong
	} else {
		f.Type = codec.TypeResponseOK
	}
	f.Subject = nil
	return f
}

// startNATS starts a server in this process, with an echo on perf.echo, and returns its URL.
func startNATS(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not listen")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	_, err = conn.Subscribe("perf.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return s.ClientURL()
}

// load runs load with args and returns its report and what it ended with.
func load(t *testing.T, args ...string) (report.Report, error) {
	t.Helper()
	s, err := parse(append([]string{"-seconds", "0.05", "-conns", "3"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	failed := run(s, strings.NewReader(""), &out)
	var r report.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil && failed == nil {
		t.Fatalf("%v in the report %q", err, out.Bytes())
	}
	return r, failed
}

// Every mode gets answers, all of them right, and says how many and how fast.
func TestModes(t *testing.T) {
	socket, url := serve(t, echo), startNATS(t)
	for name, args := range map[string][]string{
		"gateway v1":     {"-mode", "gateway", "-socket", socket},
		"gateway v1 x8":  {"-mode", "gateway", "-socket", socket, "-window", "8"},
		"gateway v2":     {"-mode", "gateway", "-socket", socket, "-version", "2"},
		"gateway v2 x8":  {"-mode", "gateway", "-socket", socket, "-version", "2", "-window", "8"},
		"gateway 20 KiB": {"-mode", "gateway", "-socket", socket, "-payload", "20000"},
		"ping":           {"-mode", "ping", "-socket", socket},
		"ping x8":        {"-mode", "ping", "-socket", socket, "-window", "8"},
		"direct":         {"-mode", "direct", "-nats-url", url},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := load(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests < 10 || r.Errors != 0 || r.Seconds < 0.05 || r.CPUSeconds <= 0 || r.P50Us <= 0 || r.P99Us < r.P50Us || r.P999Us < r.P99Us {
				t.Fatalf("not believable: %+v", r)
			}
			if got := float64(r.Requests) / r.Seconds; got != r.PerSecond {
				t.Fatalf("%v requests a second reported, in fact %v", r.PerSecond, got)
			}
		})
	}
}

// Each wrong answer ends the run with an error that says what was wrong. The faults come after the
// first hundred answers, so that they meet the measured part too.
func TestWrongAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(f, earlier *codec.Frame) // f is the right answer; earlier is the one before
		args  []string
		want  string
	}{
		"payload":         {func(f, _ *codec.Frame) { f.Payload[100] ^= 1 }, nil, "is not what was sent"},
		"short":           {func(f, _ *codec.Frame) { f.Payload = f.Payload[:200] }, nil, "has 200 bytes, not 256"},
		"earlier":         {func(f, earlier *codec.Frame) { *f = *earlier }, nil, "got the answer to request"},
		"error answer":    {refuse, nil, "OVERLOADED: too much"},
		"type":            {func(f, _ *codec.Frame) { f.Type = codec.TypePong }, nil, "was answered with PONG"},
		"too long":        {func(f, _ *codec.Frame) { f.Payload = make([]byte, 50000) }, nil, "an answer of 50006 bytes"},
		"twice":           {func(f, earlier *codec.Frame) { *f = *earlier }, []string{"-version", "2"}, "which is not in flight"},
		"never asked":     {func(f, _ *codec.Frame) { f.CorrelationID += 1000 }, []string{"-version", "2"}, "request 1100 of connection 0 got the answer to request 100"},
		"ping not ponged": {func(f, _ *codec.Frame) { f.Type = codec.TypePing }, []string{"-mode", "ping"}, "was answered with 0000000601f0"},
	} {
		t.Run(name, func(t *testing.T) {
			answers, earlier := 0, codec.Frame{}
			socket := serve(t, func(f codec.Frame) codec.Frame {
				f = echo(f)
				answers++
				right := f
				right.Payload = bytes.Clone(f.Payload)
				if answers > 100 {
					test.spoil(&f, &earlier)
				}
				earlier = right
				return f
			})
			r, err := load(t, append([]string{"-socket", socket, "-conns", "1", "-seconds", "5"}, test.args...)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			if r.Errors != 1 || r.FirstError != err.Error() || r.Requests != 99 {
				t.Fatalf("the report does not say so: %+v", r)
			}
		})
	}
}

func refuse(f, _ *codec.Frame) {
	f.Type = codec.TypeResponseError
	f.Payload = codec.AppendError(nil, codec.CodeOverloaded, "too much", false)
}

// Controlled from outside, load starts when it is told to, and keeps its connections until it may
// go: whoever measures the server can do so without the cost of connects, of closes and of the report.
func TestControlled(t *testing.T) {
	ended := make(chan struct{})
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		defer close(ended)
		if conn, err := listener.Accept(); err == nil {
			serveConn(conn, echo)
		}
	}()
	s, err := parse([]string{"-mode", "ping", "-socket", path, "-seconds", "0.05", "-controlled"})
	if err != nil {
		t.Fatal(err)
	}
	// A pipe stands for load's stdin, a connection for its stdout.
	stdin, start := io.Pipe()
	ours, theirs := net.Pipe()
	if err := ours.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	go func() { outcome <- run(s, stdin, theirs) }()
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(ours, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	expect("ready\n")
	if _, err := start.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	expect("done\n")
	select {
	case <-ended:
		t.Fatal("the connection was closed before load was let go")
	default:
	}
	_ = start.Close()
	var r report.Report
	if err := json.NewDecoder(ours).Decode(&r); err != nil || r.Requests == 0 {
		t.Fatalf("%v in the report %+v", err, r)
	}
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
	<-ended
}

// What cannot work is refused before anything is opened.
func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-mode", "soak"}, {"-conns", "0"}, {"-window", "0"}, {"-mode", "direct", "-window", "2"},
		{"-version", "3"}, {"-payload", "15"}, {"-payload", "5000000"}, {"-seconds", "0"},
		{"-programs", "0"}, {"-programs", "3", "-program", "3"}, {"-program", "-2"}, {"ping"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
