package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binary is the real program, built once for the tests that run it as a child process.
var binary string

// stampedVersion is what the linker is told when binary is built.
const stampedVersion = "v0.0.0-test"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ipc-gateway-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "ipc-gateway")
	build := exec.Command("go", "build", "-ldflags", "-X main.version="+stampedVersion, "-o", binary, ".")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, output)
		return 1
	}
	// A dependency of gnet starts goroutines when it is loaded, which stay.
	loaded := goleak.IgnoreCurrent()
	code := m.Run()
	if err := goleak.Find(loaded); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// run runs the program in process and returns its exit code and what it wrote.
func run(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return runInput(env, "", args...)
}

// runInput is run with input as the standard input, for goroutines as well.
func runInput(env map[string]string, input string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &app{
		lookupEnv: lookup(env),
		stdin:     strings.NewReader(input),
		stdout:    &out,
		stderr:    &errs,
		signals:   func() <-chan os.Signal { return nil },
		hangups:   func() <-chan os.Signal { return nil },
	}
	code = a.run(args)
	return code, out.String(), errs.String()
}

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		text, ok := env[name]
		return text, ok
	}
}

// process is the real program, running as a child process.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout lockedBuffer
	stderr lockedBuffer
	exited chan struct{} // closed when the process has ended
}

// start starts the real program, without the environment of the tests.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	return startCommand(t, env, exec.Command(binary, args...))
}

func startCommand(t *testing.T, env []string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=/nowhere"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
	})
	return p
}

// wait waits for the end of the process and returns its exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%v still runs; it said: %s", p.cmd.Args, p.stderr.String())
		return -1
	}
}

// waitLog waits until the process has written text to standard error.
func (p *process) waitLog(text string) {
	p.t.Helper()
	waitFor(p.t, func() error {
		if log := p.stderr.String(); !strings.Contains(log, text) {
			return fmt.Errorf("no %q in the log: %s", text, log)
		}
		return nil
	})
}

// signal sends a signal to the process.
func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// insist sends a signal until the process has ended, as somebody does who is impatient.
func (p *process) insist(s os.Signal) {
	p.t.Helper()
	waitFor(p.t, func() error {
		select {
		case <-p.exited:
			return nil
		default:
			p.signal(s)
			return fmt.Errorf("%v does not end it: %s", s, p.stderr.String())
		}
	})
}

// waitFor waits until check returns nil, for at most ten seconds.
func waitFor(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lockedBuffer takes what another goroutine writes while a test reads it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// wantAll fails the test for each part that text does not hold.
func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}
