// The programs that it runs would be the same under the race detector.

//go:build !race

package tests

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// commandTimeout bounds a command, with what it builds.
const commandTimeout = 2 * time.Minute

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// setting is what the commands of the documents are run against: a NATS server, services, and a gateway, all real programs.
type setting struct {
	dir  string // the working directory, with bin/
	env  []string
	ours *strings.Replacer // from the names in the documents to those here
}

// start starts a program of the setting, and waits until it has written text.
func (s *setting) start(t *testing.T, until, line string) *output {
	t.Helper()
	out, cmd := s.begin(t, s.dir, line)
	t.Cleanup(func() { interrupt(cmd) })
	waitUntil(t, cmd, out, until, line)
	return out
}

// begin begins a line of the shell, with a process group of its own.
func (s *setting) begin(t *testing.T, dir, line string) (*output, *exec.Cmd) {
	t.Helper()
	out := new(output)
	cmd := exec.CommandContext(context.Background(), "bash", "-c", "set -o pipefail; "+line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, s.env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return out, cmd
}

// interrupt ends the process group of a command.
func interrupt(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	timer := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	_ = cmd.Wait()
}

func waitUntil(t *testing.T, cmd *exec.Cmd, out *output, text, line string) {
	t.Helper()
	for deadline := time.Now().Add(commandTimeout); !strings.Contains(out.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || syscall.Kill(cmd.Process.Pid, 0) != nil {
			t.Fatalf("%s: no %q in what it writes:\n%s", line, text, out.String())
		}
	}
}

// field returns the word behind prefix in what a program wrote.
func field(t *testing.T, text, prefix string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, prefix)
	words := strings.Fields(rest)
	if !found || len(words) == 0 {
		t.Fatalf("no %q in:\n%s", prefix, text)
	}
	return words[0]
}

func newSetting(t *testing.T) *setting {
	dir, err := os.MkdirTemp("", "ipc-commands-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/bin/",
		"./cmd/ipc-gateway", "./cmd/ipc-sandbox", "./cmd/ipc-bench", "./cmd/ipc-soak", "./perf/natsd", "./perf/responder")
	build.Dir = ".."
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	socket := filepath.Join(dir, "gateway.sock")
	s := &setting{dir: dir, env: append(os.Environ(), "W="+dir, "PATH="+dir+"/bin:"+os.Getenv("PATH"), "IPC_SOCKET_PATH="+socket)}
	nats := field(t, s.start(t, "ready", "exec natsd").String(), "ready ")
	for _, subject := range []string{"beamline.router.v1.decide", "orders.lookup"} {
		s.start(t, "ready", "exec responder -nats-url "+nats+" -subject "+subject)
	}
	if err := os.WriteFile(dir+"/gateway.yaml", []byte("timeout: 10s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := s.start(t, "msg=serving", "exec ipc-gateway serve --config gateway.yaml --probe-addr 127.0.0.1:0 --pprof --audit $W/audit --audit-payload 64KiB --nats-url "+nats)
	probe := field(t, log.String(), " probe=")
	s.env = append(s.env, "NATS="+nats, "IPC_PROBE_ADDR="+probe)
	s.start(t, "", "until ipc-gateway health --ready; do sleep 0.05; done; echo ready; sleep 600")
	s.ours = strings.NewReplacer("/tmp/beamline-gateway.sock", socket, "/run/staging/gateway.sock", socket, "/var/log/ipc-gateway/audit", dir+"/audit",
		"127.0.0.1:8080", probe, "localhost:8080", probe)
	return s
}

// Goal: the commands of the documents do what they are there for: they end with exit code 0, or go on until they are interrupted. Method:
// each is run by a shell against a gateway with all that the documents speak of, with its addresses and files; what takes long is
// shortened as the table says.
func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	s := newSetting(t)
	// What some of them look at.
	for _, line := range []string{
		"ipc-gateway send --type request --subject orders.lookup '{\"id\":7}'",
		"curl -sfo cpu.pprof \"http://$IPC_PROBE_ADDR/debug/pprof/profile?seconds=1\"",
	} {
		out, cmd := s.begin(t, s.dir, line)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	done := map[string]bool{}
	for _, path := range documents(t) {
		for _, c := range commandsOf(t, path) {
			if h := commands[c.text]; h.here && !done[c.text] {
				done[c.text] = true
				t.Run(c.where, func(t *testing.T) { s.run(t, c.text, h) })
			}
		}
	}
}

func (s *setting) run(t *testing.T, text string, h how) {
	line := text
	for i := 0; i < len(h.shorter); i += 2 {
		if !strings.Contains(line, h.shorter[i]) {
			t.Fatalf("%s: has no %q", text, h.shorter[i])
		}
		line = strings.Replace(line, h.shorter[i], h.shorter[i+1], 1)
	}
	line = s.ours.Replace(line)
	for _, name := range []string{"curl", "jq"} {
		if strings.HasPrefix(text, name+" ") || strings.Contains(text, "| "+name+" ") {
			testtool.Find(t, name, name)
		}
	}
	if strings.Contains(line, "serve") {
		// Beside the gateway of the setting.
		line = strings.Replace(line, "serve", "serve --probe-addr 127.0.0.1:0 --socket $W/other.sock", 1)
		line = strings.Replace(line, "--audit "+s.dir+"/audit", "--audit $W/audit-other", 1)
	}
	dir := s.dir
	if h.root {
		dir = ".."
		line = strings.Replace(line, "bin/ipc-bench", "$W/bin/ipc-bench", 1)
	}
	began := time.Now()
	out, cmd := s.begin(t, dir, line)
	if h.until != "" {
		defer interrupt(cmd)
		waitUntil(t, cmd, out, h.until, line)
		return
	}
	timer := time.AfterFunc(commandTimeout, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil && (h.verdict == "" || !strings.Contains(out.String(), h.verdict)) {
		t.Errorf("%s: %v after %v:\n%s", line, err, time.Since(began), out)
	}
	t.Logf("%s: %v", line, time.Since(began))
}
