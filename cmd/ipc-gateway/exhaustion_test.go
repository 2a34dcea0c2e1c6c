package main

import (
	"bufio"
	"bytes"

	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// echoingGateway starts NATS, an echo on the routes' subject, and the real program.
func echoingGateway(t *testing.T, args ...string) *gateway {
	t.Helper()
	c := natsServer(t)
	respond(t, c, "echo", echo)
	g := serve(t, nil, append([]string{"--nats-url", c.ConnectedUrl(), "--subject", "echo", "--loops", "2"}, args...)...)
	g.waitReady(http.StatusOK, "Ready")
	return g
}

// rawClient is a client that can do everything wrong.
type rawClient struct {
	t *testing.T
	*net.UnixConn
}

func (g *gateway) dial() *rawClient {
	g.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: g.socket})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawClient{g.t, conn}
}

func submitFrame(payload string) []byte {
	f := codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte(payload)}
	return codec.AppendFrame(nil, &f)
}

func (c *rawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the type and payload of the next version 1 frame.
func (c *rawClient) receive() (codec.Type, string) {
	c.t.Helper()
	header := make([]byte, codec.HeaderBytesV1)
	if _, err := io.ReadFull(c, header); err != nil {
		c.t.Fatal(err)
	}
	payload := make([]byte, codec.FrameBytes(header)-codec.HeaderBytesV1)
	if _, err := io.ReadFull(c, payload); err != nil {
		c.t.Fatal(err)
	}
	return codec.Type(header[5]), string(payload)
}

// ask sends a request, and wants the echo.
func (c *rawClient) ask(payload string) {
	c.t.Helper()
	c.write(submitFrame(payload))
	if kind, got := c.receive(); kind != codec.TypeResponseOK || got != payload {
		c.t.Fatalf("got %v %.200q, want the echo of %.40q", kind, got, payload)
	}
}

func (c *rawClient) expectEOF() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		c.t.Errorf("got %d bytes, %v; want the end of the stream", n, err)
	}
}

// cpuTime returns the CPU time that a process has used.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, numbers, _ := bytes.Cut(stat, []byte(") "))
	fields := strings.Fields(string(numbers))
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime: fields 14 and 15 of the line
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on all that Linux runs Go on
}

// checkIdle checks that the gateway uses next to no CPU: less than a tenth of one over a second, within ten seconds.
// Something that spins uses all of one all the time.
func (g *gateway) checkIdle(while string) {
	g.t.Helper()
	var used time.Duration
	for range 10 {
		before := cpuTime(g.t, g.cmd.Process.Pid)
		time.Sleep(time.Second) // the measurement itself
		if used = cpuTime(g.t, g.cmd.Process.Pid) - before; used < 100*time.Millisecond {
			return
		}
	}
	g.t.Errorf("%s it uses %v of CPU in a second", while, used)
}

// metric returns the value of a metric without labels, or -1 while the probe cannot be read.
func (g *gateway) metric(name string) float64 {
	_, text, err := g.get("/metrics")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return n
			}
		}
	}
	g.t.Fatalf("no metric %s", name)
	return -1
}

// checkNothingLeft waits until no client has anything of the gateway.
func (g *gateway) checkNothingLeft() {
	g.t.Helper()
	waitFor(g.t, func() error {
		for _, name := range []string{"ipc_connections", "ipc_inflight_requests", "ipc_client_buffered_bytes"} {
			if n := g.metric(name); n != 0 {
				return fmt.Errorf("%s is %v", name, n)
			}
		}
		for _, pool := range []string{"slot", "buffer"} {
			acquired, released := g.metric("ipc_"+pool+"_pool_acquired_total"), g.metric("ipc_"+pool+"_pool_released_total")
			if acquired != released {
				return fmt.Errorf("%v %ss acquired, %v released", acquired, pool, released)
			}
		}
		return nil
	})
}

