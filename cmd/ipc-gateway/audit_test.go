package main

import (
	bigendian "encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// auditCat returns the requests that audit cat prints, and the gaps.
func auditCat(t *testing.T, args ...string) (lines []auditLine) {
	t.Helper()
	code, stdout, stderr := run(t, nil, append([]string{"audit", "cat"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return parseAudit(t, stdout)
}

func parseAudit(t *testing.T, text string) (lines []auditLine) {
	t.Helper()
	for text := range strings.Lines(text) {
		var line auditLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines
}

// wantWhole checks that audit verify has nothing against a log.
func wantWhole(t *testing.T, path string) {
	t.Helper()
	if code, stdout, stderr := run(t, nil, "audit", "verify", path); code != 0 || !strings.Contains(stdout, "whole: ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// wantRecovered checks that audit verify has nothing against a log but that gateways were killed.
func wantRecovered(t *testing.T, path string) {
	t.Helper()
	if code, stdout, stderr := run(t, nil, "audit", "verify", path); code != 0 || !strings.Contains(stdout, "\nrecovered: ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func requestFrame(id uint64, subject, payload string) *codec.Frame {
	return &codec.Frame{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: id, Subject: []byte(subject), Payload: []byte(payload)}
}

func connectTo(t *testing.T, socket string) *client.Conn {
	t.Helper()
	c, err := client.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// outcomeOfRequest sends a request and returns the name of its outcome.
func outcomeOfRequest(t *testing.T, c *client.Conn, f *codec.Frame) (outcome string) {
	t.Helper()
	answer, err := c.Do(f)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Type != codec.TypeResponseError {
		return "OK"
	}
	info, err := codec.ParseError(answer.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return info.Name
}

// Goal: what clients did can be read while the gateway runs, with filters and as it comes, over rotations, and is whole
// afterwards.
func TestAuditOfAGatewayThatRuns(t *testing.T) {
	t.Parallel()
	nc := natsServer(t)
	respond(t, nc, "app.*", echo)
	path := filepath.Join(t.TempDir(), "audit")
	follower := start(t, nil, "audit", "cat", path, "--follow", "--outcome", "ok")
	follower.waitLog("is not there yet")
	g := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--audit", path, "--audit-max-size", "4KiB", "--audit-compress", "--audit-payload", "1KiB", "--audit-sync", "always")
	g.waitReady(http.StatusOK, "Ready")
	c := connectTo(t, g.socket)
	const n = 100
	for i := range uint64(n) {
		if got := outcomeOfRequest(t, c, requestFrame(i, "app."+[]string{"even", "odd"}[i%2], fmt.Sprint("payload ", i))); got != "OK" {
			t.Fatalf("request %d: %s", i, got)
		}
	}
	if got := outcomeOfRequest(t, c, requestFrame(n, "nobody.there", "\xff\xfe")); got != "NO_RESPONDERS" {
		t.Errorf("got %s", got)
	}
	waitFor(t, func() error {
		if seen := len(parseAudit(t, follower.stdout.String())); seen != n {
			return fmt.Errorf("%d requests are seen, want %d", seen, n)
		}
		return nil
	})
	follower.signal(syscall.SIGINT)
	if code := follower.wait(); code != 0 {
		t.Errorf("cat --follow: exit code %d: %s", code, follower.stderr.String())
	}
	wantWhole(t, path) // while it is written
	if lines := auditCat(t, path, "--subject", "app.odd", "--uid", fmt.Sprint(os.Getuid()), "--since", "1h"); len(lines) != n/2 {
		t.Errorf("%d requests to one subject", len(lines))
	}
	for _, args := range [][]string{{"--until", "1h"}, {"--uid", "4711"}, {"--outcome", "TIMEOUT"}, {"--subject", "other.>"}} {
		if lines := auditCat(t, append(args, path)...); len(lines) != 0 {
			t.Errorf("%v: %d requests", args, len(lines))
		}
	}
	failed := auditCat(t, path, "--outcome", "no_responders")
	if len(failed) != 1 || failed[0].Subject != "nobody.there" || *failed[0].Code != byte(codec.CodeNoResponders) || string(failed[0].PayloadBase64) != "\xff\xfe" ||
		failed[0].Type != "REQUEST" || failed[0].CorrelationID != n || failed[0].PID != int32(os.Getpid()) || *failed[0].DurationNs <= 0 {
		t.Errorf("%+v", failed)
	}
	if g.metric("ipc_audit_segments_total") < 3 || g.metric("ipc_audit_dropped_total") != 0 {
		t.Error("too few segments, or requests are missing")
	}
	g.signal(syscall.SIGTERM)
	g.wait()
	wantWhole(t, path)
	code, stdout, _ := run(t, nil, "audit", "verify", path, "--anchor", "1:"+strings.Repeat("00", 32))
	if code != exitFailure || !strings.Contains(stdout, "PROBLEM: its hash is not") || !strings.Contains(stdout, "NOT WHOLE") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// Goal: a gateway that is killed in the middle of writes leaves a log that verify finds fault with, and that the next gateway opens
// at its last whole record and goes on with. Method: the real program under load, killed five times.
func TestKilledWhileItWritesTheAuditLog(t *testing.T) {
	t.Parallel()
	nc := natsServer(t)
	path := filepath.Join(t.TempDir(), "audit")
	total, open := 0, 0
	for round := range 5 {
		g := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--loops", "1", "--audit", path, "--audit-payload", "64KiB", "--audit-max-size", "1MiB")
		g.waitReady(http.StatusOK, "Ready")
		if code, stdout, _ := run(t, nil, "audit", "verify", path); round > 0 && code != 0 {
			t.Errorf("exit code %d: %s", code, stdout)
		}
		var clients sync.WaitGroup
		var sent atomic.Int64
		for range 4 {
			clients.Go(func() {
				c, err := client.Dial(t.Context(), g.socket)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				for id := uint64(0); ; id++ {
					f := codec.Frame{Version: codec.Version2, Type: codec.TypePublish, Flags: codec.FlagNoReply, CorrelationID: id,
						Subject: []byte("app.load"), Payload: make([]byte, 20_000)}
					if c.Send(&f) != nil {
						return // it is killed
					}
					sent.Add(1)
				}
			})
		}
		waitFor(t, func() error {
			if n := sent.Load(); n < int64(100+50*round) {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
		g.signal(syscall.SIGKILL)
		g.wait()
		clients.Wait()
		// Between the end of a segment and the begin of the next one, which is rare, there is none to find fault with.
		if code, stdout, _ := run(t, nil, "audit", "verify", path); code == exitFailure && strings.Contains(stdout, "or its gateway was killed") {
			open++
		}
	}
	if open == 0 {
		t.Error("five gateways were killed, and verify has found none of their segments open")
	}
	g := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--audit", path)
	g.signal(syscall.SIGTERM)
	g.wait()
	wantRecovered(t, path)
	for _, line := range auditCat(t, path) {
		if line.Subject == "app.load" {
			total++
		}
	}
	if total == 0 {
		t.Error("no request is in the log")
	}
	t.Logf("%d requests of five gateways that were killed", total)
}

// Goal: a log that was changed stays so, however often gateways are started with it since. Method: the last five records of a log whose
// gateway has ended well are cut off, and a bit is flipped in one whose gateway was killed.
func TestRestartsLaunderNothing(t *testing.T) {
	t.Parallel()
	nc := natsServer(t)
	respond(t, nc, "app.echo", echo)
	for _, test := range []struct {
		name   string
		end    syscall.Signal
		change func(t *testing.T, b []byte) []byte
		want   string
	}{
		{"records cut off", syscall.SIGTERM, func(t *testing.T, b []byte) []byte {
			var ends []int
			for at := 8; at < len(b); at += 8 + int(bigendian.BigEndian.Uint32(b[at:])) {
				ends = append(ends, at)
			}
			return b[:ends[len(ends)-5]]
		}, "its end was cut off"},
		{"bit flipped", syscall.SIGKILL, func(_ *testing.T, b []byte) []byte { b[400] ^= 4; return b }, "audit.00000001.cut"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit")
			args := []string{"--nats-url", nc.ConnectedUrl(), "--loops", "1", "--audit", path}
			g := serve(t, nil, args...)
			g.waitReady(http.StatusOK, "Ready")
			c := connectTo(t, g.socket)
			for i := range uint64(5) {
				outcomeOfRequest(t, c, requestFrame(i, "app.echo", "x"))
			}
			waitFor(t, func() error {
				if n := len(auditCat(t, path, "--outcome", "ok")); n != 5 {
					return fmt.Errorf("%d requests are written", n)
				}
				return nil
			})
			g.signal(test.end)
			g.wait()
			segment := path + ".00000001"
			b, err := os.ReadFile(segment)
			if err == nil {
				err = os.WriteFile(segment, test.change(t, b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			for starts := range 3 {
				code, stdout, _ := run(t, nil, "audit", "verify", path)
				if code != exitFailure || !strings.Contains(stdout, "NOT WHOLE") || starts > 0 && !strings.Contains(stdout, test.want) {
					t.Errorf("%d starts later: exit code %d: %s", starts, code, stdout)
				}
				again := serve(t, nil, args...)
				again.signal(syscall.SIGTERM)
				again.wait()
			}
		})
	}
}

// Goal: the requests in the log can be sent again, in order and at a rate, and it is told which outcomes are different.
func TestAuditReplay(t *testing.T) {
	t.Parallel()
	nc := natsServer(t)
	var mu sync.Mutex
	var seen []string
	var refuse atomic.Bool
	answer := func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, m.Subject+" "+string(m.Data)+" "+m.Header.Get("X"))
		if refuse.Load() && strings.HasPrefix(string(m.Data), "5") {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"500"}, "Nats-Service-Error": {"no"}}})
			return
		}
		echo(m)
	}
	respond(t, nc, "app.>", answer) // one subscription: it sees them in their order
	path := filepath.Join(t.TempDir(), "audit")
	recorded := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--loops", "1", "--subject", "app.task", "--audit", path, "--audit-payload", "100")
	recorded.waitReady(http.StatusOK, "Ready")
	c := connectTo(t, recorded.socket)
	const n = 20
	for i := range uint64(n) {
		f := requestFrame(i, "app.x", fmt.Sprint(i))
		f.Headers = []byte("X: y\r\n")
		if i%4 == 3 {
			f = &codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte(fmt.Sprint(i))}
		}
		outcomeOfRequest(t, c, f)
	}
	outcomeOfRequest(t, c, requestFrame(n, "nobody.there", "x"))
	outcomeOfRequest(t, c, requestFrame(n+1, "app.big", strings.Repeat("x", 101)))
	outcomeOfRequest(t, c, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: n + 2})
	quiet := codec.Frame{Version: codec.Version2, Type: codec.TypePublish, Flags: codec.FlagNoReply, Subject: []byte("app.quiet"), Payload: []byte("q")}
	if err := c.Send(&quiet); err != nil {
		t.Fatal(err)
	}
	outcomeOfRequest(t, c, &codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: n + 3})
	recorded.signal(syscall.SIGTERM)
	recorded.wait()
	took := func() (list []string) {
		mu.Lock()
		defer mu.Unlock()
		list, seen = seen, nil
		return slices.DeleteFunc(list, func(s string) bool { return strings.HasPrefix(s, "app.big") })
	}
	first := took()
	if len(first) != n+1 {
		t.Fatalf("%d requests: %q", len(first), first)
	}

	times := map[string]time.Time{}
	for _, line := range auditCat(t, path) {
		at, err := time.Parse(time.RFC3339Nano, line.Time)
		if err != nil {
			t.Fatal(err)
		}
		if _, seen := times[line.Subject]; !seen || line.Subject == "app.quiet" {
			times[line.Subject] = at
		}
	}
	recordedFor := times["app.quiet"].Sub(times["app.x"])
	g := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--loops", "1", "--subject", "app.task")
	g.waitReady(http.StatusOK, "Ready")
	for _, args := range [][]string{nil, {"--rate", "200"}, {"--speed", "0.5"}, {"--speed", "1000"}, {"--inflight", "1"}} {
		began := time.Now()
		code, stdout, stderr := run(t, nil, append([]string{"audit", "replay", path, "--to", g.socket}, args...)...)
		if code != 0 {
			t.Errorf("%v: exit code %d: %s%s", args, code, stdout, stderr)
		}
		wantAll(t, stdout, fmt.Sprintf("sent %d in", n+2), fmt.Sprintf("%d outcomes as recorded, 0 different, 1 not compared", n+1),
			"not sent: 1 that are not recorded whole, 2 that the gateway answers by itself, 0 that are missing")
		if len(args) == 2 && args[1] == "0.5" && time.Since(began) < 2*recordedFor {
			t.Errorf("what took %v took %v at half the speed", recordedFor, time.Since(began))
		}
		if len(args) == 2 && args[0] == "--rate" && time.Since(began) < (n+1)*5*time.Millisecond {
			t.Errorf("%d requests at 200 a second took %v", n+2, time.Since(began))
		}
		var again []string
		waitFor(t, func() error {
			if again = append(again, took()...); len(again) < len(first) {
				return fmt.Errorf("%d requests came again", len(again))
			}
			return nil
		})
		if !slices.Equal(again, first) {
			t.Errorf("%v: first %q, again %q", args, first, again)
		}
	}

	refuse.Store(true)
	code, stdout, _ := run(t, nil, "audit", "replay", path, "--to", g.socket, "--subject", "app.x")
	if code != exitFailure || strings.Count(stdout, "REQUEST app.x: was OK, now SERVICE_ERROR\n") != 1 || !strings.Contains(stdout, " 1 different") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// Goal: replay counts those missing requests that are missing in the time that is replayed. Method: a log with a gap, of which nothing
// is sent.
func TestReplayCountsGapsOfItsTime(t *testing.T) {
	t.Parallel()
	cfg := audit.Default()
	cfg.Path, cfg.RingBytes = filepath.Join(t.TempDir(), "audit"), 256<<10
	l, err := audit.Open(cfg, 1, func() int64 { return time.Now().UnixNano() }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for l.Stats().Lost == 0 {
		l.Ring(0).Answered(&audit.Request{Time: time.Now().UnixNano(), Version: codec.Version2, Type: byte(codec.TypePing)}, audit.Outcome{})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	g := serve(t, nil, "--nats-url", natsServer(t).ConnectedUrl())
	for _, test := range []struct {
		args []string
		want uint64
	}{
		{nil, l.Stats().Lost}, {[]string{"--since", "1h"}, l.Stats().Lost}, {[]string{"--until", "1h"}, 0}, {[]string{"--since=-1h"}, 0},
	} {
		code, stdout, stderr := run(t, nil, append([]string{"audit", "replay", cfg.Path, "--to", g.socket}, test.args...)...)
		want := fmt.Sprintf(" %d that are missing in the log\n", test.want)
		if code != 0 || test.want > 0 && !strings.Contains(stdout, want) || test.want == 0 && strings.Contains(stdout, "not sent") {
			t.Errorf("%v: exit code %d: %s%s; want %s", test.args, code, stdout, stderr, want)
		}
	}
}

// Goal: a takeover with the same log leaves one that is whole, with every request of both processes in it once, and none of the
// segments written by both.
func TestTakeoverOfTheAuditLog(t *testing.T) {
	t.Parallel()
	nc := natsServer(t)
	respond(t, nc, "app.echo", echo)
	asked := make(chan *nats.Msg, 1)
	respond(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	path := filepath.Join(t.TempDir(), "audit")
	args := []string{"--nats-url", nc.ConnectedUrl(), "--audit", path, "--loops", "1"}
	g := serve(t, nil, args...)
	g.waitReady(http.StatusOK, "Ready")
	slow, fast := connectTo(t, g.socket), connectTo(t, g.socket)
	if err := slow.Send(requestFrame(1, "app.slow", "x")); err != nil {
		t.Fatal(err)
	}
	held := <-asked
	id := uint64(0)
	for range 10 {
		id++
		outcomeOfRequest(t, fast, requestFrame(id, "app.echo", "x"))
	}
	next := start(t, nil, append([]string{"serve", "--takeover", "--socket", g.socket, "--probe-addr", "127.0.0.1:0"}, args...)...)
	next.waitLog("msg=serving")
	for range 10 {
		id++
		if got := outcomeOfRequest(t, fast, requestFrame(id, "app.echo", "x")); got != "OK" {
			t.Errorf("got %s", got)
		}
	}
	wantWhole(t, path) // both write it
	_ = held.Respond([]byte("late"))
	if answer, err := slow.Receive(); err != nil || string(answer.Payload) != "late" {
		t.Errorf("%s, %v", answer.Payload, err)
	}
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	next.signal(syscall.SIGTERM)
	if code := next.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, next.stderr.String())
	}
	wantWhole(t, path)
	var ids []uint64
	for _, line := range auditCat(t, path) {
		if line.Outcome != "OK" {
			t.Errorf("%+v", line)
		}
		if line.Subject == "app.echo" {
			ids = append(ids, line.CorrelationID)
		}
	}
	slices.Sort(ids)
	if len(ids) != 20 || len(slices.Compact(ids)) != 20 {
		t.Errorf("requests %v", ids)
	}
}

// Goal: a call that makes no sense says so, before anything is opened, and a log that is not there too.
func TestAuditCommandsCalledWrongly(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "audit")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"cat"}, exitUsage, "<file>"},
		{[]string{"cat", missing}, exitFailure, "there is no audit log"},
		{[]string{"cat", missing, "--since", "yesterday"}, exitUsage, "--since"},
		{[]string{"cat", missing, "--outcome", "bad"}, exitUsage, "NO_RESPONDERS"},
		{[]string{"cat", missing, "--subject", "a..b"}, exitUsage, "--subject"},
		{[]string{"verify", missing}, exitFailure, "there is no audit log"},
		{[]string{"verify", missing, "--anchor", "1:x"}, exitUsage, "--anchor"},
		{[]string{"replay", missing}, exitUsage, "--to"},
		{[]string{"replay", missing, "--to", missing}, exitFailure, "no gateway socket"},
		{[]string{"replay", missing, "--to", missing, "--rate", "1", "--speed", "1"}, exitUsage, "want one of them"},
		{[]string{"replay", missing, "--to", missing, "--rate", "NaN"}, exitUsage, "--rate NaN"},
		{[]string{"replay", missing, "--to", missing, "--rate", "Inf"}, exitUsage, "--rate +Inf"},
		{[]string{"replay", missing, "--to", missing, "--speed", "1e300"}, exitUsage, "--speed 1e+300"},
		{[]string{"replay", missing, "--to", missing, "--rate=-1"}, exitUsage, "--rate -1"},
		{[]string{"replay", missing, "--to", missing, "--inflight", "0"}, exitUsage, "--inflight"},
	} {
		code, _, stderr := run(t, nil, append([]string{"audit"}, test.args...)...)
		if code != test.code || !strings.Contains(stderr, test.want) {
			t.Errorf("audit %v: exit code %d: %s; want %d with %q", test.args, code, stderr, test.code, test.want)
		}
	}
	for _, flags := range [][]string{{"--audit-on-full", "panic"}, {"--audit-sync", "maybe"}, {"--audit", "/tmp/", "--audit-max-size", "1"}} {
		if code, _, stderr := run(t, nil, append([]string{"serve"}, flags...)...); code != exitUsage || !strings.Contains(stderr, "audit") {
			t.Errorf("serve %v: exit code %d: %s", flags, code, stderr)
		}
	}
}

func TestSubjectMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a", false}, {"a", "a.b", false}, {"a.*", "a.b", true}, {"a.*", "a.b.c", false},
		{"a.*.c", "a.b.c", true}, {"*", "a", true}, {"*", "", false}, {">", "a.b", true}, {">", "", false}, {"a.>", "a.b.c", true}, {"a.>", "a", false},
	} {
		if got := subjectMatches(test.pattern, test.subject); got != test.want {
			t.Errorf("%s and %q: %v", test.pattern, test.subject, got)
		}
	}
}
