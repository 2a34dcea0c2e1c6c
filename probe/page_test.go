package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/internal/program"
)

// Goal: the page loads nothing from anywhere, and its policy allows its own script and style.
func TestPageIsSelfContained(t *testing.T) {
	got := do(t, serve(t, &state{}), http.MethodGet, "/")
	wantHeaders(t, got, "text/html; charset=utf-8", len(page))
	if got.code != http.StatusOK || got.body != page || len(page) > 20<<10 {
		t.Errorf("status %d, %d bytes", got.code, len(got.body))
	}
	for _, outside := range []string{"//cdn", "https://", "src=", "@import", "url(", "innerHTML", "eval("} {
		if strings.Contains(page, outside) {
			t.Errorf("%s is in the page", outside)
		}
	}
	for _, element := range []string{"<style>", "<script>"} {
		if strings.Count(page, element) != 1 {
			t.Errorf("%s is not there once: the policy names one", element)
		}
	}
	if strings.Contains(page, " style=") || strings.Contains(page, " onclick=") {
		t.Error("an attribute that the policy forbids")
	}
	if policy := got.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
}

// Goal: a real browser shows what a gateway under load does, by itself and within seconds.
func TestPageInABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	gateway := gatewayUnderLoad(t)
	h := NewHandler(gateway, WithVersion("v1.2.3")).(*handler)
	h.statuses.ageMax = 0 // the browser's clock runs faster than ours
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)

	own := program.Name(int32(os.Getpid()))
	deadline := time.Now().Add(testTimeout)
	for {
		dom := render(t, browser, web.URL)
		err := shows(dom, `id="state"[^>]*class="good"[^>]*>ready<`, `id="about"[^>]*>v1\.2\.3, up `, `id="rate"[^>]*>[0-9.]+( k)?<`, `id="p50"[^>]*>[0-9.]+ [um]?s<`,
			`id="p99"[^>]*>[0-9.]+ [um]?s<`, `id="connections"[^>]*>1<`, `id="links-up"[^>]*>1 of 1<`, `<td class="good">up<`, `<td class="wide">`+regexp.QuoteMeta(own)+`<`,
			`no subject fails`, `>ok</td><td class="number">[0-9]`, `id="rate-line"[^>]*><path d="M[0-9.]+ 40L`)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v in\n%s", err, dom)
		}
	}
}

// gatewayUnderLoad is a gateway that one client asks all the time, until the end of the test.
func gatewayUnderLoad(t *testing.T) *engine.Gateway {
	t.Helper()
	url := startNATS(t, server.RANDOM_PORT).ClientURL()
	cfg := engine.DefaultConfig()
	cfg.SocketPath, cfg.Loops, cfg.Logger = t.TempDir()+"/gw.sock", 1, slog.New(slog.DiscardHandler)
	cfg.NATS.URLs = []string{url}
	gateway, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Close() })
	responder, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(responder.Close)
	if _, err := responder.Subscribe(engine.DefaultSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, gateway.Ready)
	conn, err := client.Dial(t.Context(), cfg.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := conn.Do(&codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte(`{}`)}); err != nil {
				t.Errorf("the load: %v", err)
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = conn.Close()
	})
	return gateway
}

// render returns what the page is after some seconds of the browser's time.
func render(t *testing.T, browser, url string) string {
	t.Helper()
	// A folder of its own, so that other instances are left alone; no sandbox, so that it works as root.
	cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=4000", "--dump-dom", url)
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", browser, err)
	}
	shown, _, _ := strings.Cut(string(dom), "<script>")
	_, shown, _ = strings.Cut(shown, "<body>")
	return shown
}

// shows returns an error for the first pattern that the page does not have.
func shows(dom string, patterns ...string) error {
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(dom) {
			return fmt.Errorf("no %s", pattern)
		}
	}
	return nil
}
