// Package tests checks what the documents promise of the programs: every command in them is run, here or by .ci/run.
package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are those whose commands are checked.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"README.md", "docs/*.md", "deploy/README.md", "perf/README.md", "pprof/README.md"} {
		found, err := filepath.Glob("../" + pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// command is one as a document has it, without its comment.
type command struct {
	text  string
	where string // file:line
}

// noCommands are the beginnings of indented blocks that show no commands: output, mostly.
var noCommands = []string{
	"N x (10 MiB slots",     // a sum in docs/architecture.md
	"local programs ",       // the picture in docs/architecture.md
	"[Service]",             // a drop-in for systemd
	"level=WARN ",           // a line of the log
	"perf-stat.txt: ",       // what pprof/capture.sh prints
	"flat  flat%",           // likewise
	"11.13%  ipc-gateway  ", // likewise
}

// commandsOf returns the commands in the indented and fenced blocks of a document. In a block with a prompt those with one are commands, and
// the rest is what they print.
func commandsOf(t *testing.T, path string) (list []command) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		if language, fenced := strings.CutPrefix(lines[i], "```"); fenced {
			begin := i + 1
			for i++; i < len(lines) && lines[i] != "```"; i++ {
			}
			if slices.Contains([]string{"", "sh", "bash", "console"}, language) {
				list = append(list, commandsIn(path, begin, lines[begin:i])...)
			}
			continue
		}
		if !strings.HasPrefix(lines[i], "    ") || i > 0 && strings.TrimSpace(lines[i-1]) != "" {
			continue
		}
		begin := i
		for i < len(lines) && (strings.HasPrefix(lines[i], "    ") || lines[i] == "" && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "    ")) {
			i++
		}
		list = append(list, commandsIn(path, begin, lines[begin:i])...)
		i--
	}
	return list
}

func commandsIn(path string, begin int, lines []string) (list []command) {
	first := strings.TrimSpace(lines[0])
	if slices.ContainsFunc(noCommands, func(prefix string) bool { return strings.HasPrefix(first, prefix) }) {
		return nil
	}
	prompted := slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "$ ") })
	for i, line := range lines {
		text, prompt := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if text = withoutComment(text); text != "" && prompt == prompted {
			list = append(list, command{text, fmt.Sprintf("%s:%d", strings.TrimPrefix(path, "../"), begin+i+1)})
		}
	}
	return list
}

// withoutComment cuts the comment off a line of the shell.
func withoutComment(line string) string {
	quote := rune(0)
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '#' && (i == 0 || line[i-1] == ' '):
			return strings.TrimSpace(line[:i])
		}
	}
	return strings.TrimSpace(line)
}

// Goal: every command in the documents is run: here as it stands, or shortened; by another test; or by .ci/run; and where it is not, it is
// said why. Nothing in the table is about a command that no document has any more.
func TestEveryCommandIsRun(t *testing.T) {
	seen := map[string]bool{}
	for _, path := range documents(t) {
		for _, c := range commandsOf(t, path) {
			seen[c.text] = true
			if _, known := commands[c.text]; !known {
				t.Errorf("%s: who runs this? Say it in tests/table_test.go: %s", c.where, c.text)
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d commands were found in the documents", len(seen))
	}
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for text, c := range commands {
		if !seen[text] {
			t.Errorf("no document has this any more: %s", text)
		}
		if c.byCI != "" && !regexp.MustCompile(`(?m)(^|[ "])`+regexp.QuoteMeta(c.byCI)+`($|[ "])`).Match(ci) {
			t.Errorf("%s: .ci/run does not run %s", text, c.byCI)
		}
		if c.byTest != "" && !hasTest(t, c.byTest) {
			t.Errorf("%s: there is no test %s", text, c.byTest)
		}
	}
}

// hasTest reports whether there is a test, named as folder.TestName.
func hasTest(t *testing.T, name string) bool {
	t.Helper()
	folder, function, _ := strings.Cut(name, ".")
	files, err := filepath.Glob("../" + folder + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), "\nfunc "+function+"(")
	})
}
