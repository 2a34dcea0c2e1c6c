package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// programs is the folder with both programs, built once, as "make build" leaves them in bin.
var programs string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ipc-sandbox-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs = dir
	build := exec.Command("go", "build", "-o", dir+"/", "../ipc-gateway", ".")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, output)
		return 1
	}
	return m.Run()
}

// output collects what a running sandbox prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startSandbox starts the real program and returns its socket and what it printed. It is stopped by
// Ctrl-C at the end of the test, and must end well and leave no socket.
func startSandbox(t *testing.T, args ...string) (socket, printed string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "gw.sock")
	var text output
	cmd := exec.Command(filepath.Join(programs, "ipc-sandbox"), append([]string{"--socket", socket}, args...)...)
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("%v: %s", err, text.String())
			}
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("it does not stop: %s", text.String())
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(text.String(), "Ctrl-C ends it") {
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("it ended: %v: %s", err, text.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not ready: %s", text.String())
		}
	}
	return socket, text.String()
}

// shell runs a line as it was copied from the terminal.
func shell(t *testing.T, line string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("sh", "-c", line)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// printedLine returns the first indented line of printed that holds all parts.
func printedLine(t *testing.T, printed string, parts ...string) string {
	t.Helper()
lines:
	for line := range strings.Lines(printed) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue lines
			}
		}
		return strings.TrimSpace(line)
	}
	t.Fatalf("no line with %q in:\n%s", parts, printed)
	return ""
}

// Each line that the sandbox prints does what it says when it is copied into a shell.
func TestPrintedLines(t *testing.T) {
	_, printed := startSandbox(t, "--probe-addr", "127.0.0.1:0")
	for _, c := range []struct {
		line   []string // parts of the line to copy
		needs  string   // program without which it is left out
		stdout string
		stderr string
		code   int
	}{
		{[]string{"ipc-gateway send", `'{"task":"hello"}'`}, "", `"echo":{"task":"hello"}`, "", 0},
		{[]string{"demo.echo"}, "", "hello\n", "< traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 0},
		{[]string{"demo.error"}, "", "", "SERVICE_ERROR (13): the sandbox has no such thing; service code 404", 1},
		{[]string{"demo.slow"}, "", "", "TIMEOUT (5)", 1},
		{[]string{"ipc-gateway ping"}, "", "4 pings answered", "", 0},
		{[]string{"show clients"}, "", "PROGRAM", "", 0},
		{[]string{"python3 -c"}, "python3", `"echo":{"task":"hello"}`, "", 0},
		{[]string{"curl"}, "curl", `ipc_requests_total{type="submit"}`, "", 0},
	} {
		if _, err := exec.LookPath(c.needs); c.needs != "" && err != nil {
			t.Logf("%s is not here: left out", c.needs)
			continue
		}
		line := printedLine(t, printed, c.line...)
		stdout, stderr, code := shell(t, line)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s\nexit code %d, output %q, errors %q", line, code, stdout, stderr)
		}
	}
}

// The operator's commands work on a sandbox too, and those that make no sense there say why.
func TestConsole(t *testing.T) {
	socket, _ := startSandbox(t, "--probe-addr", "127.0.0.1:0")
	gateway := filepath.Join(programs, "ipc-gateway")
	for _, c := range []struct{ args, stdout, stderr string }{
		{"show status", "sandbox", ""}, {"show config", socket, ""}, {"show links", "127.0.0.1:", ""}, {"reload", "", "a sandbox has no file"},
		{"serve --takeover --probe-addr off --nats-url nats://127.0.0.1:1", "", "hands over to no other process"},
		{"drain", "", ""}, // which ends it
	} {
		stdout, stderr, code := shell(t, gateway+" "+c.args+" --socket "+socket)
		if (code == 0) != (c.stderr == "") || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit code %d, output %q, errors %q", c.args, code, stdout, stderr)
		}
	}
}

// The client in the README works as it stands there, but for the socket's path.
func TestReadmeClient(t *testing.T) {
	python := testtool.Find(t, "python3", "python3")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```python\n")
	program, _, found := strings.Cut(rest, "```")
	const path = "/tmp/beamline-gateway.sock"
	if !found || !strings.Contains(program, path) {
		t.Fatalf("README.md has no Python client that connects to %s", path)
	}
	socket, _ := startSandbox(t, "--probe-addr", "127.0.0.1:0")
	answer, err := exec.Command(python, "-c", strings.Replace(program, path, socket, 1)).CombinedOutput()
	if err != nil || !strings.Contains(string(answer), "(True, {'ok': True, 'echo': {'task': 'hello'}") {
		t.Errorf("%v: %s", err, answer)
	}
}

// A probe port that is taken does not keep the sandbox from starting.
func TestProbePortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, printed := startSandbox(t, "--probe-addr", taken.Addr().String())
	if !strings.Contains(printed, "using a free port instead") || strings.Contains(printed, "http://"+taken.Addr().String()+"/") {
		t.Errorf("printed: %s", printed)
	}
}

// The NATS server's port, if one was asked for, is checked before anything else is started.
func TestServerPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := startServer(taken.Addr().String()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want the port's error", err)
	}
}
