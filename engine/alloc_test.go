//go:build !race

package engine

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

func init() {
	roles["alloc-nats"] = allocNATS
	roles["alloc-load"] = allocLoad
}

// mallocsPerRequestMax is the promise of the data plane.
const mallocsPerRequestMax = 0.01

// Goal: the gateway allocates nothing for a request. Method: this process runs the gateway alone;
// the NATS server with its responders is a second process, the clients are a third. Every malloc of
// this process counts, background ones included, over 100,000 requests and more of each kind, with
// frames torn at random, requests that time out, and replies that come too late.
func TestRequestsDoNotAllocate(t *testing.T) {
	url := startProcess(t, "alloc-nats", "STORE="+t.TempDir()).line
	cfg := testConfig(t, url)
	cfg.Logger = nil // a test's log allocates
	cfg.Loops = 1    // with all connections on it
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, kind := range []string{"v1-request", "v2-request", "publish", "noreply", "jetstream", "ping", "mixed"} {
		t.Run(kind, func(t *testing.T) {
			load := startProcess(t, "alloc-load", "SOCKET="+cfg.SocketPath, "KIND="+kind)
			runLoad(t, load, 30_000) // until the buffers have found their sizes
			late := g.Stats().LateReplies
			expectNoMallocs(t, load, 120_000)
			s := g.Stats()
			if kind == "mixed" && s.LateReplies == late {
				t.Error("no reply was late: the test does not test what it says")
			}
			if s.InternalErrors != 0 {
				t.Errorf("%d internal errors", s.InternalErrors)
			}
		})
	}
}

// Goal: nor does it with an audit log, whose goroutine allocates nothing for a request either. Method: as above.
func TestAuditedRequestsDoNotAllocate(t *testing.T) {
	url := startProcess(t, "alloc-nats", "STORE="+t.TempDir()).line
	cfg := auditConfig(t, url)
	cfg.Logger, cfg.Loops = nil, 1
	cfg.Audit.PayloadBytes, cfg.Audit.Keep = 256, 2
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, kind := range []string{"noreply", "mixed"} {
		load := startProcess(t, "alloc-load", "SOCKET="+cfg.SocketPath, "KIND="+kind)
		runLoad(t, load, 30_000)
		records, requests := g.Stats().Audit.Records, 120_000
		expectNoMallocs(t, load, requests)
		if s := g.Stats().Audit; s.Records-records < uint64(requests*99/100) || s.Lost != 0 {
			t.Errorf("%s: %+v", kind, s)
		}
	}
}

// expectNoMallocs counts the mallocs of this process while the load process sends requests. Buffers that were too small for what comes
// on a busy machine may still grow then, each a few times: in one of three rounds they do not. What a request allocates, it
// does in all of them.
func expectNoMallocs(t *testing.T, load *process, requests int) {
	t.Helper()
	per := 1.0
	for round := 0; round < 3 && per > mallocsPerRequestMax; round++ {
		before := mallocs()
		runLoad(t, load, requests)
		counted := mallocs() - before
		per = float64(counted) / float64(requests)
		t.Logf("%d mallocs in %d requests: %.5f a request", counted, requests, per)
	}
	if per > mallocsPerRequestMax {
		t.Errorf("%.5f mallocs a request, want at most %v", per, mallocsPerRequestMax)
	}
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// runLoad has the load process send n requests, and waits for their answers.
func runLoad(t *testing.T, load *process, n int) {
	t.Helper()
	_, _ = fmt.Fprintln(load.stdin, n)
	if got := load.readLine(t); got != "done" {
		t.Fatalf("load: %s", got)
	}
}

// allocNATS is a NATS server with responders: an echo, one that adds headers, one that never
// answers, and one that answers after the deadline.
func allocNATS() {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: os.Getenv("STORE"),
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		panic(err)
	}
	for subject, handle := range map[string]nats.MsgHandler{
		DefaultSubject: echo,
		"app.headers": func(m *nats.Msg) {
			_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: m.Header, Data: m.Data})
		},
		"app.never": func(*nats.Msg) {},
		"app.late":  func(m *nats.Msg) { time.AfterFunc(30*time.Millisecond, func() { _ = m.Respond(m.Data) }) },
	} {
		if _, err := nc.Subscribe(subject, handle); err != nil {
			panic(err)
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, Storage: jetstream.MemoryStorage, MaxMsgs: 1000, Duplicates: time.Second,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.ClientURL())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// allocLoad connects, says so, and then sends as many requests as each line of its input says, over 64 connections with up to
// 16 requests in flight each.
func allocLoad() {
	const connections = 64
	kind := os.Getenv("KIND")
	var conns [connections]net.Conn
	for i := range conns {
		conn, err := net.Dial("unix", os.Getenv("SOCKET"))
		if err != nil {
			panic(err)
		}
		conns[i] = conn
	}
	fmt.Println("connected")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			panic(err)
		}
		var wg sync.WaitGroup
		failures := make(chan error, connections)
		for i, conn := range conns {
			wg.Go(func() { failures <- sendAndReceive(conn, kind, n/connections, uint64(i)) })
		}
		wg.Wait()
		result := "done"
		for range conns {
			if err := <-failures; err != nil {
				result = err.Error()
			}
		}
		fmt.Println(result)
	}
}

