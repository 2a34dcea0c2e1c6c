package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Goal: the manual page has a section for every command, with each of its arguments and flags, and troff has nothing to say
// against it. Method: kong's model is what the program obeys, so nothing that it has can be missing.
func TestManNamesAll(t *testing.T) {
	code, page, stderr := run(t, nil, "man")
	if code != 0 || !strings.HasPrefix(page, ".TH IPC-GATEWAY 1") {
		t.Fatalf("exit code %d: %s%.200s", code, stderr, page)
	}
	text := strings.ReplaceAll(page, `\-`, "-")
	var commands cli
	program := (&app{}).parser(&commands, nil).Model
	leafs := 0
	for _, command := range commandsBelow(program.Node) {
		name := strings.TrimPrefix(command.FullPath(), "ipc-gateway ")
		_, section, found := strings.Cut(text, "\n.SS "+name)
		if !found {
			t.Errorf("the command %s is missing", name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n.S")
		if len(command.Children) == 0 {
			leafs++
			wantAll(t, text, "\n.B ipc-gateway "+name)
		}
		wantAll(t, section, command.Help)
		for _, argument := range command.Positional {
			wantAll(t, section, "\n.B "+argument.Summary(), argument.Help)
		}
		for _, flag := range command.Flags {
			if !flag.Hidden {
				wantAll(t, section, "--"+flag.Name)
			}
		}
	}
	if leafs < 13 {
		t.Errorf("only %d commands were found", leafs)
	}
	if strings.Contains(text, "$$") {
		t.Error("a dollar is doubled")
	}
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff to check the page with")
	}
	check := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
	check.Stdin = strings.NewReader(page)
	if output, err := check.CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("groff: %v: %s", err, output)
	}
}

// commandsBelow returns the commands below node and theirs, less the hidden ones.
func commandsBelow(node *kong.Node) (all []*kong.Node) {
	for _, command := range node.Children {
		if !command.Hidden {
			all = append(append(all, command), commandsBelow(command)...)
		}
	}
	return all
}
