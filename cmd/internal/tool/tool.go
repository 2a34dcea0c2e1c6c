// Package tool runs the command line of a program with commands.
package tool

import (
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	ExitFailure = 1 // it was tried and did not work
	ExitUsage   = 2 // called wrongly: nothing was done
)

// Tool is a program with commands.
type Tool struct {
	Name, Description string
	Stdout, Stderr    io.Writer
	Usage             error // marks what is wrong with the command line; its text says where to look
}

// Run parses args into commands, a pointer to a struct for kong, runs the command that they name with bind as its argument, and
// returns the exit code. An error is printed.
func (t *Tool) Run(commands, bind any, args []string) int {
	helpShown := false
	parser := kong.Must(commands,
		kong.Name(t.Name), kong.Description(t.Description), kong.Writers(t.Stdout, t.Stderr),
		// Kong ends the process after --help, which a test cannot have.
		kong.Exit(func(int) { helpShown = true }),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, Compact: true, WrapUpperBound: 110, NoAppDescFormat: true}),
	)
	context, err := parser.Parse(args)
	if helpShown {
		return 0
	}
	if err != nil {
		err = fmt.Errorf("%w; %w", err, t.Usage)
	} else {
		err = context.Run(bind)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(t.Stderr, "%s: %v\n", t.Name, err)
	if errors.Is(err, t.Usage) {
		return ExitUsage
	}
	return ExitFailure
}
