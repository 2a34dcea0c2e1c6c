package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// Goal: systemd itself finds the service as locked in as the manual says.
func TestServiceIsHardened(t *testing.T) {
	analyze := testtool.Find(t, "systemd-analyze", "systemd")
	unit, err := filepath.Abs("systemd/ipc-gateway.service")
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", unit).CombinedOutput()
	text := string(output)
	if strings.Contains(text, "unrecognized option") {
		t.Skip("this systemd-analyze cannot look at a file (it is older than 250): not checked")
	}
	score := regexp.MustCompile(`exposure level for ipc-gateway\.service: ([0-9.]+)`).FindStringSubmatch(text)
	if err != nil || score == nil {
		t.Fatalf("%v: want a score of 2.0 at most\n%s", err, text)
	}
	said := regexp.MustCompile(`systemd-analyze security [^` + "`" + `]*` + "`" + `\s+gives\s+it\s+([0-9.]+),`).FindStringSubmatch(readFile(t, "../docs/operations.md"))
	version, err := exec.CommandContext(t.Context(), analyze, "--version").Output()
	switch {
	case err != nil || said == nil:
		t.Errorf("the manual says %q, %v", said, err)
	case said[1] != score[1] && strings.HasPrefix(string(version), "systemd 252 "):
		t.Errorf("the score is %s, the manual says %s", score[1], said[1])
	case said[1] != score[1]:
		t.Logf("the score of this version of systemd is %s; the manual has that of 252", score[1])
	}
}

// Goal: systemd itself understands every line of the units. Method: systemd-analyze verify, which ends well with keys that it does not know, and
// says so; the program is where it is built.
func TestUnitsAreUnderstood(t *testing.T) {
	analyze := testtool.Find(t, "systemd-analyze", "systemd")
	dir, program := t.TempDir(), build(t, "ipc-gateway")
	args := []string{"verify", "--man=no"}
	for _, name := range []string{"ipc-gateway.service", "ipc-gateway.socket"} {
		args = append(args, filepath.Join(dir, name))
		text := strings.ReplaceAll(readFile(t, "systemd/"+name), "/usr/bin/ipc-gateway", program)
		if err := os.WriteFile(args[len(args)-1], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	output, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
	if err != nil || strings.Contains(string(output), "ipc-gateway.") {
		t.Errorf("%v: %s", err, output)
	}
}

// Goal: the unit, the socket, the settings and the package are about the same files, the settings are right, and the service may have as
// many clients as the gateway lets in.
func TestUnitsFitTogether(t *testing.T) {
	service, socket, settings := readFile(t, "systemd/ipc-gateway.service"), readFile(t, "systemd/ipc-gateway.socket"), readFile(t, "systemd/ipc-gateway.yaml")
	for _, c := range []struct{ where, text, want string }{
		{"service", service, "\nExecStart=/usr/bin/ipc-gateway serve --config /etc/ipc-gateway/ipc-gateway.yaml\n"},
		{"service", service, "\nUser=ipc-gateway\n"},
		{"service", service, "\nRuntimeDirectory=ipc-gateway\n"},
		{"service", service, "\nWatchdogSec="},
		{"service", service, "\nExecReload=/usr/bin/ipc-gateway reload --socket /run/ipc-gateway/gateway.sock\n"},
		{"socket", socket, "\nListenStream=/run/ipc-gateway/gateway.sock\n"},
		{"sysusers", readFile(t, "systemd/sysusers.conf"), "\nu ipc-gateway "},
		{"tmpfiles", readFile(t, "systemd/tmpfiles.conf"), "\nd /run/ipc-gateway 0755 ipc-gateway "},
		{"settings", settings, "\nsocket: /run/ipc-gateway/gateway.sock\n"},
		{"settings", settings, "\nallow_gid: ipc-gateway "},
		{"package", readFile(t, "nfpm.yaml"), "dst: /etc/ipc-gateway/ipc-gateway.yaml\n"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%s: no %q", c.where, c.want)
		}
	}
	files := regexp.MustCompile(`(?m)^LimitNOFILE=(\d+)$`).FindStringSubmatch(service)
	if limit, err := strconv.Atoi(files[1]); err != nil || limit < engine.DefaultConfig().MaxConnections+100 {
		t.Errorf("LimitNOFILE=%s, and %d clients are let in", files[1], engine.DefaultConfig().MaxConnections)
	}
	// The group is not there where the tests run.
	checkSettings(t, build(t, "ipc-gateway"), strings.Replace(settings, "allow_gid: ipc-gateway", "allow_gid: 1", 1))
	var nfpm map[string]any
	if err := yaml.Unmarshal([]byte(readFile(t, "nfpm.yaml")), &nfpm); err != nil || nfpm["name"] != "ipc-gateway" {
		t.Errorf("nfpm.yaml: %v, %v", nfpm["name"], err)
	}
}