// sendAndReceive sends n requests of a kind, in windows of 16 or one by one, each window torn at random.
func sendAndReceive(conn net.Conn, kind string, n int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := &peer{UnixConn: conn.(*net.UnixConn)}
	for sent := 0; sent < n; {
		window := min(16, n-sent)
		if kind == "v1-request" || kind == "ping" {
			window = 1
		}
		var b []byte
		answers := 0
		for i := range window {
			f := allocFrame(kind, uint64(sent+i), rng)
			if f.Flags&codec.FlagNoReply == 0 {
				answers++
			}
			b = codec.AppendFrame(b, &f)
		}
		if kind == "noreply" {
			ping := v2(codec.TypePing, 1<<60, "", "") // tells that the gateway has read the window
			b = codec.AppendFrame(b, &ping)
			answers++
		}
		for len(b) > 0 {
			k := len(b)
			if rng.IntN(4) == 0 {
				k = 1 + rng.IntN(len(b))
			}
			if _, err := conn.Write(b[:k]); err != nil {
				return err
			}
			b = b[k:]
		}
		for range answers {
			f, err := p.tryReceive()
			if err != nil {
				return err
			}
			if f.Type == codec.TypeResponseError && !strings.Contains(string(f.Payload), "TIMEOUT") &&
				(kind != "unanswered" || !strings.Contains(string(f.Payload), "UNAVAILABLE")) {
				return fmt.Errorf("answer: %s", f.Payload)
			}
		}
		sent += window
	}
	return nil
}

func allocFrame(kind string, id uint64, rng *rand.Rand) codec.Frame {
	payload := strings.Repeat("p", 64+rng.IntN(512))
	switch kind {
	case "v1-request":
		return v1(codec.TypeTaskSubmit, payload)
	case "v2-request":
		f := v2(codec.TypeRequest, id, "app.headers", payload)
		f.Headers = []byte("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX-A: b\r\n")
		return f
	case "v2-unsampled":
		f := allocFrame("v2-request", id, rng)
		f.Headers = bytes.Replace(f.Headers, []byte("-01\r\n"), []byte("-00\r\n"), 1)
		return f
	case "publish":
		return v2(codec.TypePublish, id, "app.sink", payload)
	case "noreply":
		f := v2(codec.TypePublish, id, "app.sink", payload)
		f.Flags = codec.FlagNoReply
		return f
	case "jetstream":
		return durablePublish(id, payload, "")
	case "unanswered":
		f := v2(codec.TypeRequest, id, "app.never", payload)
		f.TimeoutMs = 10
		return f
	case "ping":
		return v1(codec.TypePing, "")
	}
	switch roll := rng.IntN(1000); {
	case roll < 2:
		f := v2(codec.TypeRequest, id, "app.late", payload)
		f.TimeoutMs = 10
		return f
	case roll < 4:
		f := v2(codec.TypeRequest, id, "app.never", payload)
		f.TimeoutMs = 10
		return f
	case roll < 300:
		return allocFrame("v2-request", id, rng)
	case roll < 500:
		return allocFrame("publish", id, rng)
	case roll < 600:
		return allocFrame("ping", id, rng)
	}
	return allocFrame("v1-request", id, rng)
}
