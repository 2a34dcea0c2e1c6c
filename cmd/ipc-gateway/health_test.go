package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Goal: the command tells what the probe of a real gateway tells, by exit code and text, and finds it by flag, variable and file.
func TestHealthOfARealGateway(t *testing.T) {
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1")
	address := strings.TrimPrefix(g.probe, "http://")
	file := configFileWith(t, "probe_addr: "+address+"\n")
	broken := configFileWith(t, "probe_addr: "+address+"\nbogus: 1\n")
	for _, c := range []struct {
		name string
		env  []string
		args []string
		code int
		text string
	}{
		{"flag", nil, []string{"--probe-addr", address}, 0, "healthy: Alive"},
		{"variable", []string{"IPC_PROBE_ADDR=" + address}, nil, 0, "healthy: Alive"},
		{"file", nil, []string{"--config", file}, 0, "healthy: Alive"},
		{"file by variable", []string{"IPC_CONFIG=" + file}, nil, 0, "healthy: Alive"},
		{"flag before file", []string{"IPC_CONFIG=" + configFileWith(t, "probe_addr: off\n")}, []string{"--probe-addr", address}, 0, "healthy: Alive"},
		{"a proxy is not asked", []string{"IPC_PROBE_ADDR=" + address, "HTTP_PROXY=http://127.0.0.1:1"}, nil, 0, "healthy: Alive"},
		{"a mistake made later", nil, []string{"--config", broken}, 0, "healthy: Alive"},
		{"any interface", nil, []string{"--probe-addr", "0.0.0.0:" + address[strings.LastIndex(address, ":")+1:]}, 0, "healthy: Alive"},
		{"not ready", nil, []string{"--ready", "--probe-addr", address}, 1, "unhealthy: NATS is not connected"},
		{"not ready by variable", []string{"IPC_HEALTH_READY=true"}, []string{"--probe-addr", address}, 1, "unhealthy: NATS is not connected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, c.env, append([]string{"health"}, c.args...)...)
			if code := p.wait(); code != c.code || !strings.Contains(p.stdout.String()+p.stderr.String(), c.text) {
				t.Errorf("exit code %d, %s%s; want %d, %s", code, p.stdout.String(), p.stderr.String(), c.code, c.text)
			}
		})
	}
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if code, _, stderr := run(t, nil, "health", "--probe-addr", address); code != exitFailure || !strings.Contains(stderr, "connection refused") {
		t.Errorf("after the end: exit code %d, %s", code, stderr)
	}
}

// Goal: whatever else is wrong is exit code 1, which is all that Docker knows, and says what to do.
func TestHealthWithoutAnAnswer(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, text string
		env        map[string]string
		args       []string
	}{
		{"off", "switched off", nil, []string{"--probe-addr", "off"}},
		{"any port", "free port", map[string]string{"IPC_PROBE_ADDR": "127.0.0.1:0"}, nil},
		{"another program", "is not the probe of an ipc-gateway: status 404", nil, []string{"--probe-addr", other.Listener.Addr().String()}},
		{"no answer", "deadline exceeded", nil, []string{"--timeout", "50ms", "--probe-addr", silent.Addr().String()}},
		{"no file", "the settings have problems", map[string]string{"IPC_PROBE_ADDR": "127.0.0.1:1"}, []string{"--config", os.DevNull + "/none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := run(t, c.env, append([]string{"health"}, c.args...)...)
			if code != exitFailure || !strings.Contains(stderr, c.text) {
				t.Errorf("exit code %d, %s; want 1 and %q", code, stderr, c.text)
			}
		})
	}
}
