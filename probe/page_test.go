package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

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

// Goal: a real browser shows what a gateway under load does, goes on to do so by itself, and draws it; the first sample does not pass what
// was since the start for what is now.
func TestPageInABrowser(t *testing.T) {
	gateway := gatewayUnderLoad(t)
	web := httptest.NewServer(NewHandler(gateway, WithVersion("v1.2.3")))
	t.Cleanup(web.Close)
	tab := openTab(t, web.URL)

	own := program.Name(int32(os.Getpid()))
	eventually(t, func() error {
		return shows(tab.text(t, "document.body.innerHTML"), `id="state"[^>]*class="good"[^>]*>ready<`, `id="about"[^>]*>v1\.2\.3, up `, `id="rate"[^>]*>[0-9.]+( k)?<`,
			`id="p50"[^>]*>[0-9.]+ [um]?s<`, `id="p99"[^>]*>[0-9.]+ [um]?s<`, `id="connections"[^>]*>1<`, `id="links-up"[^>]*>1 of 1<`, `<td class="good">up<`,
			`<td class="wide">`+regexp.QuoteMeta(own)+`<`, `no subject fails`, `>ok</td><td class="number">[0-9]`)
	})
	if first := tab.text(t, "JSON.stringify([series.rate[0], series.p50[0], series.p99[0], series.errors[0]])"); first != "[null,null,null,null]" {
		t.Errorf("before there is anything to compare with it shows %s", first)
	}
	answers, points := tab.number(t, answersShown), tab.number(t, pointsDrawn)
	eventually(t, func() error {
		if a, p := tab.number(t, answersShown), tab.number(t, pointsDrawn); a <= answers || p < points+2 {
			return fmt.Errorf("it shows %v answers and %v points, and has shown %v and %v", a, p, answers, points)
		}
		return nil
	})
	if tab.number(t, "new Set(series.rate.filter(v => v !== null)).size") < 2 {
		t.Error("the rate is always the same")
	}
	// The clock of the gateway's machine is set back by an hour: the page goes on, with rates of the time that has really passed.
	set := tab.text(t, `(() => {
		const points = series.rate.length, s = { ...before, at_ms: before.at_ms - 3600000, uptime_seconds: before.uptime_seconds + 2, requests: before.requests + 84 };
		update(s);
		return JSON.stringify([series.rate.length - points || series.rate.length === pointsMax, series.rate.at(-1)]);
	})()`)
	if !regexp.MustCompile(`^\[(1|true),4[12](\.\d+)?\]$`).MatchString(set) {
		t.Errorf("after the clock was set back it draws %s", set)
	}
	if dir := os.Getenv("PAGE_SCREENSHOTS"); dir != "" {
		tab.screenshot(t, dir+"/light.png")
	}
}

// What the page has to show for a number that grows, and for a line that does.
const (
	answersShown = `Number(document.querySelector("#responses td.number").textContent.replace(/ k$/, "e3").replace(/ M$/, "e6"))`
	pointsDrawn  = `document.querySelectorAll("#rate-line path")[1].getAttribute("d").split(/[ML]/).length - 1`
)

// Goal: on a phone nothing is wider than the screen, however long names and errors are, and in the dark the page is.
func TestPageOnAPhone(t *testing.T) {
	web := httptest.NewServer(NewHandler(gatewayUnderLoad(t), WithVersion("v1.2.3")))
	t.Cleanup(web.Close)
	tab := openTab(t, web.URL)
	eventually(t, func() error { return shows(tab.text(t, "document.body.innerHTML"), `id="state"[^>]*>ready<`) })
	const back = "getComputedStyle(document.body).backgroundColor"
	tab.do(t, "Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": "light"}}}, nil)
	light := tab.text(t, back)
	tab.do(t, "Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": "dark"}}}, nil)
	if dark := tab.text(t, back); light != "rgb(244, 245, 247)" || dark != "rgb(18, 21, 27)" {
		t.Errorf("light it is %s, dark %s", light, dark)
	}
	tab.do(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": true}, nil)
	wide := tab.text(t, `(() => {
		const s = { ...before, at_ms: before.at_ms + 1000, uptime_seconds: before.uptime_seconds + 1, links_up: 0, loops: 2, breakers_open: 1, reason: "no connection to NATS",
			links: [0, 1].map(loop => ({ loop, up: loop > 0, since_ms: 0, server: "nats-1.messaging.internal.example.com:4222", round_trip_seconds: 0.123, inflight: 12345,
				reconnects: 99, last_error: "dial tcp 10.20.30.40:4222: connect: connection refused" })),
			breakers: [{ subject: "orders.of.the.department.with.the.longest.name.lookup", loop: 1, state: "half_open", failures: 1234 }],
			clients: [{ program: "a-program-with-a-long-name-indeed", uid: 4294967294, pid: 1234567, id: 12345678, requests_per_second: 12345.6, inflight: 1234, requests: 1e9,
				paused: ["inflight", "upstream", "audit"] }] };
		update(s);
		return JSON.stringify([document.documentElement, ...document.querySelectorAll("section")].filter(e => e.scrollWidth > e.clientWidth)
			.map(e => e.textContent.slice(0, 20) + ": " + e.scrollWidth + " of " + e.clientWidth));
	})()`)
	if wide != "[]" {
		t.Errorf("wider than the screen: %s", wide)
	}
	if dir := os.Getenv("PAGE_SCREENSHOTS"); dir != "" {
		tab.screenshot(t, dir+"/phone-dark.png")
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

// shows returns an error for the first pattern that the page does not have.
func shows(dom string, patterns ...string) error {
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(dom) {
			return fmt.Errorf("no %s", pattern)
		}
	}
	return nil
}
