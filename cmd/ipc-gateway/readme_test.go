package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Goal: the README's table of packages has every folder of the repository, and none that is not there, and names every command
// of the program.
func TestReadmeNamesEveryPackage(t *testing.T) {
	rows := readmeTable(t, "package")
	for name := range rows {
		if info, err := os.Stat(filepath.Join("../..", name)); err != nil || !info.IsDir() {
			t.Errorf("README.md has %s, which is no folder", name)
		}
	}
	listed, err := exec.Command("git", "ls-files", "../..").Output()
	if err != nil {
		t.Skipf("git does not tell what belongs to the repository: %v", err)
	}
	for file := range strings.Lines(string(listed)) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(file, "../../"), "/")
		switch {
		case !strings.HasPrefix(file, "../"): // beside this file: cmd/ipc-gateway
			folder = "cmd/ipc-gateway"
		case !strings.HasPrefix(file, "../../"): // cmd/ipc-bench and so on
			folder, _, _ = strings.Cut(strings.TrimPrefix(file, "../"), "/")
			folder = "cmd/" + folder
		case strings.HasPrefix(folder, "."), !strings.Contains(strings.TrimPrefix(file, "../../"), "/"):
			continue // for tools, and files at the top
		}
		if _, found := rows[folder]; !found {
			rows[folder] = ""
			t.Errorf("README.md has no row for %s", folder)
		}
	}
	var commands cli
	for _, command := range (&app{}).parser(&commands, nil).Model.Children {
		if !strings.Contains(rows["cmd/ipc-gateway"], "`"+command.Name+"`") {
			t.Errorf("README.md does not name the command %s: %s", command.Name, rows["cmd/ipc-gateway"])
		}
	}
}

// Goal: the README's table of dependencies has every module that a go.mod of the repository requires by itself, and no other.
func TestReadmeNamesEveryDependency(t *testing.T) {
	rows := readmeTable(t, "dependency")
	required := map[string]bool{}
	for _, path := range []string{"../../go.mod", "../../perf/pictures/go.mod"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range requirement.FindAllStringSubmatch(string(text), -1) {
			if line[2] == "" { // not indirect
				required[strings.TrimPrefix(line[1], "github.com/")] = true
			}
		}
	}
	if want, got := slices.Sorted(maps.Keys(required)), slices.Sorted(maps.Keys(rows)); len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("README.md names %q, go.mod %q", got, want)
	}
}

var (
	requirement = regexp.MustCompile(`(?m)^(?:require |\t)(\S+\.\S+/\S+) v\S+( // indirect)?$`)
	quoted      = regexp.MustCompile("`([^`]+)`")
)

// readmeTable returns the second cells of a table in the README by the names in the first ones. The head of its first column
// tells which table.
func readmeTable(t *testing.T, head string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| "+head+" |")
	if !found {
		t.Fatalf("README.md has no table with %q at its head", head)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, name := range quoted.FindAllStringSubmatch(cells[1], -1) {
				rows[name[1]] = cells[2]
			}
		}
	}
	return rows
}
