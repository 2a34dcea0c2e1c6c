package engine

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: clients that have ended their side and take nothing of what waits for them hold no handover up, and lose nothing by it.
func TestHandoverOfClientsThatEndAndDoNotRead(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	next := successor(t, g)
	halfClosed, babbling, bystander := dial(t, g), dial(t, g), dial(t, g)
	large := strings.Repeat("x", 900_000)
	for _, p := range []*peer{halfClosed, babbling} {
		p.send(v1(codec.TypeTaskSubmit, large))
	}
	eventually(t, "the answers wait", func() bool { st := g.Stats(); return st.Inflight == 0 && st.ClientBytesBuffered > 1_000_000 })
	if err := halfClosed.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	babbling.sendBytes(bytes.Repeat([]byte{0xff}, 64))
	finishing := func() (n int) {
		onLoop(t, g, func(l *loop) { l.eachSession(func(s *session) { n += count(s.finishing) }) })
		return n
	}
	eventually(t, "both are about to end", func() bool { return finishing() == 2 })
	given, took := handOver(t, g, next, 100*time.Millisecond)
	wantNil(t, "HandOver", given)
	wantNil(t, "TakeClients", took)
	bystander.send(v1(codec.TypeTaskSubmit, "after"))
	bystander.expectOK(1, 0, "after")
	halfClosed.expectOK(1, 0, large)
	halfClosed.expectEOF()
	babbling.expectOK(1, 0, large)
	if f := babbling.receive(); f.Type != codec.TypeResponseError {
		t.Errorf("got %v", f.Type)
	}
	babbling.expectEOF()
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Goal: while the process that takes over takes nothing, all that this one has left is served, and who connects; when it goes on,
// so does the handover, and nobody has noticed. Method: the other end acknowledges the sockets, and gets a client, which it says
// nothing about for a while.
func TestHandoverToOneThatFreezes(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	next := successor(t, g)
	const n = 5
	var peers []*peer
	for range n {
		peers = append(peers, dial(t, g))
	}
	for _, p := range peers {
		p.send(v1(codec.TypeTaskSubmit, "before"))
		p.expectOK(1, 0, "before")
	}
	given, i := offer(t, g, 10*time.Millisecond)
	if err := acknowledge(i.conn); err != nil {
		t.Fatal(err)
	}
	m, fds, err := receive(i.conn)
	if err != nil {
		t.Fatal(err)
	}
	newcomer := dial(t, g)
	peers = append(peers, newcomer)
	for _, p := range peers {
		p.send(v1(codec.TypeTaskSubmit, "meanwhile"))
	}
	newcomer.expectOK(1, 0, "meanwhile")
	eventually(t, "all but the one that is offered are served", func() bool { return g.Stats().Responses[outcomeOK] == 2*n })
	if st := g.Stats(); st.Connections != n+1 {
		t.Errorf("%d connections, want %d", st.Connections, n+1)
	}

	if err := next.Listen(i.socket); err != nil {
		t.Fatal(err)
	}
	i.listening = true
	if err := errors.Join(unix.SetNonblock(fds[0], true), acknowledge(i.conn)); err != nil {
		t.Fatal(err)
	}
	next.takeClient(fds[0], &m)
	got := make(chan error, 1)
	go func() {
		_, err := next.TakeClients(i, func() {})
		got <- err
	}()
	wantNil(t, "HandOver", given)
	wantNil(t, "TakeClients", got)
	if st := next.Stats(); st.ClientsTakenOver != n+1 {
		t.Errorf("%d clients taken over, want %d", st.ClientsTakenOver, n+1)
	}
	for _, p := range peers[:n] {
		p.expectOK(1, 0, "meanwhile")
	}
	for _, p := range peers {
		p.send(v1(codec.TypeTaskSubmit, "after"))
		p.expectOK(1, 0, "after")
	}
}

// Goal: a client that is on its way when the process that hands over is told to stop has one owner, whatever the moment: the
// one who takes over if its acknowledgement was first, also if nobody had read it yet, and else the other one, whose
// end the acknowledgement fails by.
func TestHandoverThatIsEnded(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	for _, acknowledged := range []bool{false, true} {
		g := runGateway(t, testConfig(t, s.ClientURL()))
		waitReady(t, g)
		p := dial(t, g)
		p.send(v1(codec.TypeTaskSubmit, "before"))
		p.expectOK(1, 0, "before")
		given, i := offer(t, g, testTimeout)
		if err := acknowledge(i.conn); err != nil {
			t.Fatal(err)
		}
		_, fds, err := receive(i.conn)
		if err != nil {
			t.Fatal(err)
		}
		if acknowledged {
			if err := acknowledge(i.conn); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Drain(testTimeout); err != nil {
			t.Error(err)
		}
		if err := <-given; err == nil {
			t.Error("HandOver says that it succeeded")
		}
		if !acknowledged {
			if err := acknowledge(i.conn); !isEnd(err) {
				t.Errorf("acknowledging too late: %v", err)
			}
		}
		if left := g.Stats().Connections; left != uint64(count(!acknowledged)) {
			t.Errorf("acknowledged: %v: %d connections are left", acknowledged, left)
		}
		if _, err := os.Lstat(g.cfg.SocketPath); err != nil {
			t.Errorf("the path is not left to the other process: %v", err)
		}
		closeAll(fds)
		i.Close()
	}
}

// Goal: of two gateways in a takeover that is cut short the one that sees the end remains, and removes the path at its own; the
// other one leaves it.
func TestPathIsOfTheOneThatRemains(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	arrived := make(chan struct{}, 2)
	answerWith(t, nc, "app.never", func(*nats.Msg) { arrived <- struct{}{} })
	for _, oldEnds := range []bool{false, true} {
		g := runGateway(t, testConfig(t, s.ClientURL()))
		waitReady(t, g)
		next := successor(t, g)
		p := dial(t, g)
		p.send(v2(codec.TypeRequest, 1, "app.never", "")) // holds the handover up
		<-arrived
		given, i := offer(t, g, testTimeout)
		if err := next.TakeSocket(i); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := next.TakeClients(i, func() {})
			got <- err
		}()
		remains, ends := g, next
		if oldEnds {
			remains, ends = next, g
		} else {
			_ = i.conn.Close()
		}
		if err := ends.Drain(200 * time.Millisecond); oldEnds != (err != nil) {
			t.Errorf("Drain: %v", err)
		}
		if err := ends.Close(); err != nil {
			t.Error(err)
		}
		if err := <-given; err == nil {
			t.Error("HandOver: no error")
		}
		if err := <-got; errors.Is(err, ErrPredecessorEnded) != oldEnds {
			t.Errorf("the old one ends: %v; TakeClients: %v", oldEnds, err)
		}
		newcomer := dial(t, remains)
		newcomer.send(v1(codec.TypeTaskSubmit, "after"))
		newcomer.expectOK(1, 0, "after")
		if err := remains.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(g.cfg.SocketPath); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the path is still there: %v", err)
		}
	}
}
