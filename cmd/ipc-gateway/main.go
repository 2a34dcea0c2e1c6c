// Command ipc-gateway carries requests of local programs from a Unix socket to NATS and back.
//
// "ipc-gateway serve" is the gateway. The other commands are clients of one that runs: ping, send and
// capabilities of its socket, show, kill, drain and reload of its control socket, health of its probe; audit reads the files of an audit log, and version needs nothing. Every command explains itself with --help.
//
// Exit codes: 0 done, 1 failed, 2 called or configured wrongly (nothing was opened), 128 and the
// signal's number when a second signal cut the shutdown short, or the first one a takeover that had not begun.
package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	a := &app{
		lookupEnv: os.LookupEnv,
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		cpus:      usableCPUs(),
		signals: func() <-chan os.Signal {
			// Room for the signal that starts the shutdown and the one that cuts it short.
			c := make(chan os.Signal, 2)
			signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
			return c
		},
		hangups: func() <-chan os.Signal {
			// Room for one: a second one during a reload asks for another reload, a third for the same.
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGHUP)
			return c
		},
	}
	os.Exit(a.run(os.Args[1:]))
}

// app is what a command may touch of the world outside, so that tests can stand in for it.
type app struct {
	lookupEnv      func(name string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer
	// cpus are those that the process might run on when it began, before its loops were pinned; none: it is not known.
	cpus []int
	// signals takes SIGINT and SIGTERM over from their default, which ends the process. Commands
	// that have nothing to finish leave them alone.
	signals func() <-chan os.Signal
	// hangups takes SIGHUP over in the same way.
	hangups func() <-chan os.Signal
}

// env returns the first of the named variables that holds anything. A variable set to the empty
// string counts as not set.
func (a *app) env(names ...string) (name, text string, ok bool) {
	for _, name := range names {
		if text, _ := a.lookupEnv(name); name != "" && text != "" {
			return name, text, true
		}
	}
	return "", "", false
}
