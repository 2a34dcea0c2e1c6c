package engine

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: a client is told of as it is: who it is, what it has sent and been sent, what is in flight.
func TestClientsTellsWhatAClientHasUsed(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	cfg.MaxInflightPerConnection = 1
	g := runGateway(t, cfg)
	waitReady(t, g)
	first, second := dial(t, g), dial(t, g)
	first.send(v1(codec.TypePing, ""))
	first.receive()
	second.send(v2(codec.TypePing, 1, "", "12345"), v2(codec.TypeRequest, 2, "slow", "x"))
	pong := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version2, Type: codec.TypePong, CorrelationID: 1, Payload: []byte("12345")})
	second.receive()
	message := <-asked

	infos, err := g.Clients(t.Context())
	if err != nil || len(infos) != 2 {
		t.Fatalf("%+v, %v", infos, err)
	}
	for i, want := range []ClientInfo{
		{ID: 1, Version: 1, Requests: 1, BytesIn: 6, BytesOut: 6},
		{ID: 2, Version: 2, Requests: 2, BytesIn: uint64(2*codec.HeaderBytesV2 + 5 + 4 + 1), BytesOut: uint64(len(pong)), Inflight: 1},
	} {
		got := infos[i]
		if got.Age <= 0 || got.Idle < 0 || got.Idle > got.Age {
			t.Errorf("client %d: age %v, idle %v", got.ID, got.Age, got.Idle)
		}
		want.Loop, want.UID, want.GID, want.PID, want.Rule = i, uint32(os.Getuid()), uint32(os.Getgid()), int32(os.Getpid()), "others"
		want.Age, want.Idle = got.Age, got.Idle
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	_ = message.Respond([]byte("y"))
	second.expectOK(2, 2, "y")
	second.send(v2(codec.TypeRequest, 3, "slow", "x"), v2(codec.TypeRequest, 4, "slow", "x"))
	message = <-asked
	if infos, err = g.Clients(t.Context()); err != nil || !slices.Equal(infos[1].Paused, []string{"inflight"}) || infos[1].Inflight != 1 {
		t.Errorf("%+v, %v; want one that is paused", infos, err)
	}
	_ = message.Respond(nil)
	_ = (<-asked).Respond(nil)
	second.receive()
	second.receive()
	if infos, err = g.Clients(t.Context()); err != nil || infos[1].Inflight != 0 {
		t.Errorf("%+v, %v", infos, err)
	}
}

// Goal: a killed client sees the end of its stream at once, what it had in flight is abandoned, and others are left alone.
func TestKill(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "slow", func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	victim, other := dial(t, g), dial(t, g)
	victim.send(v2(codec.TypeRequest, 1, "slow", "x"))
	message := <-asked
	if err := g.Kill(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	victim.expectEOF()
	_ = message.Respond(nil)
	if err := g.Kill(t.Context(), 1); !errors.Is(err, ErrNoClient) {
		t.Errorf("killed twice: %v", err)
	}
	other.send(v1(codec.TypePing, ""))
	other.receive()
	eventually(t, "the reply is late", func() bool { return g.Stats().LateReplies == 1 })
	if s := g.Stats(); s.ClientsKilled != 1 || s.Abandoned != 1 || s.Connections != 1 {
		t.Errorf("%d killed, %d abandoned, %d connected", s.ClientsKilled, s.Abandoned, s.Connections)
	}
}

// Goal: while a loop is stuck the others are told of, and the error names the one; what needs no loop answers as ever.
func TestInspectWithAStuckLoop(t *testing.T) {
	s := runNATS(t, nil)
	cfg := testConfig(t, s.ClientURL())
	cfg.Loops = 2
	g := runGateway(t, cfg)
	waitReady(t, g)
	for range 2 {
		p := dial(t, g)
		p.send(v1(codec.TypePing, ""))
		p.receive()
	}
	stuck, release := make(chan struct{}), make(chan struct{})
	g.loops[0].post(func() {
		close(stuck)
		<-release
	})
	<-stuck
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	infos, err := g.Clients(ctx)
	if err == nil || !strings.Contains(err.Error(), "event loop 0 does not answer") || len(infos) != 1 || infos[0].Loop != 1 {
		t.Errorf("%+v, %v", infos, err)
	}
	if err := g.Kill(ctx, 4711); err == nil || errors.Is(err, ErrNoClient) {
		t.Errorf("Kill: %v", err)
	}
	if links := g.Links(t.Context()); len(links) != 2 || !links[0].Up || links[0].RoundTrip != 0 || links[1].RoundTrip <= 0 {
		t.Errorf("%+v", links)
	}
}

// Goal: a link tells its server while it is up, and why it is down when it is.
func TestLinks(t *testing.T) {
	s := runNATS(t, nil)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	up := g.Links(t.Context())[0]
	if !up.Up || up.Server != s.Addr().String() || up.ServerName != s.Name() || up.ServerID != s.ID() || up.RoundTrip <= 0 || up.Reconnects != 0 || up.LastError != "" {
		t.Errorf("%+v", up)
	}
	s.Shutdown()
	eventually(t, "the link is down", func() bool { return g.Ready() != nil })
	down := g.Links(t.Context())[0]
	if down.Up || down.Server != up.Server || !down.Since.After(up.Since) || down.LastError == "" || down.LastErrorAt.Before(down.Since) || down.RoundTrip != 0 {
		t.Errorf("%+v", down)
	}
}

// Goal: the latest errors are remembered with who got them, the latest first, and the oldest make room.
func TestRecentErrors(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	g := runGateway(t, cfg)
	if list, err := g.RecentErrors(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	before := time.Now()
	p := dial(t, g)
	for range recentErrorsMax {
		p.send(v2(codec.TypeRequest, 1, "a..b", ""))
		p.expectError(2, 1, codec.CodeInvalidPayload, false)
	}
	p.send(v1(codec.TypeTaskQuery, ""))
	p.expectError(1, 0, codec.CodeUnavailable, false)
	list, err := g.RecentErrors(t.Context())
	if err != nil || len(list) != recentErrorsMax {
		t.Fatalf("%d errors, %v", len(list), err)
	}
	for i, e := range list {
		want := RecentError{At: e.At, Client: 1, UID: uint32(os.Getuid()), Type: "request", Code: "INVALID_PAYLOAD"}
		if i == 0 {
			want.Type, want.Code = "query", "UNAVAILABLE"
		}
		if e != want || e.At.Before(before.Add(-time.Second)) || e.At.After(time.Now()) {
			t.Errorf("%d: got %+v, want %+v", i, e, want)
		}
	}
}

// Goal: noting an error allocates nothing.
func TestRecentErrorsAlloc(t *testing.T) {
	var ring errorRing
	s := &session{id: 7}
	if n := testing.AllocsPerRun(1000, func() { ring.note(1, s, labelQuery, 3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
