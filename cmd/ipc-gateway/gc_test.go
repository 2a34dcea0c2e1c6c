package main

import (
	"bytes"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// collection is the line that the Go runtime prints for each garbage collection, told by GODEBUG=gctrace=1.
var collection = regexp.MustCompile(`(?m)^gc \d+ @`)

// Goal: a gateway under load makes no garbage, so it never stops to collect any. Method: the real program with the runtime's
// own settings and its own count of collections, under three seconds of requests and publishes of many connections, after as much
// load as its buffers need to find their sizes.
func TestNoGarbageUnderLoad(t *testing.T) {
	c := natsServer(t)
	respond(t, c, "beamline.router.v1.decide", echo)
	g := serve(t, []string{"GODEBUG=gctrace=1"}, "--nats-url", c.ConnectedUrl())
	g.waitReady(http.StatusOK, "Ready")
	collections := func() int { return len(collection.FindAllString(g.stderr.String(), -1)) }

	var conns [32]*client.Conn
	for i := range conns {
		conn, err := client.Dial(t.Context(), g.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	load := func(duration time.Duration) int {
		var wait sync.WaitGroup
		var requests atomic.Int64
		for _, conn := range conns {
			wait.Go(func() { requests.Add(int64(askFor(t, conn, duration))) })
		}
		wait.Wait()
		return int(requests.Load())
	}
	load(time.Second)
	before := collections()
	if before == 0 {
		t.Fatalf("no collection at the start: the test does not see them: %s", g.stderr.String())
	}
	requests := load(3 * time.Second)
	if during := collections() - before; during > 0 {
		t.Errorf("%d garbage collections in %d requests, want none: %s", during, requests, g.stderr.String())
	}
	t.Logf("%d collections before, %d requests", before, requests)
}

// askFor sends requests and publishes of several sizes, in windows, until duration is over, and returns how many.
func askFor(t *testing.T, conn *client.Conn, duration time.Duration) (requests int) {
	const window = 16
	payload := bytes.Repeat([]byte("p"), 1024)
	for end := time.Now().Add(duration); time.Now().Before(end); requests += window {
		for id := range window {
			f := codec.Frame{Version: codec.Version2, Type: codec.TypeTaskSubmit, CorrelationID: uint64(id), Payload: payload[:64<<(id%5)]}
			if id%4 == 0 {
				f.Type, f.Subject = codec.TypePublish, []byte("app.sink")
			}
			if err := conn.Send(&f); err != nil {
				t.Error(err)
				return requests
			}
		}
		for range window {
			if answer, err := conn.Receive(); err != nil || answer.Type != codec.TypeResponseOK {
				t.Errorf("answered %v %.200s, %v", answer.Type, answer.Payload, err)
				return requests
			}
		}
	}
	return requests
}
