package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/control"
)

// console runs a command for the operator of g.
func console(g *gateway, args ...string) (code int, stdout, stderr string) {
	return runInput(map[string]string{"IPC_SOCKET_PATH": g.socket}, "", args...)
}

// wantConsole runs a command that must succeed, and checks that its output has all parts.
func wantConsole(t *testing.T, g *gateway, command string, parts ...string) (stdout string) {
	t.Helper()
	code, stdout, stderr := console(g, strings.Fields(command)...)
	if code != 0 {
		t.Errorf("%s: exit code %d: %s", command, code, stderr)
	}
	wantAll(t, stdout, parts...)
	return stdout
}

// Goal: each command shows what there is, as a table and as JSON, of a gateway with a client that has a request in
// flight, an error answered, and settings of all sources.
func TestShow(t *testing.T) {
	c := natsServer(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	respond(t, c, "slow", func(m *nats.Msg) {
		close(arrived)
		<-release
		echo(m)
	})
	config := configFileWith(t, "timeout: 7s\nsubject: slow\nroutes: {query: {subject: own, mode: publish}, publish: {jetstream: ['events.>']}}\npeers: [{uid: 4711, connections: 3, publish: [a.>]}]\n")
	g := serve(t, []string{"IPC_NATS_URL=" + strings.Replace(c.ConnectedUrl(), "//", "//me:sesame@", 1)},
		"--config", config, "--loops", "1")
	g.waitReady(http.StatusOK, "")
	sent := make(chan int, 1)
	go func() {
		code, _, _ := runInput(nil, "", "send", "--socket", g.socket, "x")
		sent <- code
	}()
	<-arrived
	if code, _, _ := console(g, "send", "--type", "request", "--subject", "a..b", "x"); code != exitFailure {
		t.Errorf("exit code %d of a bad request", code)
	}

	wantConsole(t, g, "show status", "ready", "1 of 1 are connected to NATS", stampedVersion)
	wantConsole(t, g, "show clients", "INFLIGHT", filepath.Base(os.Args[0])[:10], fmt.Sprintf("(%d)", os.Getuid()), "open")
	wantConsole(t, g, "show links", "up", strings.TrimPrefix(c.ConnectedUrl(), "nats://"), c.ConnectedServerName())
	wantConsole(t, g, "show routes", "TASK_SUBMIT  slow", "TASK_QUERY   own", "publish", "7s", "events.>", "jetstream")
	shown := wantConsole(t, g, "show config", "flag --loops", "variable IPC_NATS_URL", "me:***@", "key timeout in "+config+":1", "default",
		"peers.uid:4711", "connections: 3, publish: [a.>]", g.socket+".ctl")
	if strings.Contains(shown, "sesame") {
		t.Errorf("a password is shown: %s", shown)
	}
	wantConsole(t, g, "show errors", "INVALID_PAYLOAD  1", "request")

	var clients control.Clients
	if err := json.Unmarshal([]byte(wantConsole(t, g, "show --json --sort inflight clients")), &clients); err != nil ||
		len(clients.Clients) != 1 || clients.Clients[0].Inflight != 1 || clients.Clients[0].PID != int32(os.Getpid()) || clients.Clients[0].Requests != 1 {
		t.Errorf("%+v, %v", clients, err)
	}
	for _, what := range []string{"status", "links", "routes", "breakers", "config", "errors"} {
		if text := wantConsole(t, g, "show --json "+what); !json.Valid([]byte(text)) {
			t.Errorf("%s: not JSON: %s", what, text)
		}
	}
	close(release)
	if code := <-sent; code != 0 {
		t.Errorf("exit code %d of the request in flight", code)
	}
}

// Goal: a subject on which requests fail is shown with its breaker.
func TestShowBreakers(t *testing.T) {
	c := natsServer(t)
	respond(t, c, "silent", func(*nats.Msg) {})
	g := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--loops", "1", "--breaker-threshold", "1", "--breaker-min-timeout", "1ms", "--breaker-open-time", "1h")
	g.waitReady(http.StatusOK, "")
	wantConsole(t, g, "show breakers", "SUBJECT")
	if code, _, errs := runInput(nil, "", "send", "--socket", g.socket, "--type", "request", "--subject", "silent", "--timeout", "20ms", "x"); code != exitFailure {
		t.Errorf("exit code %d of a request that times out: %s", code, errs)
	}
	wantConsole(t, g, "show breakers", "silent   0     open   1 ")
	var list control.Breakers
	if status, err := ask(g.socket+".ctl", http.MethodGet, "/v1/breakers", &list); status != http.StatusOK || len(list.Breakers) != 1 || list.Breakers[0].Until == nil {
		t.Errorf("%d, %+v, %v", status, list, err)
	}
}

// Goal: kill closes the client with the id that show gives, and says so if there is none.
func TestKillCommand(t *testing.T) {
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1")
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, func() error {
		var now control.Clients
		if _, err := ask(g.socket+".ctl", http.MethodGet, "/v1/clients", &now); err != nil || len(now.Clients) != 1 {
			return fmt.Errorf("%+v, %w", now, err)
		}
		return nil
	})
	wantConsole(t, g, "kill 1", "client 1 is closed")
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v; want EOF", n, err)
	}
	if code, _, stderr := console(g, "kill", "1"); code != exitFailure || !strings.Contains(stderr, "client 1 is not connected") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Goal: drain waits for what is in flight, shows how it goes, and returns when the gateway is gone.
