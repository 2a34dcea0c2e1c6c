package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// startNATS starts a server in this process, which answers on perf.echo with what answer makes of a
// request, and returns its URL.
func startNATS(t *testing.T, answer func([]byte) []byte) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
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
	_, err = conn.Subscribe("perf.echo", func(m *nats.Msg) { _ = m.Respond(answer(m.Data)) })
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.AddStream(&nats.StreamConfig{Name: "PERF", Subjects: []string{"perf.js"}, Storage: nats.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	return s.ClientURL()
}

// direct runs the program with args and returns its report and what it ended with.
func direct(t *testing.T, args ...string) (report.Report, error) {
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

// Goal: every mode does its work, all of it right, and says how much and how fast.
func TestModes(t *testing.T) {
	url := startNATS(t, func(b []byte) []byte { return b })
	for name, args := range map[string][]string{
		"request":    {},
		"request x8": {"-window", "8"},
		"20 KiB":     {"-payload", "20000"},
		"publish":    {"-mode", "publish"},
		"connect":    {"-mode", "connect"},
		"jetstream":  {"-mode", "jetstream", "-window", "8", "-subject", "perf.js"},
		"unix":       {"-unix", forward(t, url)},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := direct(t, append(args, "-nats-url", url)...)
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests < 10 || r.Errors != 0 || r.Seconds < 0.05 || r.CPUSeconds <= 0 {
				t.Fatalf("not believable: %+v", r)
			}
			if name != "publish" && (r.Latency(0.5) <= 0 || r.Latency(0.99) < r.Latency(0.5) || r.Latency(1) < r.Latency(0.99)) {
				t.Fatalf("not believable: %+v", r)
			}
		})
	}
}

// forward puts a Unix socket in front of a server, and returns its path.
func forward(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
			go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
		}
	}()
	return path
}

// Goal: each wrong answer ends the run with an error that says what was wrong.
func TestWrongAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(b []byte) []byte
		want  string
	}{
		"payload": {func(b []byte) []byte { b[100] ^= 1; return b }, "is not what was sent"},
		"short":   {func(b []byte) []byte { return b[:200] }, "has 200 bytes, not 256"},
		"other":   {func(b []byte) []byte { b[15]++; return b }, "got the answer to request"},
	} {
		t.Run(name, func(t *testing.T) {
			var answers atomic.Int64
			url := startNATS(t, func(b []byte) []byte {
				if answers.Add(1) > 100 {
					return test.spoil(bytes.Clone(b))
				}
				return b
			})
			r, err := direct(t, "-nats-url", url, "-conns", "1", "-seconds", "5")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			if r.Errors != 1 || r.FirstError != err.Error() || r.Requests != 99 {
				t.Fatalf("the report does not say so: %+v", r)
			}
		})
	}
}

// Goal: controlled from outside, direct starts when it is told to and reports when it may go: whoever measures the
// server can do so without the cost of connects, of closes and of the report.
func TestControlled(t *testing.T) {
	s, err := parse([]string{"-nats-url", startNATS(t, func(b []byte) []byte { return b }), "-seconds", "0.05", "-controlled"})
	if err != nil {
		t.Fatal(err)
	}
	// A pipe stands for the program's stdin, a connection for its stdout.
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
	_ = start.Close()
	var r report.Report
	if err := json.NewDecoder(ours).Decode(&r); err != nil || r.Requests == 0 {
		t.Fatalf("%v in the report %+v", err, r)
	}
	if err := <-outcome; err != nil {
		t.Fatal(err)
	}
}

// Goal: what cannot work is refused before anything is opened.
func TestParseRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"-mode", "soak"}, {"-conns", "0"}, {"-window", "0"}, {"-mode", "publish", "-window", "2"}, {"-mode", "connect", "-window", "2"},
		{"-payload", "15"}, {"-payload", "5000000"}, {"-seconds", "0"},
		{"-programs", "0"}, {"-programs", "3", "-program", "3"}, {"-program", "-2"}, {"ping"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
