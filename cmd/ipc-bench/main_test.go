package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/cmd/internal/tool"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/perf/compare"
)

// startGateway starts NATS, an echo on the default subject, and a gateway, and returns its socket.
func startGateway(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "bench")
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
	if _, err := conn.Subscribe(engine.DefaultSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.SocketPath = filepath.Join(folder, "s")
	cfg.NATS.URLs = []string{s.ClientURL()}
	cfg.Logger = slog.New(slog.DiscardHandler)
	gateway, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Close() })
	for deadline := time.Now().Add(10 * time.Second); gateway.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(gateway.Ready())
		}
	}
	return cfg.SocketPath
}

// bench runs the program and returns what it printed and its exit code.
func bench(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, environ: func(string) string { return "" }}
	code = a.run(args)
	return out.String(), errs.String(), code
}

// Goal: each kind of request is measured through a real gateway and NATS, with the flags of the predecessor.
func TestMeasure(t *testing.T) {
	socket := startGateway(t)
	for _, args := range []string{
		"throughput -d 0.2 -t 4 -p 256",
		"throughput -d 0.2 -t 4 -w 16 -v 2 --workers 2",
		"throughput -d 0.2 -t 2 --type ping",
		"throughput -d 0.2 -t 2 --type ping -p 100",
		"throughput -d 200ms -t 2 --type request -S " + engine.DefaultSubject,
		"throughput -d 0.2 -t 2 --type publish -S sink",
		"throughput -d 0.2 -t 4 --rate 2000",
		"latency -n 200 -p 64",
		"latency -n 200 -p 1024 --warmup 10 --rate 1000",
		"latency -n 50 -p 65536",
	} {
		t.Run(args, func(t *testing.T) {
			stdout, stderr, code := bench(append(strings.Fields(args), "-s", socket)...)
			if code != 0 || stderr != "" {
				t.Fatalf("exit code %d, %s", code, stderr)
			}
			for _, want := range []string{"Throughput:", "Success Rate:  100% (0 failed, 0 answered wrongly)", "p99.9", "Client CPU:", "Server: ", "Verdict:"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
		})
	}
}

// Goal: the JSON is one line with every field that scripts may read, as the last line or in a file, and its numbers add up.
func TestJSON(t *testing.T) {
	socket := startGateway(t)
	file := filepath.Join(t.TempDir(), "result.json")
	stdout, stderr, code := bench("latency", "-s", socket, "-n", "300", "--json", "--hdr", file+".hdr")
	if code != 0 {
		t.Fatal(stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	check := func(line []byte, command string) {
		t.Helper()
		var s summary
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if _, err := decoder.Token(); err != io.EOF {
			t.Errorf("more than one value: %v", err)
		}
		l := s.Latency
		if s.Command != command || s.Sent != s.Right || s.Sent == 0 || s.SuccessRate != 1 || s.Expect != "echo" || s.Type != "TASK_SUBMIT" ||
			l.Min <= 0 || l.Min > l.P50 || l.P50 > l.P95 || l.P95 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || s.Verdict.P99 == "" ||
			s.Server == nil || s.Server.PID != os.Getpid() || s.Server.CPUUs <= 0 || s.Server.RSSBytes < 1<<20 {
			t.Errorf("not believable: %+v", s)
		}
		var keys map[string]any
		if err := json.Unmarshal(line, &keys); err != nil {
			t.Fatal(err)
		}
		for field := range reflect.TypeFor[summary]().Fields() {
			name, optional := strings.CutSuffix(field.Tag.Get("json"), ",omitempty")
			if _, there := keys[name]; !there && !optional {
				t.Errorf("no %s in %s", name, line)
			}
		}
	}
	check([]byte(lines[len(lines)-1]), "latency")
	text, err := os.ReadFile(file + ".hdr")
	if err != nil || !bytes.Contains(text, []byte("Total count    =          300")) {
		t.Errorf("the histogram is %v %s", err, text)
	}

	stdout, stderr, code = bench("throughput", "-s", socket, "-d", "0.1", "-t", "2", "--json="+file)
	if code != 0 || strings.Contains(stdout, "{") {
		t.Fatal(stdout, stderr)
	}
	line, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	check(line, "throughput")
}

// Goal: exit 1 for a wrong answer and for no gateway, 2 for what cannot be asked.
func TestExitCodes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in, answer := make([]byte, 1000), codec.AppendHeaderV1(nil, codec.TypePong, 0)
		for number := 0; ; number++ {
			if _, err := conn.Read(in); err != nil {
				return
			}
			if number == 50 {
				answer[5] = byte(codec.TypeResponseOK)
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	}()
	stdout, stderr, code := bench("latency", "-s", socket, "--type", "ping", "-n", "100", "--warmup", "0", "--json")
	if code != tool.ExitFailure || !strings.Contains(stderr, "not every request") || !strings.Contains(stdout, "answered with RESPONSE_OK, not PONG") || !strings.Contains(stdout, `"wrong":50`) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	_, stderr, code = bench("throughput", "-s", socket+"-none", "-d", "1")
	if code != tool.ExitFailure || !strings.Contains(stderr, "cannot connect to "+socket+"-none") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	for _, args := range []string{
		"", "soak", "throughput -t 0", "throughput -d x", "throughput -d 0", "latency -n 0", "latency -v 3", "latency --type request",
		"latency --type ping -v 1 -p 10", "latency --expect all", "latency more", "throughput --timeout 2m", "throughput -S a -v 1",
		"goals --only soul", "goals --rate -1",
	} {
		if _, stderr, code := bench(strings.Fields(args)...); code != tool.ExitUsage || !strings.Contains(stderr, "ipc-bench: ") {
			t.Errorf("%q: exit code %d, %s", args, code, stderr)
		}
	}
	if stdout, _, code := bench("throughput", "--help"); code != 0 || !strings.Contains(stdout, "--rate") {
		t.Errorf("--help: exit code %d, %s", code, stdout)
	}
}

// Goal: the help of compare names the defaults that it has.
func TestCompareHelpNamesItsDefaults(t *testing.T) {
	stdout, _, code := bench("compare", "--help")
	text := strings.Join(strings.Fields(stdout), " ")
	for _, want := range []string{
		fmt.Sprintf("Length of a run [%g; %g with --quick]", compare.Default().Duration.Seconds(), compare.Quick().Duration.Seconds()),
		fmt.Sprintf("Runs of each side in each combination [%d; %d with --quick]", compare.Default().Repeats, compare.Quick().Repeats),
	} {
		if code != 0 || !strings.Contains(text, want) {
			t.Errorf("exit code %d, no %q in %s", code, want, text)
		}
	}
}

// Goal: the socket is where the flag, then the environment says, and last where every gateway's is.
func TestSocket(t *testing.T) {
	environment := map[string]string{}
	a := &app{environ: func(name string) string { return environment[name] }}
	if got := (&loadFlags{}).socket(a); got != "/tmp/beamline-gateway.sock" {
		t.Error(got)
	}
	environment["IPC_SOCKET_PATH"] = "/run/a"
	if got := (&loadFlags{}).socket(a); got != "/run/a" {
		t.Error(got)
	}
	if got := (&loadFlags{Socket: "/run/b"}).socket(a); got != "/run/b" {
		t.Error(got)
	}
}

// Goal: a terminal is told how far it is, and nobody else.
func TestProgress(t *testing.T) {
	socket := startGateway(t)
	for _, terminal := range []bool{true, false} {
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, environ: func(string) string { return "" }, terminal: terminal}
		if code := a.run([]string{"throughput", "-s", socket, "-d", "1.1", "-t", "2", "--type", "ping"}); code != 0 {
			t.Fatal(errs.String())
		}
		if strings.Contains(errs.String(), "1 s: ") != terminal {
			t.Errorf("terminal %v: %q", terminal, errs.String())
		}
	}
}

// Goal: the verdicts are those of the documented targets.
func TestVerdicts(t *testing.T) {
	for perSecond, want := range map[float64]string{10_000: "excellent", 9_999: "good", 5_000: "good", 4_999: "minimum", 1_000: "minimum", 999: "below minimum"} {
		if got := judgeThroughput(perSecond); got != want {
			t.Errorf("%v requests/s: %s", perSecond, got)
		}
	}
	for us, want := range map[float64]string{10_000: "excellent", 10_001: "good", 50_000: "good", 50_001: "needs work"} {
		if got := judgeP99(us); got != want {
			t.Errorf("p99 of %v us: %s", us, got)
		}
	}
}

// Goal: summary makes a document of the files that are there, and says which one it cannot read.
func TestSummary(t *testing.T) {
	socket, folder := startGateway(t), t.TempDir()
	for name, args := range map[string]string{
		"throughput_submit": "throughput -d 0.1 -t 2", "latency_64b": "latency -n 100", "rate_latency_64b": "latency -n 100 --rate 1000",
	} {
		args = args + " -s " + socket + " --json=" + filepath.Join(folder, name+".json")
		if _, stderr, code := bench(strings.Fields(args)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	const compared = `{"settings":{"repeats":1},"results":[{"kind":"ping","connections":2,"window":1,"sides":[
		{"name":"gateway","runs":[{"requests":200,"seconds":1,"quantiles_us":[1,1,1,1,1,1,1,1,1,1,1,1,1]}]},
		{"name":"echo","runs":[{"requests":400,"seconds":1,"quantiles_us":[1,1,1,1,1,1,1,1,1,1,1,1,1]}]}]},
		{"kind":"ping","connections":16,"window":1,"sides":[
		{"name":"gateway","runs":[{"requests":200,"seconds":1,"middle_us":1,"others_cpus":1,"quantiles_us":[1,1,1,1,1,1,1,1,1,1,1,1,1]}]},
		{"name":"echo","runs":[{"requests":400,"seconds":1,"middle_us":2,"others_cpus":1,"quantiles_us":[1,1,1,1,1,1,1,1,1,1,1,1,1]}]}]}],
		"left_out":["haproxy is not installed"],"failed":["ping 9 x 9: no answer"]}`
	for name, text := range map[string]string{"compare.json": compared, "rate.svg": "<svg/>"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr, code := bench("summary", folder); code != 0 {
		t.Fatal(stderr)
	}
	text, err := os.ReadFile(filepath.Join(folder, "summary.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## Throughput", "## Latency, one", "## Latency, sent by the clock", "| TASK_SUBMIT v1 | 2 x 1 |", "p99.9 us", "| ping 2 x 1 | gateway | 200 ±0% |", "|  | echo | 400 ±0% |", "| 0.50x | 0.50..0.50 |", "NOT QUIET", "- haproxy is not installed", "- ping 9 x 9: no answer",
		"### Goals", "| ping 16 x 1, CPU against echo | at most 1.25x | 0.500x | reached |", "![rate.svg](rate.svg)"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "latency_1b.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := bench("summary", folder); code != tool.ExitFailure || !strings.Contains(stderr, "latency_1b.json") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