// Goal: a gateway that has no descriptor left goes on with the clients that it has, keeps who else comes waiting without
// using CPU, and serves them once there are descriptors. Method: the real program, whose limit is lowered while it runs.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	g := echoingGateway(t)
	first := g.dial()
	first.ask("before")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var usual unix.Rlimit
	if err := unix.Prlimit(g.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &usual); err != nil {
		t.Fatal(err)
	}
	few := usual
	few.Cur = uint64(len(open)) + 3
	if err := unix.Prlimit(g.cmd.Process.Pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	const clients = 20
	var late [clients]*rawClient
	for i := range late {
		late[i] = g.dial()
		late[i].write(submitFrame(fmt.Sprint(i)))
	}
	g.waitLog("too many open files")
	for i := range 100 {
		first.ask(fmt.Sprint("others go on ", i))
	}
	g.checkIdle("with clients that it cannot accept")
	if err := unix.Prlimit(g.cmd.Process.Pid, unix.RLIMIT_NOFILE, &usual, nil); err != nil {
		t.Fatal(err)
	}
	for i, c := range late {
		if kind, got := c.receive(); kind != codec.TypeResponseOK || got != fmt.Sprint(i) {
			t.Errorf("client %d was answered %v %q", i, kind, got)
		}
		_ = c.Close()
	}
	_ = first.Close()
	g.checkNothingLeft()
}

// Goal: a log that takes nothing changes nothing. Method: standard error is /dev/full, where every write fails as on a full
// disk, while there is much to say.
func TestLogToAFullDisk(t *testing.T) {
	t.Parallel()
	c := natsServer(t)
	respond(t, c, "echo", echo)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	probe := free.Addr().String()
	_ = free.Close()
	g := &gateway{socket: filepath.Join(t.TempDir(), "gw.sock"), probe: "http://" + probe}
	g.process = startCommand(t, nil, exec.Command("/bin/sh", "-c", `exec "$0" "$@" 2>/dev/full`, binary,
		"serve", "--socket", g.socket, "--probe-addr", probe, "--nats-url", c.ConnectedUrl(), "--subject", "echo", "--log-level", "debug"))
	g.waitReady(http.StatusOK, "Ready")
	for i := range 20 {
		client := g.dial()
		client.ask(fmt.Sprint(i))
		_ = client.Close()
	}
	g.checkIdle("after a log that failed")
	g.checkNothingLeft()
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := g.stderr.String(); said != "" {
		t.Errorf("the log did not go where it should: %s", said)
	}
}

// Goal: ten thousand clients at once are all served, cost no CPU when they are silent, and leave nothing behind.
func TestTenThousandConnections(t *testing.T) {
	const clients = 10_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < clients+500 {
		t.Skipf("this machine lets a process open %d files", limit.Cur)
	}
	g := echoingGateway(t, "--max-connections", strconv.Itoa(clients))
	rss := g.metric("process_resident_memory_bytes")
	all := make([]*net.UnixConn, clients)
	for i := range all {
		waitFor(t, func() (err error) {
			// A backlog that is full for a moment is EAGAIN to a socket that does not block, as Go's are.
			all[i], err = net.DialUnix("unix", nil, &net.UnixAddr{Name: g.socket})
			return err
		})
		defer all[i].Close()
	}
	waitFor(t, func() error {
		if n := g.metric("ipc_connections"); n != clients {
			return fmt.Errorf("%v connections", n)
		}
		return nil
	})
	t.Logf("a silent connection costs %.0f bytes", (g.metric("process_resident_memory_bytes")-rss)/clients)
	g.checkIdle("with silent clients")
	for i, conn := range all {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write(submitFrame(fmt.Sprint(i))); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	for i, conn := range all {
		c := &rawClient{t, conn}
		if kind, got := c.receive(); kind != codec.TypeResponseOK || got != fmt.Sprint(i) {
			t.Fatalf("client %d was answered %v %q", i, kind, got)
		}
	}
	for _, conn := range all {
		_ = conn.Close()
	}
	g.checkNothingLeft()
	g.checkIdle("after the clients")
}

// Goal: whatever clients do wrong, others are served as before, the gateway does not spin meanwhile, and nothing is left of
// them. Method: a hundred clients of a kind, of the real program.
func TestClientsThatMisbehave(t *testing.T) {
	t.Parallel()
	const clients = 100
	for _, test := range []struct {
		name string
		act  func(c *rawClient) // writes
		then func(c *rawClient) // reads what comes of it, after all have written; nil: the client stays silent
	}{
		{"half open: connects and says nothing", func(*rawClient) {}, nil},
		{"half closed: shuts down behind its request", func(c *rawClient) {
			c.write(submitFrame("last words"))
			if err := c.CloseWrite(); err != nil {
				c.t.Error(err)
			}
		}, func(c *rawClient) {
			if kind, got := c.receive(); kind != codec.TypeResponseOK || got != "last words" {
				c.t.Errorf("got %v %q", kind, got)
			}
			c.expectEOF()
		}},
		{"half closed in a frame", func(c *rawClient) {
			c.write(submitFrame("never whole")[:9])
			_ = c.CloseWrite()
		}, (*rawClient).expectEOF},
		{"slow loris: never completes its frame", func(c *rawClient) { c.write(submitFrame("never whole")[:9]) }, func(c *rawClient) {
			if kind, got := c.receive(); kind != codec.TypeResponseError || !strings.Contains(got, "INVALID_PAYLOAD") {
				c.t.Errorf("got %v %q", kind, got)
			}
			c.expectEOF()
		}},
		{"never reads", func(c *rawClient) {
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			for range 100 {
				if _, err := c.Write(submitFrame(strings.Repeat("x", 50_000))); err != nil {
					return
				}
			}
		}, nil},
		{"closes at once", func(c *rawClient) { _ = c.Close() }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := echoingGateway(t, "--frame-timeout", "500ms", "--max-client-buffer", "1MiB")
			other := g.dial()
			all := make([]*rawClient, clients)
			for i := range all {
				all[i] = g.dial()
				test.act(all[i])
			}
			other.ask("meanwhile")
			g.checkIdle("with such clients")
			for _, c := range all {
				if test.then != nil {
					test.then(c)
				}
				_ = c.Close()
			}
			_ = other.SetDeadline(time.Now().Add(20 * time.Second))
			other.ask("afterwards")
			_ = other.Close()
			g.checkNothingLeft()
			g.checkIdle("after them")
		})
	}
}

