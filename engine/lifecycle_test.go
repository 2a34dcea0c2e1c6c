package engine

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: a drain finishes what is in flight, refuses what is new, and loses nothing on the way.
func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	g := runGateway(t, cfg)
	waitReady(t, g)
	p, idle := dial(t, g), dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", "one"))
	m := <-asked
	drained := make(chan error, 1)
	go func() { drained <- g.Drain(testTimeout) }()
	eventually(t, "the socket is gone", func() bool { _, err := os.Lstat(cfg.SocketPath); return os.IsNotExist(err) })
	if err := g.Ready(); err == nil || err.Error() != "draining" {
		t.Errorf("Ready = %v, want draining", err)
	}
	for _, client := range []*peer{p, idle} {
		// The loops learn of the drain a moment after the socket is gone.
		eventually(t, "requests are refused", func() bool {
			client.send(v2(codec.TypeRequest, 2, "app.nobody", "two"))
			f := client.receive()
			return strings.Contains(string(f.Payload), "SHUTTING_DOWN")
		})
		client.send(v2(codec.TypePing, 3, "", ""), v1(codec.TypeTaskSubmit, "x"))
		if f := client.receive(); f.Type != codec.TypePong {
			t.Errorf("PING while draining: %v", f.Type)
		}
		client.expectError(1, 0, codec.CodeShuttingDown, false)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a request in flight: %v", err)
	default:
	}
	_ = m.Respond([]byte("answer"))
	p.expectOK(2, 1, "answer")
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	p.expectEOF()
	idle.expectEOF()
}

func TestDrainTimeoutAnswersTheRest(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), ">", func(*nats.Msg) {})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "never"), v1(codec.TypePing, ""), v2(codec.TypeRequest, 9, "app.never", "never"))
	eventually(t, "both are in flight", func() bool { return g.Stats().Inflight == 2 })
	err := g.Drain(50 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "2 requests were not answered") {
		t.Errorf("Drain = %v", err)
	}
	for range 3 {
		switch f := p.receive(); {
		case f.Type == codec.TypePong:
		case f.Type == codec.TypeResponseError && strings.Contains(string(f.Payload), `"SHUTTING_DOWN"`) && strings.Contains(string(f.Payload), `"sent":true`):
		default:
			t.Errorf("got %v %s", f.Type, f.Payload)
		}
	}
	_ = g.Close()
	p.expectEOF()
}

// Goal: publishes that were answered OK before a drain are in NATS when Drain returns.
func TestDrainFlushesToNATS(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	sub, err := nc.SubscribeSync("app.sink")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	const messages = 1000
	for range messages {
		f := v2(codec.TypePublish, 1, "app.sink", strings.Repeat("x", 1000))
		f.Flags = codec.FlagNoReply
		p.send(f)
	}
	p.send(v2(codec.TypePing, 1, "", ""))
	p.receive()
	if err := g.Drain(testTimeout); err != nil {
		t.Fatalf("Drain: %v", err)
	}
	_ = g.Close()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := sub.Pending(); err != nil || n != messages {
		t.Errorf("%d messages arrived, %v; want %d", n, err, messages)
	}
}

// Goal: a client that shuts down its writing side right behind its requests, as scripts do, gets
// every answer, also more than its socket holds, and then EOF.
func TestHalfClosedClientGetsItsAnswers(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 100)
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	payload := strings.Repeat("x", 300_000)
	p := dial(t, g)
	for range 10 {
		p.send(v1(codec.TypeTaskSubmit, payload))
	}
	p.sendBytes([]byte{0, 0, 0, 50, 1, 1, 'p', 'a', 'r', 't'}) // never completed, never answered
	if err := p.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	requests := make([]*nats.Msg, 10)
	for i := range requests {
		requests[i] = <-asked
	}
	for _, m := range requests {
		_ = m.Respond(m.Data)
	}
	eventually(t, "all answers wait or are read", func() bool { return g.Stats().Inflight == 0 })
	for range 10 {
		p.expectOK(1, 0, payload)
	}
	p.expectEOF()
	eventually(t, "the connection is gone", func() bool { return g.Stats().Connections == 0 })

	immediate := dial(t, g)
	immediate.send(v1(codec.TypePing, ""))
	_ = immediate.CloseWrite()
	if f := immediate.receive(); f.Type != codec.TypePong {
		t.Errorf("got %v", f.Type)
	}
	immediate.expectEOF()
}

