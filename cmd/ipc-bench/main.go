// Command ipc-bench measures a gateway through its socket: how many requests it carries, and how long they take. It checks
// every answer against its request.
//
// It exits with 0 if every request was answered, and rightly; with 1 if one was not, or there is no gateway; with 2
// if it was called wrongly. Targets that were missed are reported and do not change the exit code.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/aigroup/ipc-gateway/cmd/internal/tool"

	"golang.org/x/sys/unix"
)

// cli is the command line: one field for each command.
type cli struct {
	Throughput throughputCommand `cmd:"" help:"Send requests for some time on several connections and tell how many were answered."`
	Latency    latencyCommand    `cmd:"" help:"Send a number of requests one after another and tell how long each took."`
	Compare    compareCommand    `cmd:"" help:"Measure the gateway beside other ways to NATS, in turns, in one go."`
	Goals      goalsCommand      `cmd:"" help:"Measure the gateway alone for its goals: garbage, memory, idle clients, flat costs, loops."`
	Fairness   fairnessCommand   `cmd:"" help:"Tell what one hostile client does to the others."`
	Hostile    hostileCommand    `cmd:"" hidden:"" help:"Be the hostile client of fairness."`
	Gate       gateCommand       `cmd:"" help:"Check what is exact about the gateway: mallocs, system calls, inlining."`
	Summary    summaryCommand    `cmd:"" help:"Make one document of what perf/run_benchmarks.sh has measured."`
}

const description = `Measures a running gateway, and checks every answer against its request.

    ipc-bench throughput -d 30 -t 8                    # 8 connections, 30 s, TASK_SUBMIT
    ipc-bench throughput -d 10 -t 64 --type ping       # the gateway alone, without NATS
    ipc-bench latency -n 10000 -p 256                  # one connection, one request at a time
    ipc-bench latency -n 10000 -p 256 --rate 2000      # sent by the clock, measured from when it was due
    ipc-bench compare --quick                          # the gateway beside nats.go, HAProxy and other sidecars`

// errUsage marks what is wrong with the command line.
var errUsage = errors.New("see ipc-bench --help")

// errRequests says that requests failed, after the report has said which.
var errRequests = errors.New("not every request was answered rightly")

// app is where the program reads and writes.
type app struct {
	stdout, stderr io.Writer
	environ        func(string) string
	terminal       bool // stderr is one
}

// progress tells a terminal how far it is.
func (a *app) progress(format string, args ...any) {
	if a.terminal {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

func main() {
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	a := &app{stdout: os.Stdout, stderr: os.Stderr, environ: os.Getenv, terminal: err == nil}
	os.Exit(a.run(os.Args[1:]))
}

// run parses args, runs the command they name and returns the exit code.
func (a *app) run(args []string) int {
	t := tool.Tool{Name: "ipc-bench", Description: description, Stdout: a.stdout, Stderr: a.stderr, Usage: errUsage}
	return t.Run(&cli{}, a, args)
}
