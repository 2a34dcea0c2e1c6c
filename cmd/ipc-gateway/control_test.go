package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// ask sends a request to the control socket at path and decodes the answer into v.
func ask(path, method, target string, v any) (status int, err error) {
	caller := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequest(method, "http://gateway"+target, nil)
	if err != nil {
		return 0, err
	}
	response, err := caller.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, json.Unmarshal(body, v)
}

// failure is an answer that is an error.
type failure struct{ Error string }

// Goal: the control socket is there with mode 0600 and gone at the end, with and without NATS; what it does not know it
// says in JSON.
func TestControlSocket(t *testing.T) {
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1")
	path := g.socket + ".ctl"
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("%v, %v; want a socket with mode 0600", info, err)
	}
	var now control.Status
	if status, err := ask(path, http.MethodGet, "/v1/status", &now); status != http.StatusOK || err != nil ||
		now.Version != stampedVersion || now.PID != g.cmd.Process.Pid || now.Ready || !strings.Contains(now.Reason, "NATS is not connected") {
		t.Errorf("status: %d, %+v, %v", status, now, err)
	}
	for _, c := range []struct {
		method, target string
		status         int
		want           string
	}{
		{http.MethodGet, "/v2/anything", http.StatusNotFound, "/v1/status"},
		{http.MethodPost, "/v1/status", http.StatusMethodNotAllowed, "GET"},
		{http.MethodGet, "/v1/reload", http.StatusMethodNotAllowed, "POST"},
	} {
		var answer failure
		if status, err := ask(path, c.method, c.target, &answer); status != c.status || err != nil || !strings.Contains(answer.Error, c.want) {
			t.Errorf("%s %s: %d, %+v, %v", c.method, c.target, status, answer, err)
		}
	}
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	checkNoSocket(t, path)
}

// Goal: a dead control socket is replaced, a live one ends the start before anything is opened, and off is off.
func TestControlSocketPath(t *testing.T) {
	first := serve(t, nil)
	path := first.socket + ".ctl"
	p := start(t, nil, "serve", "--socket", first.socket+"2", "--control-socket", path, "--probe-addr", "off")
	if code := p.wait(); code != exitFailure || !strings.Contains(p.stderr.String(), path+": another gateway serves this path") {
		t.Errorf("exit code %d: %s", code, p.stderr.String())
	}
	checkNoSocket(t, first.socket+"2")
	first.signal(syscall.SIGKILL)
	first.wait()

	second := serve(t, nil, "--control-socket", path)
	if status, err := ask(path, http.MethodGet, "/v1/status", &control.Status{}); status != http.StatusOK {
		t.Errorf("the dead socket was not replaced: %d, %v", status, err)
	}
	checkNoSocket(t, second.socket+".ctl")
	third := serve(t, nil, "--control-socket", "off")
	checkNoSocket(t, third.socket+".ctl")
}

// configWith writes text to the configuration file at path as an operator does: whole.
func configWith(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// submit sends one TASK_SUBMIT and returns the answer.
func submit(g *gateway) string {
	_, answer, errs := runInput(nil, "", "send", "--socket", g.socket, "x")
	return answer + errs
}

// Goal: by SIGHUP and by the control socket a changed route and a changed log level take effect, what needs a restart is
// named, and a file with an error in it changes nothing and is reported.
func TestReload(t *testing.T) {
	c := natsServer(t)
	for _, subject := range []string{"one", "two", "three"} {
		respond(t, c, subject, func(m *nats.Msg) { _ = m.Respond([]byte(m.Subject)) })
	}
	config := configFileWith(t, "subject: one\n")
	g := serve(t, []string{"IPC_CONFIG=" + config}, "--nats-url", c.ConnectedUrl())
	g.waitReady(http.StatusOK, "")
	reload := func(v any) int {
		t.Helper()
		status, err := ask(g.socket+".ctl", http.MethodPost, "/v1/reload", v)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}

	configWith(t, config, "subject: two\nlog_level: debug\nloops: 7\nnats_name: other\npeers: [{uid: 4711, connections: 3}]\n")
	var done control.Reloaded
	if status := reload(&done); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	if got, want := fmt.Sprint(done), "{[subject log_level routes.submit.subject routes.query.subject routes.cancel.subject peers] [loops nats_name]}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := submit(g); got != "two\n" {
		t.Errorf("the new route is not used: %s", got)
	}
	g.waitLog("level=DEBUG")

	configWith(t, config, "subject: a..b\nmax_connections: 0\nlopps: 1\n")
	var failed failure
	if status := reload(&failed); status != http.StatusUnprocessableEntity {
		t.Errorf("status %d for a bad file", status)
	}
	wantAll(t, failed.Error, "nothing was changed", config+":1", config+":2", config+":3: there is no such setting")
	g.signal(syscall.SIGHUP)
	g.waitLog("the configuration could not be reloaded")
	if got := submit(g); got != "two\n" {
		t.Errorf("a bad file changed the route: %s", got)
	}

	configWith(t, config, "subject: three\n")
	g.signal(syscall.SIGHUP)
	waitFor(t, func() error {
		if got := submit(g); got != "three\n" {
			return fmt.Errorf("the new route is not used after SIGHUP: %s", got)
		}
		return nil
	})
}

