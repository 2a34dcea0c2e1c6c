package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// programs are copies of this process, each with connections and a Go runtime of its own. The
// handshake of -controlled holds them together: they start when all are ready, and what they have to
// tell is neither encoded nor read before all are done.
type programs []*program

type program struct {
	number int
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// startPrograms starts the programs of s and waits until they are connected and warmed up. Close them
// on the same goroutine.
func startPrograms(s *settings) (programs, error) {
	// The kernel kills them when the thread that started them ends: it is kept until Close.
	runtime.LockOSThread()
	var all programs
	for number := range s.programs {
		p, err := startProgram(s, number)
		if err != nil {
			all.Close()
			return nil, fmt.Errorf("program %d: %w", number, err)
		}
		all = append(all, p)
	}
	if err := all.await(report.Ready); err != nil {
		all.Close()
		return nil, err
	}
	return all, nil
}

// startProgram starts one. Of a flag that is given twice the last one counts.
func startProgram(s *settings, number int) (*program, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &program{number: number, cmd: exec.Command(self, s.args...)}
	p.cmd.Args = append(p.cmd.Args, "-program", strconv.Itoa(number), "-controlled")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	return p, p.cmd.Start()
}

// await waits until all have printed the line.
func (all programs) await(line string) error {
	for _, p := range all {
		got, err := p.stdout.ReadString('\n')
		if err != nil {
			return fmt.Errorf("program %d is not %s: %w", p.number, line, err)
		}
		if got != line+"\n" {
			return fmt.Errorf("program %d is not %s, it says %q", p.number, line, got)
		}
	}
	return nil
}

func (all programs) measure() error {
	for _, p := range all {
		if _, err := p.stdin.Write([]byte("\n")); err != nil {
			return fmt.Errorf("program %d: %w", p.number, err)
		}
	}
	return all.await(report.Done)
}

func (all programs) shares() ([]*share, error) {
	list := make([]*share, len(all))
	for i, p := range all {
		if err := p.stdin.Close(); err != nil {
			return nil, fmt.Errorf("program %d: %w", p.number, err)
		}
		if err := json.NewDecoder(p.stdout).Decode(&list[i]); err != nil {
			return nil, fmt.Errorf("the report of program %d: %w", p.number, err)
		}
	}
	return list, nil
}

// Close kills those that still run: what they had to tell has been read, or is not wanted.
func (all programs) Close() {
	for _, p := range all {
		// The error would be that it has ended.
		_ = p.cmd.Process.Kill()
	}
	for _, p := range all {
		// A program that has failed has said so in its share, and on stderr.
		_ = p.cmd.Wait()
	}
	runtime.UnlockOSThread()
}
