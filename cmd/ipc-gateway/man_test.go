package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Goal: the manual page names every command and every flag of serve, and troff has nothing to say against it.
func TestManNamesAll(t *testing.T) {
	code, page, stderr := run(t, nil, "man")
	if code != 0 || !strings.HasPrefix(page, ".TH IPC-GATEWAY 1") {
		t.Fatalf("exit code %d: %s%.200s", code, stderr, page)
	}
	text := strings.ReplaceAll(page, `\-`, "-")
	for _, command := range []string{"serve", "ping", "send", "show", "kill", "drain", "reload", "health", "version"} {
		if !strings.Contains(text, "\n.SS "+command) {
			t.Errorf("the command %s is missing", command)
		}
	}
	for _, setting := range defaultOptions().settings() {
		if setting.flag != "" && !strings.Contains(text, "--"+setting.flag) {
			t.Errorf("the flag --%s is missing", setting.flag)
		}
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