// Goal: many reloads from two files that take turns, while clients send all the time, fail no request, and each is
// answered by one of the two routes.
func TestReloadUnderLoad(t *testing.T) {
	c := natsServer(t)
	for _, subject := range []string{"one", "two"} {
		respond(t, c, subject, func(m *nats.Msg) { _ = m.Respond([]byte(m.Subject)) })
	}
	config := configFileWith(t, "subject: one\n")
	g := serve(t, nil, "--config", config, "--nats-url", c.ConnectedUrl(), "--loops", "2")
	g.waitReady(http.StatusOK, "")
	var clients sync.WaitGroup
	var stop atomic.Bool
	var answered [2]atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				code, answers, errs := runInput(nil, "", "send", "--socket", g.socket, "--count", "200", "x")
				ones, twos := strings.Count(answers, "one\n"), strings.Count(answers, "two\n")
				if code != 0 || ones+twos != 200 {
					t.Errorf("exit code %d, %d and %d answers: %s", code, ones, twos, errs)
					return
				}
				answered[0].Add(int64(ones))
				answered[1].Add(int64(twos))
			}
		})
	}
	both := func() bool { return answered[0].Load() > 1000 && answered[1].Load() > 1000 }
	for i := 0; (i < 40 || !both()) && i < 2000 && !t.Failed(); i++ {
		configWith(t, config, []string{"subject: two\nmax_connections: 100\n", "subject: one\n"}[i%2])
		var done control.Reloaded
		if status, err := ask(g.socket+".ctl", http.MethodPost, "/v1/reload", &done); status != http.StatusOK || err != nil || len(done.Changed) == 0 {
			t.Errorf("reload %d: %d, %+v, %v", i, status, done, err)
		}
	}
	stop.Store(true)
	clients.Wait()
	if !both() {
		t.Errorf("%d and %d answers, want both routes used", answered[0].Load(), answered[1].Load())
	}
}

// Goal: a rule that refuses our own user, read by a reload, closes the client that is connected, and tells it why.
func TestReloadRevokesAPeer(t *testing.T) {
	config := configFileWith(t, "loops: 1\n")
	g := serve(t, nil, "--config", config, "--nats-url", "nats://127.0.0.1:1")
	conn, err := net.Dial("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, func() error {
		var now control.Status
		if _, err := ask(g.socket+".ctl", http.MethodGet, "/v1/status", &now); err != nil || now.Clients != 1 {
			return fmt.Errorf("%d clients, %w", now.Clients, err)
		}
		return nil
	})
	configWith(t, config, fmt.Sprintf("loops: 1\npeers: [{uid: %d, refuse: true}]\n", os.Geteuid()))
	if status, err := ask(g.socket+".ctl", http.MethodPost, "/v1/reload", &control.Reloaded{}); status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if told, err := io.ReadAll(conn); err != nil || !bytes.Contains(told, []byte("UNAUTHORIZED")) {
		t.Errorf("the client was told %q, %v", told, err)
	}
}

// Goal: what a reload leaves to a restart is all that the engine cannot change, so that it never has to say so itself.
func TestSettingsThatNeedARestart(t *testing.T) {
	running := configured(t, nil, nil)
	told := configured(t, map[string]string{
		"socket": "/tmp/other", "socket-mode": "0660", "loops": "1", "cpus": "0", "max-inflight": "7", "nats-url": "nats://other:1", "nats-name": "other",
		"control-socket": "off", "probe-addr": "off", "log-format": "json", "max-connections": "5", "drain-timeout": "1s",
	}, nil)
	next := running.follow(told)
	want := engine.DefaultConfig()
	want.MaxConnections = 5
	if fmt.Sprintf("%+v", next.engine) != fmt.Sprintf("%+v", want) || next.drainTimeout != time.Second || next.probeAddr != running.probeAddr {
		t.Errorf("it goes on with %+v", next)
	}
	if got := fmt.Sprint(differing(running, next)); got != "[max_connections drain_timeout]" {
		t.Errorf("changed: %s", got)
	}
}
