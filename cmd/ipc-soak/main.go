// Command ipc-soak keeps a running gateway busy for a long time, and then looks whether anything is left: buffers or slots
// that were not given back, memory, descriptors, goroutines. It checks every answer on the way.
//
// It exits with 0 if nothing is left and every answer was right; with 1 if something leaks, an answer was wrong, or there
// is no gateway; with 2 if it was called wrongly.
package main

import (
	"errors"
	"io"
	"os"

	"github.com/aigroup/ipc-gateway/cmd/internal/tool"
)

// cli is the command line: one field for each command.
type cli struct {
	BufferPool bufferPoolCommand `cmd:"" help:"Make the gateway take and give back buffers of all sizes: large and small payloads, torn frames, clients that vanish."`
	NATSPool   natsPoolCommand   `cmd:"" name:"nats-pool" help:"Keep the gateway's NATS connections busy with small requests: all must stay up and be used again and again."`
}

const description = `Soaks a running gateway that nobody else uses, and tells whether anything is left afterwards. Start one first, each in
a terminal of its own:

    ipc-sandbox                          # NATS, a responder and a gateway, to try it out
    ipc-soak buffer-pool -d 300 -t 8     # 5 minutes, 8 connections
    ipc-soak nats-pool -d 300 -t 8 --json

The numbers are the gateway's own, from /metrics at --probe. They are taken at rest: after a warm-up, and after the end.`

var (
	// errUsage marks what is wrong with the command line.
	errUsage = errors.New("see ipc-soak --help")
	// errFindings says that the soak failed, after the report has said why.
	errFindings = errors.New("the soak failed")
)

// app is what the program may touch of the world outside.
type app struct {
	stdout, stderr io.Writer
	environ        func(string) string
}

func main() {
	a := &app{stdout: os.Stdout, stderr: os.Stderr, environ: os.Getenv}
	os.Exit(a.run(os.Args[1:]))
}

// run parses args, runs the command they name and returns the exit code.
func (a *app) run(args []string) int {
	t := tool.Tool{Name: "ipc-soak", Description: description, Stdout: a.stdout, Stderr: a.stderr, Usage: errUsage}
	return t.Run(&cli{}, a, args)
}
