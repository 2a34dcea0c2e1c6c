package compare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// startTimeout is how long a process may take until it is ready.
const startTimeout = 15 * time.Second

// process is a child that lives as long as the benchmark wants it to, and never longer than the
// benchmark itself: the kernel kills it when the benchmark's main thread ends, however that happens.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	output *os.File // our end of its stdout
	stdout *bufio.Reader
	stderr tail

	ended chan struct{} // closed when it has been waited for
	err   error         // how it ended; read after ended
}

// start starts a program. It is killed when ctx ends.
//
// REQUIRES: on the main thread. The kernel ties the death signal to the thread that starts the child.
func start(ctx context.Context, name, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.CommandContext(ctx, program, args...), ended: make(chan struct{})}
	// In a process group of its own it does not get the terminal's Ctrl-C: ending it is our business.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Env = environment()
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = time.Second
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait would close it under the reader.
	output, childOutput, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout = childOutput
	p.output, p.stdout = output, bufio.NewReader(output)
	err = p.cmd.Start()
	_ = childOutput.Close()
	if err != nil {
		_ = output.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// environment is ours without what would configure a gateway: the benchmark measures what its own
// command line says.
func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "IPC_") && !strings.HasPrefix(variable, "CGW_") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// pid is the process id; it stays ours until stop.
func (p *process) pid() int { return p.cmd.Process.Pid }

// line returns the next line that the process prints.
func (p *process) line() (string, error) {
	text, err := p.stdout.ReadString('\n')
	if err != nil {
		return "", p.failure(err)
	}
	return strings.TrimSuffix(text, "\n"), nil
}

// awaitReady returns what the process prints after it says that it is ready.
func (p *process) awaitReady() (string, error) {
	late := time.AfterFunc(startTimeout, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	text, err := p.line()
	if err != nil {
		return "", err
	}
	rest, ready := strings.CutPrefix(text, report.Ready)
	if !ready {
		return "", fmt.Errorf("%s is not ready, it says %q", p.name, text)
	}
	return strings.TrimSpace(rest), nil
}

// awaitDone returns when load says that it has its last answer.
func (p *process) awaitDone() error {
	text, err := p.line()
	if err == nil && text != report.Done {
		err = fmt.Errorf("%s is not done, it says %q", p.name, text)
	}
	return err
}

// failure explains err with how the process ended, if it did, and what it said last.
func (p *process) failure(err error) error {
	state := "is running"
	select {
	case <-p.ended:
		state = "has ended: " + p.outcome()
	case <-time.After(time.Second):
	}
	return fmt.Errorf("%s %s (%w)%s", p.name, state, err, p.stderr.quoted())
}

func (p *process) outcome() string {
	if p.err != nil {
		return p.err.Error()
	}
	return "exit status 0"
}

// finish closes the process's stdin, if it is still open, which tells load to end, and waits for it.
func (p *process) finish() error {
	_ = p.stdin.Close()
	late := time.AfterFunc(startTimeout, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	<-p.ended
	if p.err != nil {
		return p.failure(p.err)
	}
	return nil
}

// stop kills the process, if it still runs, and waits until it is gone. It may be called again.
func (p *process) stop() {
	// The error would be that it has ended.
	_ = p.cmd.Process.Kill()
	<-p.ended
	_ = p.output.Close()
}

// alive returns an error that says how the process ended, if it did.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return p.failure(errors.New("it should still run"))
	default:
		return nil
	}
}

// tailBytesMax bounds how much of a process's stderr is kept, and shown when it fails.
const tailBytesMax = 4 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	bytes []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, b...)
	if over := len(t.bytes) - tailBytesMax; over > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[over:]...)
	}
	return len(b), nil
}

// quoted is the text, set off from what stands before it, or nothing.
func (t *tail) quoted() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.bytes))
	if text == "" {
		return ""
	}
	return "; its last words:\n    " + strings.ReplaceAll(text, "\n", "\n    ")
}
