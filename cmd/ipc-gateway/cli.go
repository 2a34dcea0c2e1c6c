package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// cli is the command line: one field for each command.
type cli struct {
	Serve        serveCommand        `cmd:"" help:"Run the gateway."`
	Ping         pingCommand         `cmd:"" help:"Measure the round trip to a running gateway."`
	Send         sendCommand         `cmd:"" help:"Send one request to a running gateway and print the answer."`
	Capabilities capabilitiesCommand `cmd:"" help:"Print what a running gateway can do, as JSON."`
	Show         showCommand         `cmd:"" help:"Show clients, links, routes, breakers, settings or errors of a running gateway."`
	Kill         killCommand         `cmd:"" help:"Close a client of a running gateway."`
	Drain        drainCommand        `cmd:"" help:"Shut a running gateway down gracefully."`
	Reload       reloadCommand       `cmd:"" help:"Make a running gateway read its settings again."`
	Health       healthCommand       `cmd:"" help:"Ask the probe whether a gateway is well, by exit code."`
	Audit        auditCommand        `cmd:"" help:"Print, verify or replay an audit log."`
	Version      versionCommand      `cmd:"" help:"Print the version of this program."`
	Man          manCommand          `cmd:"" hidden:"" help:"Print the manual page."`
}

const description = `Carries requests of local programs from a Unix socket to NATS, and the answers back.

Try it, each line in a terminal of its own, with a NATS server on this machine:

    ipc-gateway serve
    ipc-gateway send '{"task":"hello"}'`

// Exit codes. A signal that ends the process at once exits with 128 and its number instead.
const (
	exitFailure = 1 // it was tried and did not work
	exitUsage   = 2 // called or configured wrongly: nothing was opened
)

// exitError is an error that chose the exit code. A nil err exits silently: all is said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf returns an error that exits with exitUsage.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// run parses args, runs the command they name and returns the exit code.
func (a *app) run(args []string) int {
	var commands cli
	helpShown := false
	// Kong ends the process after --help, which a test cannot have.
	parser := a.parser(&commands, func(int) { helpShown = true })
	context, err := a.parse(parser, &commands, args)
	if helpShown {
		return 0
	}
	if err == nil {
		err = context.Run(a)
	}
	return a.report(err)
}

// parser returns what reads the command line into commands, and calls exit after --help.
func (a *app) parser(commands *cli, exit func(int)) *kong.Kong {
	return kong.Must(commands,
		kong.Name("ipc-gateway"),
		kong.Description(description),
		kong.Writers(a.stdout, a.stderr),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, Compact: true, WrapUpperBound: 110, NoAppDescFormat: true}),
		kong.Vars{"clientOrders": strings.Join(slices.Sorted(maps.Keys(clientOrders)), ","), "probeAddr": defaultProbeAddr},
		kong.PostBuild(commands.Serve.addFlags),
	)
}

// parse reads the command line. The command serve names every problem that its start has, so for it
// a misplaced argument is taken out and noted, and the rest is read on.
func (a *app) parse(parser *kong.Kong, commands *cli, args []string) (*kong.Context, error) {
	for {
		context, err := parser.Parse(args)
		if err == nil {
			return context, nil
		}
		var parseError *kong.ParseError
		at := -1
		if errors.As(err, &parseError) && parseError.Context != nil {
			at = misplaced(parseError.Context, args)
		}
		if at < 1 || args[0] != "serve" {
			return nil, usageErrorf("%s; see %s --help", maskSecrets(err.Error()), commandOf(parseError))
		}
		commands.Serve.restart("command line: " + maskSecrets(err.Error()))
		args = slices.Delete(slices.Clone(args), at, at+spanOf(args[at:]))
	}
}

// commandOf names what was called wrongly, as it was called.
func commandOf(err *kong.ParseError) string {
	if err == nil || err.Context == nil || err.Context.Selected() == nil {
		return "ipc-gateway"
	}
	return err.Context.Selected().FullPath()
}

// misplaced returns the index of the argument at which kong gave up, or -1: the one after the
// arguments that the last successful step left behind it.
func misplaced(context *kong.Context, args []string) int {
	rest := context.Path[len(context.Path)-1].Remainder()
	if context.Error == nil || len(rest) == 0 {
		return -1
	}
	return len(args) - len(rest)
}

// spanOf says how many arguments go with the first one: an unknown flag is taken out together with
// what looks like its value.
func spanOf(args []string) int {
	flag := strings.HasPrefix(args[0], "-") && !strings.Contains(args[0], "=")
	if flag && len(args) > 1 && !strings.HasPrefix(args[1], "-") {
		return 2
	}
	return 1
}

// report prints err and returns the exit code that it asks for.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitFailure
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(a.stderr, "ipc-gateway: %v\n", err)
	return code
}
