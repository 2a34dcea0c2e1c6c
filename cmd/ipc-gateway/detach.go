package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// detachedVariable tells a detached process on which descriptor it says that it serves.
const detachedVariable = "IPC_DETACHED_FD"

// detach runs this command again, in a process that goes on when this one has ended, and returns when that serves and, if it takes
// over, is the only one that does. If it ends before, its exit code is ours. Until then signals that are sent to this process are passed on:
// whoever ends the command does not want what it would leave behind.
func (a *app) detach() error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // nothing was written
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{writer} // descriptor 3
	cmd.Env = append(os.Environ(), detachedVariable+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	signals := a.signals()
	err = cmd.Start()
	_ = writer.Close()
	if err != nil {
		return fmt.Errorf("the process to be detached cannot be started: %w", err)
	}
	said := make(chan bool, 1)
	go func() {
		n, _ := reader.Read(make([]byte, 1))
		said <- n == 1
	}()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case serves := <-said:
			if serves {
				return nil
			}
			_ = cmd.Wait()
			return &exitError{code: max(cmd.ProcessState.ExitCode(), exitFailure)} // it has said why
		}
	}
}

// isDetached reports whether this is the process that detach has started.
func (a *app) isDetached() bool {
	_, _, ok := a.env(detachedVariable)
	return ok
}

// tellDetached tells detach, in the process that it has started, that this one serves.
func (a *app) tellDetached() {
	_, text, ok := a.env(detachedVariable)
	if fd, err := strconv.Atoi(text); ok && err == nil {
		waiting := os.NewFile(uintptr(fd), detachedVariable)
		_, _ = waiting.Write([]byte{1})
		_ = waiting.Close()
	}
}