func TestDrainCommand(t *testing.T) {
	c := natsServer(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	respond(t, c, "slow", func(m *nats.Msg) {
		close(arrived)
		<-release
		echo(m)
	})
	g := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--subject", "slow")
	g.waitReady(http.StatusOK, "")
	sent, drained := make(chan int, 1), make(chan string, 1)
	go func() {
		code, _, _ := runInput(nil, "", "send", "--socket", g.socket, "x")
		sent <- code
	}()
	<-arrived
	go func() {
		code, stdout, stderr := console(g, "drain")
		drained <- fmt.Sprint(code, stdout, stderr)
	}()
	g.waitReady(http.StatusServiceUnavailable, "draining")
	wantConsole(t, g, "show status", "draining") // it answers meanwhile
	wantConsole(t, g, "drain --no-wait", "1 requests in flight")
	if code, _, stderr := console(g, "reload"); code != exitFailure || !strings.Contains(stderr, "the gateway is stopping") {
		t.Errorf("reload during a drain: exit code %d: %s", code, stderr)
	}
	close(release)
	if code := <-sent; code != 0 {
		t.Errorf("exit code %d of the request in flight", code)
	}
	wantAll(t, <-drained, "0gateway", "1 requests in flight", "has ended")
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	checkNoSocket(t, g.socket+".ctl")
}

// Goal: a drain that has to give up requests says so.
func TestDrainCommandGivesUp(t *testing.T) {
	g, requested := stuckGateway(t, "--drain-timeout", "50ms")
	code, stdout, stderr := console(g, "drain")
	if code != exitFailure || !strings.Contains(stderr, "1 requests were not answered") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	requested()
}

// Goal: the commands say what to do when there is no gateway, no client id, or nothing of that name to be shown.
func TestConsoleUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"show clients --socket /nowhere/gw.sock", exitFailure, "no gateway answers at /nowhere/gw.sock.ctl"},
		{"drain --control-socket /nowhere/ctl", exitFailure, "no gateway answers at /nowhere/ctl"},
		{"show nothing", exitUsage, "must be one of"},
		{"show clients --sort size", exitUsage, "must be one of"},
		{"kill me", exitUsage, "me"},
		{"kill", exitUsage, "<client>\"; see ipc-gateway kill --help"},
		{"audit nothing", exitUsage, "see ipc-gateway audit --help"},
		{"nothing", exitUsage, "see ipc-gateway --help"},
	} {
		if code, stdout, stderr := run(t, nil, strings.Fields(c.args)...); code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d: %s%s", c.args, code, stdout, stderr)
		}
	}
	if code, _, stderr := run(t, map[string]string{"IPC_CONTROL_SOCKET": "off"}, "reload"); code != exitUsage || !strings.Contains(stderr, "no control socket") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Goal: another user is refused even where the permissions of the socket would let it in.
func TestControlSocketRefusesOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs another user, and so root")
	}
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1")
	for path, mode := range map[string]os.FileMode{
		g.socket + ".ctl": 0o666, filepath.Dir(g.socket): 0o711, filepath.Dir(filepath.Dir(g.socket)): 0o711, filepath.Dir(binary): 0o711,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "show", "status", "--socket", g.socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "only uid 0, which the gateway runs as, and root may use the control socket") {
		t.Errorf("%v: %s", err, output)
	}
}

// Goal: of a gateway that does not answer it is said that it does not, and not that it is somewhere else. Method: a socket that nobody
// accepts on, as that of a process that is stopped.
func TestConsoleOfAGatewayThatIsStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gw.sock.ctl")
	listening(t, path)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f := controlFlags{ControlSocket: path}
	response, err := f.open(short, &app{lookupEnv: lookup(nil)}, http.MethodGet, "/v1/status")
	if err == nil {
		_ = response.Body.Close()
	}
	if want := "the gateway at " + path + " does not answer in time: its process is stopped, or stuck"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	short, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := control.TakeOver(short, path); err == nil || !strings.HasPrefix(err.Error(), "it does not answer in time") {
		t.Errorf("a takeover: %v", err)
	}
}
