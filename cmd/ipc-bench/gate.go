package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/aigroup/ipc-gateway/perf/compare"
)

// gateCommand checks what is exact about the gateway's speed.
type gateCommand struct {
	Base  string `placeholder:"COMMIT" help:"Also compare with the gateway of this commit, for information."`
	Tests bool   `default:"true" negatable:"" help:"Run the tests that count allocations, as go test does with all others."`
}

// Help is what "gate --help" says before the flags.
func (c *gateCommand) Help() string {
	return `Runs inside the source tree, and needs Go and a C compiler; system calls are counted where strace is installed. Exit code 1: a bound was exceeded.`
}

// errGate says that a check has failed, after the report has said which.
var errGate = errors.New("the gateway does more than it did: see FAILED")

// Run checks and reports.
func (c *gateCommand) Run(a *app) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	result, err := compare.Gate(ctx, compare.GateSettings{Base: c.Base, Tests: c.Tests}, a.progress)
	if err != nil {
		return err
	}
	result.Write(a.stdout)
	if !result.Passed() {
		return errGate
	}
	return nil
}