// Goal: a client that closes for good, also after a half-close, gives its slots back at once, not
// when its requests time out; their replies are late.
func TestClosedClientReleasesItsSlots(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	for i, halfCloseFirst := range []bool{false, true} {
		p := dial(t, g)
		p.send(v2(codec.TypeRequest, 1, "app.slow", "x"), v1(codec.TypeTaskSubmit, "y"), v1(codec.TypePing, ""))
		requests := []*nats.Msg{<-asked, <-asked}
		if halfCloseFirst {
			_ = p.CloseWrite()
			if err := g.Alive(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := g.Stats().Inflight; n != 2 {
				t.Errorf("%d in flight after a half-close, want 2", n)
			}
		}
		_ = p.Close()
		eventually(t, "the slots are free", func() bool { st := g.Stats(); return st.Inflight == 0 && st.Connections == 0 })
		for _, m := range requests {
			_ = m.Respond(nil)
		}
		eventually(t, "the replies are counted as late", func() bool { return g.Stats().LateReplies == uint64(2*(i+1)) })
		if n := g.Stats().Abandoned; n != uint64(2*(i+1)) {
			t.Errorf("%d requests counted as abandoned, want %d", n, 2*(i+1))
		}
	}
}

func TestDeadlinesAreKept(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.never", func(*nats.Msg) {})
	answerWith(t, nc, DefaultSubject, func(*nats.Msg) {})
	cfg := testConfig(t, s.ClientURL())
	cfg.Timeout = 40 * time.Millisecond
	cfg.Routes.Query.Timeout = 20 * time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	for _, test := range []struct {
		frame codec.Frame
		after time.Duration
		text  string
	}{
		{codec.Frame{Version: 2, Type: codec.TypeRequest, CorrelationID: 1, Subject: []byte("app.never"), TimeoutMs: 300}, 300 * time.Millisecond, "300ms"},
		{codec.Frame{Version: 2, Type: codec.TypeRequest, CorrelationID: 1, Subject: []byte("app.never")}, 40 * time.Millisecond, "40ms"},
		{v1(codec.TypeTaskQuery, "x"), 20 * time.Millisecond, "20ms"},
		{codec.Frame{Version: 2, Type: codec.TypeTaskQuery, CorrelationID: 1, TimeoutMs: 1}, time.Millisecond, "1ms"},
		{codec.Frame{Version: 2, Type: codec.TypeTaskSubmit, CorrelationID: 1, TimeoutMs: 1000}, time.Second, "1s"},
	} {
		start := time.Now()
		p.send(test.frame)
		info := p.expectError(test.frame.Version, test.frame.CorrelationID, codec.CodeTimeout, true)
		took := time.Since(start)
		if took < test.after || took > test.after+500*time.Millisecond {
			t.Errorf("timeout of %v was answered after %v", test.after, took)
		}
		if info.Message != "no reply within "+test.text {
			t.Errorf("message %q, want %q", info.Message, test.text)
		}
	}
}

// Goal: Alive tells a loop that turns from one that is stuck.
func TestAliveNoticesAStuckLoop(t *testing.T) {
	s := runNATS(t, nil)
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	g := runGateway(t, cfg)
	if err := g.Alive(t.Context()); err != nil {
		t.Fatalf("Alive = %v", err)
	}
	release := make(chan struct{})
	g.loops[1].post(func() { <-release })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Alive(ctx); err == nil || !strings.Contains(err.Error(), "event loop 1 does not turn") {
		t.Errorf("Alive with a stuck loop = %v", err)
	}
	close(release)
	if err := g.Alive(t.Context()); err != nil {
		t.Errorf("Alive once it turns again = %v", err)
	}
}

// Goal: a panic in the work on one frame is answered INTERNAL, counted, and ends there.
func TestPanicIsAnsweredInternal(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g, err := New(testConfig(t, s.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	defer g.Close() //nolint:errcheck // checked elsewhere
	waitReady(t, g)
	p := dial(t, g)
	l := g.loops[0]
	ids := l.ids
	l.post(func() { l.ids = idSet{} }) // the next look-up of a correlation id is out of range
	p.send(v2(codec.TypeRequest, 5, "app.x", "x"))
	p.expectError(2, 5, codec.CodeInternal, false)
	if n := g.Stats().InternalErrors; n != 1 {
		t.Errorf("%d internal errors counted, want 1", n)
	}
	l.post(func() { l.ids = ids })
	if err := g.Alive(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.send(v1(codec.TypeTaskSubmit, "still here"))
	p.expectOK(1, 0, "still here")
}

func TestLoopsArePinnedToTheirCPUs(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := 0; cpu < 1024 && len(cpus) < 2; cpu++ {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	s := runNATS(t, nil)
	cfg := testConfig(t, s.ClientURL())
	cfg.CPUs, cfg.Loops = cpus, len(cpus)
	g := runGateway(t, cfg)
	for i, l := range g.loops {
		got := make(chan unix.CPUSet, 1)
		l.post(func() {
			var set unix.CPUSet
			_ = unix.SchedGetaffinity(0, &set)
			got <- set
		})
		if set := <-got; set.Count() != 1 || !set.IsSet(cpus[i]) {
			t.Errorf("loop %d runs on %d CPUs, CPU %d among them: %v", i, set.Count(), cpus[i], set.IsSet(cpus[i]))
		}
	}
	bad := testConfig(t, s.ClientURL())
	bad.CPUs, bad.Loops = []int{1023}, 1
	unpinned, err := New(bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := unpinned.Start(); err == nil || !strings.Contains(err.Error(), "pinning loop 0 to CPU 1023") {
		t.Errorf("Start on a CPU that is not there = %v", err)
		_ = unpinned.Close()
	}
}

// Goal: the number of loops follows the CPUs that the Go runtime uses, which are those of the machine or the limit of the cgroup.
func TestDefaultLoopsFollowCPUs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for cpus, want := range map[int]int{1: 1, 2: 1, 3: 1, 4: 2, 15: 7, 16: 8, 64: 8} {
		runtime.GOMAXPROCS(cpus)
		if got := DefaultConfig().Loops; got != want {
			t.Errorf("%d CPUs: %d loops, want %d", cpus, got, want)
		}
	}
}

// Goal: with no descriptors left, accepting waits instead of ending the gateway, and goes on.
func TestAcceptSurvivesRunningOutOfDescriptors(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	before := dial(t, g)
	before.send(v1(codec.TypePing, ""))
	before.receive()
	late, err := net.Dial("unix", g.cfg.SocketPath) // the client's own descriptor
	if err != nil {
		t.Fatal(err)
	}
	_ = late.Close()
	eventually(t, "it is gone", func() bool { return g.Stats().Connections == 1 })

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client) //nolint:errcheck // the test is over
	low := limit
	low.Cur = uint64(client) // nothing above what is open
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	defer restore()
	fillers := fillDescriptors()
	errorsBefore := g.Stats().AcceptErrors
	if err := unix.Connect(client, &unix.SockaddrUnix{Name: g.cfg.SocketPath}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "accept fails", func() bool { return g.Stats().AcceptErrors > errorsBefore+1 })
	before.send(v1(codec.TypeTaskSubmit, "others go on"))
	before.expectOK(1, 0, "others go on")
	for _, fd := range fillers {
		_ = unix.Close(fd)
	}
	restore()
	ping := codec.AppendFrame(nil, &codec.Frame{Version: 1, Type: codec.TypePing})
	if _, err := unix.Write(client, ping); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 6)
	if n, err := unix.Read(client, answer); n != 6 || err != nil {
		t.Errorf("the waiting client read %d, %v", n, err)
	}
}

// fillDescriptors opens descriptors until there are no more.
func fillDescriptors() (fds []int) {
	for {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return fds
		}
		fds = append(fds, fd)
	}
}

func TestStartAndCloseMayBeCalledInAnyOrder(t *testing.T) {
	s := runNATS(t, nil)
	g, err := New(testConfig(t, s.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Alive(t.Context()); err == nil {
		t.Error("a gateway that was not started is alive")
	}
	if err := errors.Join(g.Start(), g.Close(), g.Close(), g.Drain(time.Second)); err != nil {
		t.Error(err)
	}
	if err := g.Start(); err == nil {
		t.Error("a closed gateway was started again")
	}
	unstarted, err := New(testConfig(t, s.ClientURL()))
	if err != nil {
		t.Fatal(err)
	}
	if err := unstarted.Close(); err != nil {
		t.Errorf("closing what was never started: %v", err)
	}
}

// Goal: closing while clients connect loses none of them: each sees the end of its stream, and is
// counted as gone.
func TestCloseWhileClientsConnect(t *testing.T) {
	t.Parallel()
	s := runNATS(t, nil)
	for range 30 {
		g, err := New(testConfig(t, s.ClientURL()))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		connected := make(chan []net.Conn, 1)
		go func() {
			var conns []net.Conn
			for {
				conn, err := net.Dial("unix", g.cfg.SocketPath)
				if err != nil {
					connected <- conns
					return
				}
				conns = append(conns, conn)
			}
		}()
		eventually(t, "a client is there", func() bool { return g.Stats().ConnectionsTotal > 0 })
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		for _, conn := range <-connected {
			_ = conn.SetDeadline(time.Now().Add(testTimeout))
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("a client was left hanging")
			}
			_ = conn.Close()
		}
		checkBalanced(t, g)
	}
}
