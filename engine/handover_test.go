package engine

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// connected returns the two ends of a Unix stream connection.
func connected(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// successor prepares a gateway that is to take over from g.
func successor(t *testing.T, g *Gateway) *Gateway {
	t.Helper()
	cfg := g.cfg
	cfg.Loops = 1
	return successorWith(t, cfg)
}

func successorWith(t *testing.T, cfg Config) *Gateway {
	t.Helper()
	next, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Prepare(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		checkBalanced(t, next)
	})
	waitReady(t, next)
	return next
}

// handOver has next take over from g, and returns what tells how each of them ended.
func handOver(t *testing.T, g, next *Gateway, timeout time.Duration) (given, took <-chan error) {
	t.Helper()
	given, i := offer(t, g, timeout)
	if err := next.TakeSocket(i); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := next.TakeClients(i, func() {})
		got <- err
	}()
	return given, got
}

// offer has g hand over, and returns what tells how that ends, and what the other end gets first.
func offer(t *testing.T, g *Gateway, timeout time.Duration) (given <-chan error, i *Inheritance) {
	t.Helper()
	old, young := connected(t)
	gave := make(chan error, 1)
	go func() {
		err := AwaitHandover(old, testTimeout)
		if err == nil {
			_, err = g.HandOver(old, Legacy{}, func() {}, timeout)
		}
		gave <- err
	}()
	i, err := Inherit(young)
	if err != nil {
		t.Fatal(err)
	}
	return gave, i
}

func wantNil(t *testing.T, what string, from <-chan error) {
	t.Helper()
	select {
	case err := <-from:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(testTimeout):
		t.Fatalf("%s: no end", what)
	}
}

