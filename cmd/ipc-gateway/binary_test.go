package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestBinaryVersionAndHelp(t *testing.T) {
	p := start(t, nil, "version")
	if code := p.wait(); code != 0 || !strings.HasPrefix(p.stdout.String(), "ipc-gateway "+stampedVersion+" (go") {
		t.Errorf("exit code %d: %s", code, p.stdout.String())
	}
	p = start(t, nil, "--help")
	if code := p.wait(); code != 0 || !strings.Contains(p.stdout.String(), "serve") {
		t.Errorf("exit code %d: %s", code, p.stdout.String())
	}
}

// Wrong settings end the program with exit code 2 before it opens anything.
func TestBinaryWrongSettings(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "gw.sock")
	p := start(t, []string{"IPC_LOOPS=none", "IPC_SOCKET_PATH=" + socket}, "serve", "--bogus", "--max-inflight=0", "--probe-addr", "off")
	if code := p.wait(); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	wantAll(t, p.stderr.String(), "unknown flag --bogus", "variable IPC_LOOPS", "flag --max-inflight")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket was touched: %v", err)
	}
}

// A CPU that is not there is a wrong setting as well, and nothing is opened before it is found.
func TestBinaryWrongCPU(t *testing.T) {
	missing := -1
	for cpu := cpusMax - 1; cpu >= 0 && missing < 0; cpu-- {
		if !slices.Contains(usableCPUs(), cpu) {
			missing = cpu
		}
	}
	if missing < 0 {
		t.Skip("this machine has all CPUs that there can be")
	}
	socket := filepath.Join(t.TempDir(), "gw.sock")
	p := start(t, nil, "serve", "--socket", socket, "--cpus", strconv.Itoa(missing), "--probe-addr", "off")
	if code := p.wait(); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	wantAll(t, p.stderr.String(), "flag --cpus: this process may not use CPU "+strconv.Itoa(missing)+": want some of "+showCPUs(usableCPUs()))
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket was touched: %v", err)
	}
}

func TestBinaryProbePortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	socket := filepath.Join(t.TempDir(), "gw.sock")
	p := start(t, nil, "serve", "--socket", socket, "--probe-addr", taken.Addr().String())
	if code := p.wait(); code != exitFailure {
		t.Errorf("exit code %d, want %d", code, exitFailure)
	}
	wantAll(t, p.stderr.String(), taken.Addr().String(), "address already in use", "--probe-addr")
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket was touched: %v", err)
	}
}

// The NATS server is for tests and the sandbox: the program that goes into production has none of it.
func TestBinaryLinksNoServer(t *testing.T) {
	output, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dependency := range strings.Lines(string(output)) {
		if strings.HasPrefix(dependency, "github.com/nats-io/nats-server") {
			t.Errorf("it links %s", strings.TrimSpace(dependency))
		}
	}
}
