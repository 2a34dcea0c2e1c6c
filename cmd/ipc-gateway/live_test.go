package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/control"
)

// natsServer starts a real NATS server in process and returns a connection to it.
func natsServer(t *testing.T) *nats.Conn {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	c, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// respond answers the requests on subject, and returns once the server knows.
func respond(t *testing.T, c *nats.Conn, subject string, reply func(*nats.Msg)) {
	t.Helper()
	if _, err := c.Subscribe(subject, reply); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// echo sends payload and headers back.
func echo(m *nats.Msg) { _ = m.RespondMsg(&nats.Msg{Data: m.Data, Header: m.Header}) }

// gateway is the real program, serving as a child process.
type gateway struct {
	*process
	socket string
	probe  string // URL
}

var probeAddress = regexp.MustCompile(`msg=serving .*probe=(\S+)`)

// serve starts a gateway and waits until it has opened its socket and its probe.
func serve(t *testing.T, env []string, args ...string) *gateway {
	t.Helper()
	g := &gateway{socket: filepath.Join(t.TempDir(), "gw.sock")}
	g.process = start(t, env, append([]string{"serve", "--socket", g.socket, "--probe-addr", "127.0.0.1:0"}, args...)...)
	g.waitLog("msg=serving")
	g.probe = "http://" + probeAddress.FindStringSubmatch(g.stderr.String())[1]
	return g
}

// get returns status and body of a path of the probe.
func (g *gateway) get(path string) (int, string, error) {
	// One connection for each: none is left behind when the gateway ends.
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := probe.Get(g.probe + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

func (g *gateway) waitReady(want int, reason string) {
	g.t.Helper()
	waitFor(g.t, func() error {
		status, body, err := g.get("/ready")
		if err == nil && (status != want || !strings.Contains(body, reason)) {
			err = fmt.Errorf("/ready: %d %s, want %d with %q", status, body, want, reason)
		}
		return err
	})
}

func checkNoSocket(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// SIGTERM and SIGINT end the program with 0, the socket is removed, with and without NATS.
func TestServeStopsOnSignal(t *testing.T) {
	url := natsServer(t).ConnectedUrl()
	for _, c := range []struct {
		signal syscall.Signal
		url    string
		ready  int
	}{{syscall.SIGTERM, url, http.StatusOK}, {syscall.SIGINT, "nats://127.0.0.1:1", http.StatusServiceUnavailable}} {
		g := serve(t, nil, "--nats-url", c.url)
		g.waitReady(c.ready, "")
		g.signal(c.signal)
		if code := g.wait(); code != 0 {
			t.Errorf("%v: exit code %d: %s", c.signal, code, g.stderr.String())
		}
		checkNoSocket(t, g.socket)
	}
}

// While a request is in flight the gateway drains: it finishes it, refuses new ones, and says so on
// /ready. That is what the probe is closed last for.
func TestServeDrains(t *testing.T) {
	c := natsServer(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	respond(t, c, "slow", func(m *nats.Msg) {
		close(arrived)
		<-release
		echo(m)
	})
	g := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--subject", "slow")
	g.waitReady(http.StatusOK, "Ready")

	var wait sync.WaitGroup
	var answer string
	var code int
	wait.Go(func() { code, answer, _ = runInput(nil, "", "send", "--socket", g.socket, "last") })
	<-arrived
	g.signal(syscall.SIGTERM)
	g.waitReady(http.StatusServiceUnavailable, "draining")
	close(release)
	wait.Wait()
	if code != 0 || answer != "last\n" {
		t.Errorf("the request in flight: exit code %d, answer %q", code, answer)
	}
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	checkNoSocket(t, g.socket)
}

// Requests that nobody answers hold the gateway up for --drain-timeout only, and that is no failure.
func TestServeDrainTimeout(t *testing.T) {
	g, requested := stuckGateway(t, "--drain-timeout", "50ms")
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	wantAll(t, g.stderr.String(), "not everything could be finished", "1 requests were not answered")
	checkNoSocket(t, g.socket)
	if code := requested(); code != exitFailure {
		t.Errorf("the request in flight: exit code %d", code)
	}
}

// A second signal does not wait for the drain, and leaves no socket behind.
func TestServeSecondSignal(t *testing.T) {
	g, requested := stuckGateway(t, "--drain-timeout", "1h")
	g.signal(syscall.SIGINT)
	g.waitReady(http.StatusServiceUnavailable, "draining")
	g.insist(syscall.SIGTERM)
	if code := g.wait(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	checkNoSocket(t, g.socket)
	checkNoSocket(t, g.socket+control.SocketSuffix)
	if code := requested(); code != exitFailure {
		t.Errorf("the request in flight: exit code %d", code)
	}
}

// Goal: a signal that comes twice, as from timeout(1) and from programs that pass on what their terminal sends as well, is one
// wish: the request in flight is finished.
func TestServeDoubledSignal(t *testing.T) {
	c := natsServer(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	respond(t, c, "slow", func(m *nats.Msg) {
		close(arrived)
		<-release
		echo(m)
	})
	g := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--subject", "slow")
	g.waitReady(http.StatusOK, "Ready")
	var wait sync.WaitGroup
	var answer string
	wait.Go(func() { _, answer, _ = runInput(nil, "", "send", "--socket", g.socket, "last") })
	<-arrived
	g.signal(syscall.SIGTERM)
	g.signal(syscall.SIGINT) // another one, for the kernel may make one of two that are the same
	g.waitLog("changes nothing")
	close(release)
	wait.Wait()
	if code := g.wait(); code != 0 || answer != "last\n" {
		t.Errorf("exit code %d, answer %q: %s", code, answer, g.stderr.String())
	}
}

// Goal: so it is with the real timeout(1), which passes a signal on to its child and then to the group that the child is in.
func TestServeUnderTimeout(t *testing.T) {
	timeout, err := exec.LookPath("timeout")
	if err != nil {
		t.Skip("no timeout(1)")
	}
	for range 4 {
		socket := filepath.Join(t.TempDir(), "gw.sock")
		p := startCommand(t, nil, exec.Command(timeout, "1h", binary, "serve", "--socket", socket, "--probe-addr", "off", "--nats-url", "nats://127.0.0.1:1"))
		p.waitLog("msg=serving")
		p.signal(syscall.SIGTERM)
		if code := p.wait(); code != 0 || strings.Contains(p.stderr.String(), "second signal") {
			t.Errorf("exit code %d: %s", code, p.stderr.String())
		}
	}
}

// stuckGateway starts a gateway with a request in flight that is never answered. requested returns
// the exit code of that request's command once the gateway is gone.
func stuckGateway(t *testing.T, args ...string) (g *gateway, requested func() int) {
	t.Helper()
	c := natsServer(t)
	arrived := make(chan struct{})
	respond(t, c, "stuck", func(*nats.Msg) { close(arrived) })
	g = serve(t, nil, append([]string{"--nats-url", c.ConnectedUrl(), "--subject", "stuck"}, args...)...)
	g.waitReady(http.StatusOK, "Ready")
	code := make(chan int, 1)
	go func() {
		c, _, _ := runInput(nil, "", "send", "--socket", g.socket, "x")
		code <- c
	}()
	<-arrived
	return g, func() int { return <-code }
}

// A path that cannot be used as a socket ends the start with 1, and is left alone.
func TestServeUnusableSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "serve", "--socket", path, "--probe-addr", "off")
	if code := p.wait(); code != exitFailure || !strings.Contains(p.stderr.String(), path) {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "text" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

// Passwords and tokens of NATS URLs are in no line of the log, whatever its level.
func TestServeLogsNoSecrets(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		p := start(t, []string{"IPC_NATS_URL=nats://me:sesame@127.0.0.1:1,nats://sesame@127.0.0.1:1"},
			"serve", "--socket", filepath.Join(t.TempDir(), "gw.sock"), "--probe-addr", "off", "--log-level", "debug", "--log-format", format, "--nats-reconnect-wait", "1ms", "--nats-reconnect-jitter", "0s")
		p.waitLog("nats://me:***@127.0.0.1:1,nats://***@127.0.0.1:1")
		p.waitLog("refused")
		p.signal(syscall.SIGTERM)
		if code := p.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, p.stderr.String())
		}
		if log := p.stderr.String(); strings.Contains(log, "sesame") {
			t.Errorf("a secret in the log: %s", log)
		}
		for line := range strings.Lines(p.stderr.String()) {
			if format == "json" && !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %s", line)
			}
		}
	}
}

// Settings of every source reach the gateway that runs.
func TestServeSettingsAreUsed(t *testing.T) {
	c := natsServer(t)
	for _, subject := range []string{"from.file", "from.env"} {
		respond(t, c, subject, func(m *nats.Msg) { _ = m.Respond([]byte(m.Subject)) })
	}
	config := configFileWith(t, "socket_mode: 0640\nsubject: from.env\nroutes: {query: {subject: from.file}}\n")
	g := serve(t, []string{"IPC_CONFIG=" + config, "CGW_IPC_NATS_URL=" + c.ConnectedUrl()}, "--log-level=info")
	g.waitReady(http.StatusOK, "Ready")
	for kind, want := range map[string]string{"submit": "from.env\n", "query": "from.file\n"} {
		if code, answer, errs := runInput(nil, "", "send", "--socket", g.socket, "--type", kind, "x"); code != 0 || answer != want {
			t.Errorf("%s: exit code %d, answer %q, want %q: %s", kind, code, answer, want, errs)
		}
	}
	if info, err := os.Stat(g.socket); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("socket: %v, %v, want mode 0640", info.Mode(), err)
	}
}

// The client commands against a live gateway: what they print, where, and how they end.
func TestClientCommands(t *testing.T) {
	c := natsServer(t)
	respond(t, c, "beamline.router.v1.decide", echo)
	respond(t, c, "echo", echo)
	respond(t, c, "fails", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"E7"}, "Nats-Service-Error": {"no luck"}}})
	})
	respond(t, c, "silent", func(*nats.Msg) {})
	published := make(chan string, 10)
	respond(t, c, "events", func(m *nats.Msg) { published <- string(m.Data) })
	g := serve(t, nil, "--nats-url", c.ConnectedUrl())
	g.waitReady(http.StatusOK, "Ready")

	env := map[string]string{"IPC_SOCKET_PATH": g.socket}
	for _, test := range []struct {
		args           string
		input          string
		code           int
		stdout, stderr string // the whole of it, and a part of it
	}{
		{args: "send hello", stdout: "hello\n"},
		{args: "send --wire 1 hello", stdout: "hello\n"},
		{args: "send --wire 1 --type query --timeout 5s -", input: "from stdin\n", stdout: "from stdin\n\n"},
		{args: "send -n 3 again", stdout: strings.Repeat("again\n", 3)},
		{args: "send --type cancel --subject echo x", stdout: "x\n"},
		{args: "send --type request --subject echo -H A:1 -H A:two,three -v x", stdout: "x\n", stderr: "< A: 1\n< A: two,three\n"},
		{args: "send --type request --subject fails x", code: 1, stderr: "SERVICE_ERROR (13): no luck; service code E7"},
		{args: "send --type request --subject silent --timeout 30ms x", code: 1, stderr: "TIMEOUT (5)"},
		{args: "send --type request --subject nobody x", code: 1, stderr: "NO_RESPONDERS (9)"},
		{args: "send --type request --subject a..b x", code: 1, stderr: "INVALID_PAYLOAD (4)"},
		{args: "send --type request --subject nobody -n 2 x", code: 1, stderr: "NO_RESPONDERS (9)"},
		{args: "send --type publish --subject events one"},
		{args: "send --type publish --subject events --no-reply -n 2 two"},
	} {
		code, stdout, stderr := runInput(env, test.input, strings.Fields(test.args)...)
		if code != test.code || stdout != test.stdout || !strings.Contains(stderr, test.stderr) || (test.stderr == "") != (stderr == "") {
			t.Errorf("%s: exit code %d, output %q, errors %q", test.args, code, stdout, stderr)
		}
	}
	for _, want := range []string{"one", "two", "two"} {
		select {
		case got := <-published:
			if got != want {
				t.Errorf("published %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not published", want)
		}
	}

	code, stdout, stderr := runInput(env, "", "ping", "-n", "3", "-i", "0s", "-s", "100000")
	if code != 0 || strings.Count(stdout, "payload=100000 time=") != 3 || !strings.Contains(stdout, "3 pings answered, min/avg/max = ") {
		t.Errorf("ping: exit code %d, output %q, errors %q", code, stdout, stderr)
	}
	code, stdout, stderr = runInput(env, "", "capabilities")
	var capabilities struct {
		Versions []int `json:"supported_versions"`
	}
	if err := json.Unmarshal([]byte(stdout), &capabilities); code != 0 || err != nil || len(capabilities.Versions) != 2 || !strings.Contains(stdout, "\n  \"") {
		t.Errorf("capabilities: exit code %d, output %q, errors %q", code, stdout, stderr)
	}
}

// A ping that goes on until interrupted still ends with its summary.
func TestPingInterrupted(t *testing.T) {
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1")
	p := start(t, nil, "ping", "--socket", g.socket, "-n", "0", "-i", "1h")
	waitFor(t, func() error {
		if !strings.Contains(p.stdout.String(), "pong from ") {
			return fmt.Errorf("no pong: %s", p.stderr.String())
		}
		return nil
	})
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != 0 || !strings.Contains(p.stdout.String(), "1 pings answered") {
		t.Errorf("exit code %d: %s", code, p.stdout.String())
	}
}