// Goal: a handover is noticed by no client, whatever state it is in, and leaves nothing behind in the gateway that ends.
func TestHandoverIsNotNoticed(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	slow := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { slow <- m })
	quick := make(chan *nats.Msg, 100)
	answerWith(t, nc, "app.quick", func(m *nats.Msg) { quick <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops, cfg.MaxInflightPerConnection, cfg.PauseMax = 2, 4, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	next := successor(t, g)

	idle, torn, deaf, busy, waiting, long := dial(t, g), dial(t, g), dial(t, g), dial(t, g), dial(t, g), dial(t, g)
	idle.send(v1(codec.TypePing, ""))
	idle.receive()
	tornFrame := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte("torn")})
	torn.sendBytes(tornFrame[:9])
	large := strings.Repeat("x", 100_000)
	const deafFrames = 100
	deaf.sendAside(repeat(deafFrames, func(int) codec.Frame { return v1(codec.TypeTaskSubmit, large) })...)
	busy.send(v2(codec.TypeRequest, 1, "app.quick", "1"), v2(codec.TypeRequest, 2, "app.quick", "2"))
	const waitingFrames = 30
	waiting.sendAside(repeat(waitingFrames, func(i int) codec.Frame { return v2(codec.TypeRequest, uint64(i), "app.slow", "") })...)
	long.send(v2(codec.TypeRequest, 1, "app.slow", "long"))
	eventually(t, "all is under way", func() bool {
		st := g.Stats()
		return len(quick) == 2 && len(slow) == 5 && st.PausedConnections >= 1 && st.ClientBytesBuffered > 1_000_000
	})

	given, took := handOver(t, g, next, testTimeout)
	for range 2 {
		_ = (<-quick).Respond([]byte("done"))
	}
	for id := range uint64(2) {
		busy.expectOK(2, id+1, "done")
	}
	// Those that are still not at rest go on here, and are served.
	long.send(v2(codec.TypePing, 2, "", "meanwhile"))
	if f := long.receive(); f.Type != codec.TypePong {
		t.Fatalf("got %v", f.Type)
	}
	eventually(t, "all but the two that wait are taken over", func() bool { return next.Stats().ClientsTakenOver == 4 })
	newcomer := dial(t, next)
	newcomer.send(v1(codec.TypeTaskSubmit, "hello"))
	newcomer.expectOK(1, 0, "hello")
	go func() {
		for m := range slow {
			_ = m.Respond([]byte("slow"))
		}
	}()
	t.Cleanup(func() { close(slow) })
	long.expectOK(2, 1, "slow")
	for range waitingFrames {
		if f := waiting.receive(); f.Type != codec.TypeResponseOK {
			t.Fatalf("got %v %s", f.Type, f.Payload)
		}
	}
	wantNil(t, "HandOver", given)
	wantNil(t, "TakeClients", took)
	if st := g.Stats(); st.Connections != 0 || st.ClientBytesBuffered != 0 {
		t.Errorf("left behind: %d connections, %d bytes", st.Connections, st.ClientBytesBuffered)
	}
	if err := g.Drain(testTimeout); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}

	torn.sendBytes(tornFrame[9:])
	torn.expectOK(1, 0, "torn")
	for range deafFrames {
		if f := deaf.receive(); f.Type != codec.TypeResponseOK || !bytes.Equal(f.Payload, []byte(large)) {
			t.Fatalf("got %v %.100s", f.Type, f.Payload)
		}
	}
	for _, p := range []*peer{idle, torn, busy, waiting, long, dial(t, next)} {
		p.send(v1(codec.TypeTaskSubmit, "after"))
		p.expectOK(1, 0, "after")
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(cfg.SocketPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Goal: a request that takes longer than the drain may is answered, and its client passed on all the same.
func TestHandoverOfALongRequest(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "app.never", func(*nats.Msg) {})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	next := successor(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.never", ""))
	eventually(t, "it is in flight", func() bool { return g.Stats().Inflight == 1 })
	given, took := handOver(t, g, next, 200*time.Millisecond)
	p.expectError(2, 1, codec.CodeShuttingDown, true)
	wantNil(t, "HandOver", given)
	wantNil(t, "TakeClients", took)
	p.send(v2(codec.TypePing, 2, "", ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Fatalf("got %v", f.Type)
	}
}

// Goal: who may connect is for the new process to say, also of those that are connected: who may not is told so after what was
// in flight, and nothing more is served for it. Method: one client has a frame read that waits behind a request, which the
// handover does not wait for.
func TestHandoverAppliesWhoMayConnect(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.never", func(*nats.Msg) {})
	answerWith(t, nc, "app.more", func(m *nats.Msg) { t.Errorf("%q was served", m.Data) })
	cfg := testConfig(t, s.ClientURL())
	openToAll(t, &cfg)
	cfg.AllowUIDs, cfg.MaxInflightPerConnection, cfg.PauseMax = []uint32{1001, 1002}, 1, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	stricter := cfg
	stricter.AllowUIDs = []uint32{1002}
	stricter.Peers = []PeerRule{{ID: 1002, Refuse: true}}
	next := successorWith(t, stricter)

	ann, bob, us := dialAs(t, g, user{uid: 1001, gid: 1001}), dialAs(t, g, user{uid: 1002, gid: 1002}), dial(t, g)
	ann.send(v2(codec.TypeRequest, 1, "app.never", ""), v2(codec.TypeRequest, 2, "app.more", "read before"))
	bob.ping()
	bob.sendBytes([]byte{0, 0}) // of a frame
	us.ping()
	eventually(t, "a frame waits that was read", func() bool { return pauses(g, pausedInflight) == 1 })
	given, took := handOver(t, g, next, 100*time.Millisecond)
	ann.expectError(2, 1, codec.CodeShuttingDown, true)
	ann.expectRefusal("uid 1001 is not allowed")
	bob.expectRefusal("uid 1002 is refused")
	wantNil(t, "HandOver", given)
	wantNil(t, "TakeClients", took)
	us.ping()
	if err := nc.Flush(); err != nil { // what was published has come
		t.Error(err)
	}
}

// Goal: if the process that takes over dies in the middle, the other one serves on, all that was not taken.
func TestHandoverThatFails(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	for _, clientsTaken := range []int{-1, 0, 1} {
		g := runGateway(t, testConfig(t, s.ClientURL()))
		waitReady(t, g)
		const n = 5
		var peers []*peer
		for range n {
			p := dial(t, g)
			p.send(v1(codec.TypeTaskSubmit, "before"))
			p.expectOK(1, 0, "before")
			peers = append(peers, p)
		}
		peers[0].sendBytes([]byte{0, 0}) // of a frame
		given, i := offer(t, g, testTimeout)
		young := i.conn
		i.Close()
		if clientsTaken >= 0 {
			if err := acknowledge(young); err != nil {
				t.Fatal(err)
			}
		}
		for range clientsTaken {
			_, fds, err := receive(young)
			if err != nil {
				t.Fatal(err)
			}
			closeAll(fds)
			if err := acknowledge(young); err != nil {
				t.Fatal(err)
			}
		}
		_ = young.Close()
		if err := <-given; err == nil {
			t.Error("HandOver says that it succeeded")
		}
		served := 0
		for k, p := range append(peers, dial(t, g)) {
			frame := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte("after")})
			if k == 0 {
				frame = frame[2:]
			}
			if _, err := p.Write(frame); err != nil {
				continue // it died with the process that had taken it
			}
			if f, err := p.tryReceive(); err == nil && string(f.Payload) == "after" {
				served++
			}
		}
		if want := n + 1 - max(clientsTaken, 0); served != want {
			t.Errorf("%d clients taken: %d are served, want %d", clientsTaken, served, want)
		}
		eventually(t, "nobody is paused", func() bool { return g.Stats().PausedConnections == 0 })
	}
}

// Goal: the last message is sent well also if the other process takes it and closes at once.
func TestHandoverEndsWellWhenTheOtherIsFaster(t *testing.T) {
	for range 300 {
		old, young := connected(t)
		closed := make(chan error, 1)
		go func() {
			_, _, err := receive(young)
			if err == nil {
				err = acknowledge(young)
			}
			closed <- errors.Join(err, young.Close())
		}()
		if err := sendMessage(old, message{kind: messageDone}); err != nil {
			t.Fatal(err)
		}
		if err := awaitTaken(old); err != nil {
			t.Fatal(err)
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		_ = old.Close()
	}
}

// Goal: if the other process dies when it has all clients, before it has said so, this one serves who comes.
func TestHandoverWithoutAnEnd(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	given, i := offer(t, g, testTimeout)
	young := i.conn
	i.Close()
	if err := acknowledge(young); err != nil {
		t.Fatal(err)
	}
	_ = young.Close()
	if err := <-given; err == nil {
		t.Error("HandOver says that it succeeded")
	}
	p := dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "after"))
	p.expectOK(1, 0, "after")
}

// Goal: what is no handover message is refused, and no descriptor stays open.
func FuzzHandoverMessage(f *testing.F) {
	f.Add([]byte{messageClient, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 'i', 'n', 'o'})
	f.Add([]byte{messageDone, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{messageClient, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, sent []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fds[0]), "end")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := unix.Write(fds[1], sent); err != nil && len(sent) > 0 {
			t.Skip("longer than a socket's buffer")
		}
		_ = unix.Close(fds[1])
		m, got, err := receive(conn.(*net.UnixConn))
		closeAll(got)
		if err == nil && messageHeaderBytes+len(m.in)+len(m.out) > len(sent) {
			t.Errorf("%d bytes made a message of %d", len(sent), len(m.in)+len(m.out))
		}
	})
}
