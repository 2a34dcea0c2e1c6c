package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// manCommand prints the manual page, made of what --help knows, so that the two never differ. The packages install it.
type manCommand struct{}

// Run prints the page.
func (*manCommand) Run(a *app, k *kong.Kong) error {
	return writeMan(a.stdout, k.Model)
}

// writeMan writes a page for man(1) about a program.
func writeMan(w io.Writer, program *kong.Application) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH IPC-GATEWAY 1 \"\" \"ipc-gateway %s\"\n", roff(buildVersion()))
	b.WriteString(".SH NAME\nipc-gateway \\- carries requests of local programs from a Unix socket to NATS\n.SH SYNOPSIS\n")
	commands := leaves(program.Node)
	for _, command := range commands {
		fmt.Fprintf(&b, ".B ipc-gateway %s\n.br\n", roff(command.Summary()))
	}
	b.WriteString(".SH DESCRIPTION\n")
	writeProse(&b, program.Help)
	b.WriteString(".SH COMMANDS\n")
	parent := program.Node
	for _, command := range commands {
		if group := command.Parent; group != parent && group != program.Node {
			fmt.Fprintf(&b, ".SS %s\n", roff(group.Path()))
			writeProse(&b, group.Help)
			writeProse(&b, group.Detail)
		}
		parent = command.Parent
		fmt.Fprintf(&b, ".SS %s\n", roff(command.Summary()))
		writeProse(&b, command.Help)
		writeProse(&b, command.Detail)
		for _, argument := range command.Positional {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(argument.Summary()), roff(argument.Help))
		}
		for _, flag := range command.Flags {
			if flag.Hidden {
				continue
			}
			// Kong takes two dollars for one in what it interpolates, and has done that already elsewhere.
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(flag.String()), roff(strings.ReplaceAll(flag.Help, "$$", "$")))
		}
	}
	b.WriteString(".SH EXIT STATUS\n0 done, 1 tried and failed, 2 called or configured wrongly; 128 and the signal's number for one that ended it at once.\n")
	b.WriteString(".SH SEE ALSO\nhttps://github.com/aigroup/ipc-gateway: the wire protocol, settings, metrics, and how to operate it\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// leaves returns the commands below node that can be run and are not hidden, in their order.
func leaves(node *kong.Node) (commands []*kong.Node) {
	for _, command := range node.Children {
		switch {
		case command.Hidden:
		case len(command.Children) > 0:
			commands = append(commands, leaves(command)...)
		default:
			commands = append(commands, command)
		}
	}
	return commands
}

// writeProse writes paragraphs; lines that begin with four spaces are examples, and stay as they are.
func writeProse(b *strings.Builder, text string) {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if paragraph = strings.Trim(paragraph, "\n"); paragraph == "" {
			continue
		}
		if strings.HasPrefix(paragraph, "    ") {
			fmt.Fprintf(b, ".PP\n.nf\n%s\n.fi\n", roff(paragraph))
			continue
		}
		fmt.Fprintf(b, ".PP\n%s\n", roff(paragraph))
	}
}

// roff escapes text for troff: backslashes, hyphens that are typed, and lines that would be requests.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
