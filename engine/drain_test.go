package engine

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: a drain that waits for nothing still tells the clients why, flushes what was published, and has no more to complain
// of than the requests that it gave up. Method: drain timeouts that are over before a loop can turn.
func TestDrainWithoutTimeToWait(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Nanosecond} {
		s := runNATS(t, nil)
		nc := responder(t, s.ClientURL())
		answerWith(t, nc, "app.never", func(*nats.Msg) {})
		sink, err := nc.SubscribeSync("app.sink")
		if err := errors.Join(err, nc.Flush()); err != nil {
			t.Fatal(err)
		}
		cfg := testConfig(t, s.ClientURL())
		cfg.Loops = 2
		g := runGateway(t, cfg)
		waitReady(t, g)
		var peers []*peer
		for range 4 { // some on each loop
			p := dial(t, g)
			p.send(v2(codec.TypePublish, 1, "app.sink", "kept"), v2(codec.TypeRequest, 2, "app.never", "x"))
			p.expectOK(2, 1, "")
			peers = append(peers, p)
		}
		eventually(t, "all requests are in flight", func() bool { return g.Stats().Inflight == 4 })

		err = g.Drain(timeout)
		if want := "engine: 4 requests were not answered within the drain timeout of " + timeout.String(); err == nil || err.Error() != want {
			t.Errorf("Drain = %v, want %q", err, want)
		}
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, p := range peers {
			p.expectError(2, 2, codec.CodeShuttingDown, true)
			p.expectEOF()
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if n, _, _ := sink.Pending(); n != 4 {
			t.Errorf("%d of 4 published messages arrived", n)
		}
	}
}

// Goal: a loop that does not turn is named, and the clients of the others are still told that the gateway ends.
func TestDrainWithAStuckLoop(t *testing.T) {
	t.Parallel()
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "app.never", func(*nats.Msg) {})
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	g := runGateway(t, cfg)
	waitReady(t, g)
	var peers [2]*peer // by loop: who has the fewest clients gets the next one
	for n := range peers {
		p := dial(t, g)
		p.send(v2(codec.TypeRequest, 1, "app.never", "x"))
		eventually(t, "the request is in flight", func() bool { return g.Stats().Inflight == uint64(n+1) })
		for i, l := range g.loops {
			if l.inflight() > 0 && peers[i] == nil {
				peers[i] = p
			}
		}
	}
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(release)
	g.loops[0].post(func() { <-stuck })
	err := g.Drain(time.Millisecond)
	// The flush of the stuck loop's connection fails too, in one way or another.
	want := "event loop 0 does not turn\nengine: 2 requests were not answered within the drain timeout of 1ms\nengine: flushing to NATS: "
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("Drain = %v, want %s and a reason", err, want)
	}
	peers[1].expectError(2, 1, codec.CodeShuttingDown, true)
	release()
	if f := peers[0].receive(); f.Type != codec.TypeResponseError {
		t.Errorf("got %v", f.Type)
	}
}

// Goal: a client that does not read its answers holds a drain up for two seconds, whatever the timeout is, and what it loses
// is named; one that reads, however slowly, gets all of its answers.
func TestDrainGivesUpClientsThatTakeNothing(t *testing.T) {
	t.Parallel()
	s := runNATS(t, nil)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	const pings, payloadBytes = 48, 64 << 10
	slow, dead := dial(t, g), dial(t, g)
	ping := v2(codec.TypePing, 1, "", strings.Repeat("z", payloadBytes))
	for _, p := range []*peer{slow, dead} {
		for range pings {
			p.send(ping)
		}
	}
	eventually(t, "all answers wait", func() bool { return g.Stats().Requests[labelPing] == 2*pings })

	drained := make(chan error, 1)
	began := time.Now()
	go func() { drained <- g.Drain(testTimeout) }()
	for range pings {
		time.Sleep(drainFlush * 3 / 2 / pings) // the pace of a reader that is slow
		if f := slow.receive(); len(f.Payload) != payloadBytes {
			t.Fatalf("an answer of %d bytes", len(f.Payload))
		}
	}
	err := <-drained
	if took := time.Since(began); took < drainFlush || took > testTimeout/2 {
		t.Errorf("the drain took %v", took)
	}
	if err == nil || !strings.Contains(err.Error(), "bytes of answers were not taken by their clients") {
		t.Errorf("Drain = %v", err)
	}
	_ = g.Close()
	slow.expectEOF()
	if n, _ := io.Copy(io.Discard, dead); n == 0 || n >= pings*payloadBytes {
		t.Errorf("the client that did not read finds %d bytes, want what its socket holds", n)
	}
}

// Goal: who takes something within drainFlush is waited for, and each for himself.
func TestPatience(t *testing.T) {
	var wait patience
	start := time.Now()
	for _, step := range []struct {
		after time.Duration
		all   []backlog
		want  bool
	}{
		{0, []backlog{{1, 100, 7}, {-1, 5, 0}}, true},
		{drainFlush - 1, []backlog{{1, 100, 7}, {-1, 5, 0}}, true},
		{drainFlush, []backlog{{1, 100, 7}, {-1, 5, 0}}, false},
		{drainFlush + 1, []backlog{{1, 100, 7}, {-1, 6, 0}}, true}, // NATS takes something
		{2 * drainFlush, []backlog{{1, 100, 7}, {-1, 6, 0}}, true},
		{2*drainFlush + 1, []backlog{{1, 100, 7}, {-1, 6, 0}}, false},
		{2*drainFlush + 2, []backlog{{1, 100, 6}}, true}, // the client reads what is in its socket
		{3*drainFlush + 2, []backlog{{1, 100, 6}}, false},
		{3*drainFlush + 3, []backlog{{1, 100, 6}, {2, 0, 0}}, true}, // somebody new
	} {
		if got := wait.isWorthwhile(step.all, start.Add(step.after)); got != step.want {
			t.Errorf("after %v, %v: worthwhile: %v, want %v", step.after, step.all, got, step.want)
		}
	}
	if wait.isWorthwhile(nil, start) {
		t.Error("it is worthwhile to wait for nobody")
	}
}
