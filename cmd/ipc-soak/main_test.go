package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/cmd/internal/daemon"
	"github.com/aigroup/ipc-gateway/cmd/internal/tool"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
)

// startGateway starts NATS, an echo, and a gateway with its probe, and returns where they are.
func startGateway(t *testing.T) (socket, probe string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "soak")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not listen")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	for _, subject := range []string{engine.DefaultSubject, "demo.echo"} {
		if _, err := conn.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	listener, err := daemon.ListenProbe("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.SocketPath, cfg.Loops = filepath.Join(folder, "s"), 2
	cfg.NATS.URLs = []string{s.ClientURL()}
	cfg.Logger = slog.New(slog.DiscardHandler)
	d, err := daemon.Start(cfg, listener, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Stop(time.Second) })
	for deadline := time.Now().Add(10 * time.Second); d.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(d.Ready())
		}
	}
	return cfg.SocketPath, d.ProbeAddr()
}

// soak runs the program and returns what it printed and its exit code.
func soak(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, environ: func(string) string { return "" }}
	code = a.run(args)
	return out.String(), errs.String(), code
}

// Goal: a real gateway passes both soaks, with text for people and with JSON whose numbers add up.
func TestSoakOfAGateway(t *testing.T) {
	socket, probe := startGateway(t)
	for _, args := range []string{"buffer-pool", "nats-pool", "buffer-pool -S demo.echo", "nats-pool -S demo.echo"} {
		t.Run(args, func(t *testing.T) {
			all := append(strings.Fields(args), "-s", socket, "--probe", probe, "-t", "4", "--warmup", "0.2")
			stdout, stderr, code := soak(append(slices.Clone(all), "-d", "0.5")...)
			if code != 0 {
				t.Fatalf("exit code %d: %s%s", code, stderr, stdout)
			}
			for _, want := range []string{"Rate:", "acquired =", "2 of 2 connections up, 0 reconnects", "goroutines", "no leak"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
			churns := strings.HasPrefix(args, "buffer-pool")
			var r report
			for _, seconds := range []string{"0.5", "2", "8"} { // a busy machine takes longer to have a client go away
				stdout, stderr, code = soak(append(slices.Clone(all), "-d", seconds, "--json")...)
				r = report{}
				if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 {
					t.Fatalf("exit code %d, %v: %s%s", code, err, stderr, stdout)
				}
				if !churns || r.Abandoned > 0 && r.Torn > 0 {
					break
				}
			}
			if r.Requests == 0 || r.Right+r.Pongs+r.Abandoned != r.Requests || r.Right == 0 || r.Wrong != 0 || r.End.BuffersAcquired != r.End.BuffersReleased ||
				r.End.BuffersAcquired <= r.Start.BuffersAcquired || r.End.SlotsAcquired <= r.Start.SlotsAcquired {
				t.Errorf("these numbers do not add up: %s", stdout)
			}
			if churns != (r.Abandoned > 0) || churns != (r.Torn > 0) || churns != (r.Split > 0) || churns != (r.Connections > 4) {
				t.Errorf("%d connections, %d requests abandoned, %d frames torn, %d in two pieces", r.Connections, r.Abandoned, r.Torn, r.Split)
			}
		})
	}
}

// Goal: what a client leaves behind is the beginning of a frame and not a whole one, of any length, and a frame that is sent in two pieces is
// whole in the end.
func TestTornFrames(t *testing.T) {
	p := &plan{payloadBytesMax: 300, burst: 1, churn: true}
	c := newClient(p, 1, &tally{})
	torn := 0
	for range 200 {
		ours, theirs := net.Pipe()
		c.wire = ours
		c.nextID++
		f := c.frame()
		received := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(theirs)
			received <- all
		}()
		if err := c.sendSplit(&f); err != nil {
			t.Fatal(err)
		}
		if err := c.vanish(); err != nil {
			t.Fatal(err)
		}
		_ = ours.Close()
		got := <-received
		first, n, err := codec.Decode(got)
		if err != nil || n == 0 || first.CorrelationID != f.CorrelationID || !bytes.Equal(first.Payload, f.Payload) {
			t.Fatalf("%q is no whole frame: %v", got, err)
		}
		if len(got) > n {
			torn++
		}
		if rest, n, err := codec.Decode(got[n:]); err != nil || n != 0 {
			t.Fatalf("a frame was left whole: %+v, %v", rest, err)
		}
	}
	if torn == 0 || int64(torn) != c.tally.torn || c.tally.split != 200 {
		t.Errorf("%d torn frames arrived, %+v", torn, c.tally)
	}
}

