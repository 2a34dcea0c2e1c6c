package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/internal/testtool"
)

var live = flag.Bool("deploy.live", false, "ask a real Prometheus every query, while it scrapes a gateway under load")

// liveTimeout bounds every wait. It is never slept through.
const liveTimeout = time.Minute

// mayBeEmpty are queries that return nothing while all is well, and why.
var mayBeEmpty = []struct{ part, reason string }{
	{"go_memlimit_bytes", "without a limit there is no line"},
	{"ALERTS{", "no alert fires"},
	{"changes(process_start_time_seconds", "nothing was restarted"},
}

// Goal: what the dashboard asks, a real Prometheus answers with data of a gateway under load, and it can evaluate every rule.
func TestPrometheusAnswersTheDashboard(t *testing.T) {
	if !*live {
		t.Skip("takes half a minute: make check-deploy runs it")
	}
	binary := testtool.Find(t, "prometheus", "prometheus")
	socket, gateway := startSandbox(t)
	load(t, socket)
	server := startPrometheus(t, binary, gateway)

	d := readDashboard(t)
	// rate needs two scrapes, and with a load the histogram has something in it after them.
	await(t, func() error { return server.hasData(`rate(ipc_responses_total{code="NO_RESPONDERS"}[5s]) > 0`) })
	asked := 0
	for _, q := range d.queries() {
		expr := strings.NewReplacer("$__rate_interval", "5s", "$instance", ".*").Replace(q.expr)
		asked++
		if reason := emptyReason(q.expr); reason != "" {
			if _, err := server.query(expr); err != nil {
				t.Errorf("%s: %v", q.where, err)
			}
			t.Logf("%s may be empty: %s", q.where, reason)
			continue
		}
		await(t, func() error {
			if err := server.hasData(expr); err != nil {
				return fmt.Errorf("%s: %w", q.where, err)
			}
			return nil
		})
	}
	await(t, server.rulesAreWell)
	t.Logf("%d queries answered, %d rules evaluated", asked, len(readRules(t)))
}

func emptyReason(expr string) string {
	for _, e := range mayBeEmpty {
		if strings.Contains(expr, e.part) {
			return e.reason
		}
	}
	return ""
}

// await polls condition until it returns nil.
func await(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(liveTimeout)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts a program, which is ended by SIGTERM at the end of the test, and returns what it prints.
func start(t *testing.T, name string, args ...string) *output {
	t.Helper()
	said := &output{}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(liveTimeout):
			_ = cmd.Process.Kill()
			t.Errorf("%s does not end: %s", name, said)
		}
	})
	return said
}

// build builds a program of ours and returns its path.
func build(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../cmd/"+name)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	return path
}

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "gw.sock")
}

// startSandbox starts a gateway with NATS and a responder, and returns its socket and the probe's address.
func startSandbox(t *testing.T) (socket, address string) {
	t.Helper()
	socket = socketPath(t)
	said := start(t, build(t, "ipc-sandbox"), "--socket", socket, "--probe-addr", "127.0.0.1:0")
	printed := regexp.MustCompile(`http://([^/]+)/metrics`)
	await(t, func() error {
		if m := printed.FindStringSubmatch(said.String()); m != nil {
			address = m[1]
			return nil
		}
		return fmt.Errorf("the sandbox does not start: %s", said)
	})
	return socket, address
}

// load asks for all kinds of things until the end of the test: what is answered, what fails, and what nobody serves.
func load(t *testing.T, socket string) {
	t.Helper()
	conn, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for id := uint64(1); ctx.Err() == nil; id++ {
			for _, f := range []codec.Frame{
				{Version: codec.Version2, Type: codec.TypeTaskSubmit, CorrelationID: id, Payload: []byte(`{"task":"x"}`)},
				{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: id, Subject: []byte("demo.echo"), Payload: []byte("x")},
				{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: id, Subject: []byte("nobody.listens"), Payload: []byte("x")},
				{Version: codec.Version2, Type: codec.TypePing, CorrelationID: id},
			} {
				if _, err := conn.Do(&f); err != nil {
					t.Errorf("the load: %v", err)
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = conn.Close()
	})
}

// prometheus is a server that runs.
type prometheus struct{ url string }

// startPrometheus starts one with our configuration, but for the gateway's address and shorter intervals.
func startPrometheus(t *testing.T, binary, gateway string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	config := readFile(t, "prometheus/prometheus.yml")
	for old, text := range map[string]string{"127.0.0.1:8080": gateway, "scrape_interval: 15s": "scrape_interval: 1s", "evaluation_interval: 15s": "evaluation_interval: 1s"} {
		if !strings.Contains(config, old) {
			t.Fatalf("prometheus.yml has no %s", old)
		}
		config = strings.ReplaceAll(config, old, text)
	}
	for name, text := range map[string]string{"prometheus.yml": config, "alerts.yml": readFile(t, "prometheus/alerts.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	said := start(t, binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	p := &prometheus{"http://" + address}
	await(t, func() error {
		if _, err := p.query("vector(1)"); err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	})
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// get asks the HTTP API and decodes the data of its answer.
func (p *prometheus) get(path string, data any) error {
	response, err := http.Get(p.url + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	if answer.Status != "success" {
		return errors.New(answer.Error)
	}
	return nil
}

// query returns the values of a query at this moment.
func (p *prometheus) query(expr string) (values []float64, err error) {
	var data struct {
		ResultType string
		Result     []struct{ Value [2]any }
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// hasData returns an error unless the query returns a number.
func (p *prometheus) hasData(expr string) error {
	values, err := p.query(expr)
	if err == nil && !slices.ContainsFunc(values, func(v float64) bool { return !math.IsNaN(v) }) {
		err = fmt.Errorf("no data for %s: %v", expr, values)
	}
	return err
}

// rulesAreWell returns an error unless every rule was evaluated without one.
func (p *prometheus) rulesAreWell() error {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	if err := p.get("/api/v1/rules", &data); err != nil {
		return err
	}
	rules := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" {
				return fmt.Errorf("the rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if rules < 10 {
		return fmt.Errorf("only %d rules", rules)
	}
	return nil
}