// garbageServer is a NATS server as far as the handshake, which answers the first message on each connection with garbage.
func garbageServer(t *testing.T) (url string, connects, messages *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	connects, messages = new(atomic.Int64), new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connects.Add(1)
			go talkGarbage(conn, messages)
		}
	}()
	return "nats://" + listener.Addr().String(), connects, messages
}

func talkGarbage(conn net.Conn, messages *atomic.Int64) {
	defer conn.Close()
	say := func(text string) { _, _ = io.WriteString(conn, text) }
	say(`INFO {"server_id":"garbage","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}` + "\r\n")
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		switch {
		case err != nil:
			return
		case strings.HasPrefix(line, "PING"):
			say("PONG\r\n")
		case strings.HasPrefix(line, "PUB"), strings.HasPrefix(line, "HPUB"):
			messages.Add(1)
			say("\x00\xffMSG of no protocol\r\n")
		}
	}
}

// Goal: a server that answers requests with garbage is left and tried again, in no spin; each request is told the truth: it may
// have been executed, or it surely was not.
func TestServerThatTalksGarbage(t *testing.T) {
	t.Parallel()
	url, connects, messages := garbageServer(t)
	g := serve(t, nil, "--nats-url", url, "--subject", "echo", "--loops", "1", "--timeout", "5s", "--nats-reconnect-wait", "100ms", "--nats-reconnect-jitter", "10ms")
	g.waitReady(http.StatusOK, "Ready")
	client := g.dial()
	began := time.Now()
	var sent, unsent int64
	for messages.Load() < 5 {
		client.write(submitFrame("x"))
		kind, got := client.receive()
		info, err := codec.ParseError([]byte(got))
		switch {
		case kind != codec.TypeResponseError || err != nil:
			t.Fatalf("got %v %q", kind, got)
		case info.Name == "CONNECTION_CLOSED" && info.Sent:
			sent++
		case info.Name == "UNAVAILABLE" && !info.Sent:
			unsent++
		default:
			t.Fatalf("got %+v", info)
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%d messages reached the server", messages.Load())
		}
	}
	if n := messages.Load(); n != sent {
		t.Errorf("%d requests reached the server, and %d were told that they may have", n, sent)
	}
	if most := 2 + int64(time.Since(began)/(100*time.Millisecond)); connects.Load() > most {
		t.Errorf("%d connects in %v, want at most %d", connects.Load(), time.Since(began), most)
	}
	t.Logf("%d requests told that they may have been executed, %d that they surely were not; %d connects", sent, unsent, connects.Load())
	g.checkIdle("between such servers")
	_ = client.Close()
	g.checkNothingLeft()
}