// lie serves the metrics of a gateway with a metric that has another value once the load has been on: the third look and
// later. The first is to see that nobody uses it, the second one the start, or the third one, after the garbage was collected.
func lie(t *testing.T, probe, metric string, looksBefore int64, change func(float64) float64) (liar string) {
	t.Helper()
	var looks atomic.Int64
	line := regexp.MustCompile(`(?m)^` + metric + ` (\S+)$`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, err := http.Get("http://" + probe + r.URL.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(r.URL.Path, "/debug/") {
			text = nil // as if it collected its garbage
		} else if looks.Add(1) > looksBefore {
			text = line.ReplaceAllFunc(text, func(found []byte) []byte {
				var value float64
				if _, err := fmt.Sscan(string(found[len(metric):]), &value); err != nil {
					t.Error(err)
				}
				return fmt.Appendf(nil, "%s %f", metric, change(value))
			})
		}
		_, _ = w.Write(text)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// Goal: what lives in the heap of a gateway that serves profiles is looked at after its garbage was collected.
func TestHeapIsCollectedFirst(t *testing.T) {
	var collections atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/debug/pprof/heap" && r.URL.Query().Get("gc") == "1" {
			collections.Add(1)
			return
		}
		for name := range (&counts{}).fields() {
			fmt.Fprintf(w, "%s %d\n", name, collections.Load())
		}
	}))
	defer s.Close()
	after, err := collect(s.URL+"/metrics", &counts{})
	if err != nil || !after.Collected || after.HeapBytes != 2 {
		t.Errorf("%+v, %v", after, err)
	}
}

// Goal: each kind of leak ends the soak with exit code 1 and is named. Method: a probe that lies about a gateway that does
// not leak.
func TestLeaksAreFound(t *testing.T) {
	socket, probe := startGateway(t)
	more := func(n float64) func(float64) float64 { return func(v float64) float64 { return v + n } }
	for _, test := range []struct {
		metric string
		change func(float64) float64
		want   string
	}{
		{"ipc_buffer_pool_released_total", more(-1), "buffers acquired"},
		{"ipc_slot_pool_released_total", more(-3), "3 are missing"},
		{"ipc_connections", more(1), "1 connections are open"},
		{"ipc_inflight_requests", more(2), "2 requests are in flight"},
		{"ipc_internal_errors_total", more(1), "1 internal errors"},
		{"ipc_nats_links_up", more(-1), "1 of 2 connections to NATS"},
		{"go_goroutines", more(1000), "goroutines more"},
		{"process_open_fds", more(1000), "descriptors more"},
		{"process_resident_memory_bytes", more(1 << 30), "resident memory more"},
		{"go_memstats_heap_alloc_bytes", more(1 << 30), "MiB of heap more"},
		{"process_start_time_seconds", more(60), "restarted"},
	} {
		t.Run(test.metric, func(t *testing.T) {
			liar := lie(t, probe, test.metric, 3, test.change)
			stdout, stderr, code := soak("buffer-pool", "-s", socket, "--probe", liar, "-d", "0.1", "-t", "2", "--warmup", "0", "--settle", "300ms")
			if code != tool.ExitFailure || !strings.Contains(stdout, "FAILED: ") || !strings.Contains(stdout, test.want) {
				t.Errorf("exit code %d, want %d and %q: %s%s", code, tool.ExitFailure, test.want, stderr, stdout)
			}
		})
	}
}

func TestWhatCannotBeSoaked(t *testing.T) {
	socket, probe := startGateway(t)
	nobody := "127.0.0.1:1"
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"buffer-pool -d 0", tool.ExitUsage, "-d 0"},
		{"nats-pool -t 0", tool.ExitUsage, "-t 0"},
		{"nats-pool --warmup -1", tool.ExitUsage, "--warmup"},
		{"nats-pool --max-growth -1", tool.ExitUsage, "--max-growth"},
		{"nats-pool --max-heap-growth -1", tool.ExitUsage, "--max-heap-growth"},
		{"", tool.ExitUsage, "buffer-pool"},
		{"buffer-pool --probe " + nobody, tool.ExitFailure, "--probe-addr"},
		{"buffer-pool --probe " + probe + " -s /nowhere/s", tool.ExitFailure, "/nowhere/s"},
		{"nats-pool -d 0.1 --warmup 0 -S nobody.there -s " + socket + " --probe " + probe, tool.ExitFailure, "is there a responder?"},
	} {
		stdout, stderr, code := soak(strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("%q: exit code %d, want %d and %q: %s%s", test.args, code, test.code, test.want, stderr, stdout)
		}
	}
	other, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := scrape("http://" + probe + "/metrics")
		if err != nil || time.Now().After(deadline) {
			t.Fatal(err)
		}
		if c.Connections == 1 {
			break
		}
	}
	if _, stderr, code := soak("nats-pool", "-s", socket, "--probe", probe); code != tool.ExitFailure || !strings.Contains(stderr, "somebody else") {
		t.Errorf("a gateway that is in use: exit code %d, %s", code, stderr)
	}
}

// Goal: the help says what to do, not only which flags there are.
func TestHelp(t *testing.T) {
	stdout, _, code := soak("--help")
	if code != 0 || !strings.Contains(stdout, "ipc-sandbox") || !strings.Contains(stdout, "-d 300 -t 8") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	if stdout, _, _ = soak("buffer-pool", "--help"); !strings.Contains(stdout, "--probe") || !strings.Contains(stdout, "$IPC_SOCKET_PATH") {
		t.Error(stdout)
	}
}
