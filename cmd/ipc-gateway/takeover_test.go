package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// succeed starts a gateway that takes over from g, and waits until g has ended by itself.
func succeed(t *testing.T, g *gateway, args ...string) *gateway {
	t.Helper()
	next := &gateway{socket: g.socket}
	args = append([]string{"serve", "--takeover", "--socket", g.socket, "--probe-addr", "127.0.0.1:0"}, args...)
	next.process = start(t, nil, args...)
	next.waitLog("msg=serving")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway that took over: %s", next.stderr.String())
		}
	})
	next.probe = "http://" + probeAddress.FindStringSubmatch(next.stderr.String())[1]
	if code := g.wait(); code != 0 {
		t.Fatalf("the gateway that handed over: exit code %d: %s", code, g.stderr.String())
	}
	next.waitLog("the takeover is complete")
	return next
}

// load is clients that send requests one after the other, and check every answer.
type load struct {
	t        *testing.T
	socket   string
	stop     atomic.Bool
	answered atomic.Int64
	clients  sync.WaitGroup
}

func (l *load) check(what string, sent *codec.Frame, answer codec.Frame, err error) bool {
	switch {
	case err != nil:
		l.t.Errorf("%s: %v", what, err)
	case answer.Type != codec.TypeResponseOK || answer.CorrelationID != sent.CorrelationID || string(answer.Payload) != string(sent.Payload):
		l.t.Errorf("%s: sent %q, got %v id %d %.200q", what, sent.Payload, answer.Type, answer.CorrelationID, answer.Payload)
	default:
		l.answered.Add(1)
		return true
	}
	return false
}

// lasting is a client with window requests in flight on one connection.
func (l *load) lasting(version byte, window int) {
	c, err := client.Dial(context.Background(), l.socket)
	if err != nil {
		l.t.Error(err)
		return
	}
	defer c.Close()
	frames := make([]codec.Frame, window)
	send := func(n uint64) error {
		f := &frames[n%uint64(window)]
		*f = codec.Frame{Version: version, Type: codec.TypeTaskQuery, Payload: fmt.Appendf(nil, "request %d", n)}
		if version == codec.Version2 {
			f.CorrelationID = n
		}
		return c.Send(f)
	}
	next := uint64(0)
	for ; next < uint64(window); next++ {
		if err := send(next); err != nil {
			l.t.Error(err)
			return
		}
	}
	for received := uint64(0); received < next; received++ {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		answer, err := c.Receive()
		sent := &frames[received%uint64(window)]
		if version == codec.Version2 {
			sent = &frames[answer.CorrelationID%uint64(window)]
		}
		if !l.check("lasting client", sent, answer, err) {
			return
		}
		if l.stop.Load() {
			continue
		}
		slot := next
		if version == codec.Version2 {
			slot = answer.CorrelationID + uint64(window) // the slot that is free
		}
		if err := send(slot); err != nil {
			l.t.Error(err)
			return
		}
		next++
	}
}

// fleeting is a client that connects for each request.
func (l *load) fleeting() {
	for n := 0; !l.stop.Load(); n++ {
		c, err := client.Dial(context.Background(), l.socket)
		if err != nil {
			l.t.Error(err)
			return
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		f := codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: fmt.Appendf(nil, "request %d", n)}
		answer, err := c.Do(&f)
		ok := l.check("fleeting client", &f, answer, err)
		_ = c.Close()
		if !ok {
			return
		}
	}
}

// Goal: twenty takeovers in a row under load: no connect fails, no request is lost, refused or answered wrongly, no
// connection ends, and each predecessor ends by itself.
func TestTakeoversUnderLoad(t *testing.T) {
	nc := natsServer(t)
	respond(t, nc, "beamline.router.v1.decide", echo)
	g := serve(t, nil, "--nats-url", nc.ConnectedUrl(), "--loops", "2")
	g.waitReady(200, "")
	l := &load{t: t, socket: g.socket}
	for i := range 4 {
		l.clients.Go(func() { l.lasting(byte(codec.Version1+i%2), 1+7*(i/2)) })
		l.clients.Go(l.fleeting)
	}
	probe := g.probe
	const takeovers = 20
	for i := range takeovers {
		before := l.answered.Load()
		waitFor(t, func() error {
			if l.answered.Load() < before+200 {
				return errors.New("no requests are answered")
			}
			return nil
		})
		g = succeed(t, g, "--nats-url", nc.ConnectedUrl(), "--loops", fmt.Sprint(1+i%2))
		if t.Failed() {
			break
		}
	}
	l.stop.Store(true)
	l.clients.Wait()
	t.Logf("%d requests over %d takeovers", l.answered.Load(), takeovers)
	if g.probe != probe {
		t.Errorf("the probe was at %s, is at %s", probe, g.probe)
	}
	wantConsole(t, g, "show clients")
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	if left, _ := filepath.Glob(filepath.Dir(g.socket) + "/*"); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// Goal: who cannot take over leaves the gateway that serves as it is.
func TestTakeoverThatCannotBe(t *testing.T) {
	nc := natsServer(t)
	respond(t, nc, "beamline.router.v1.decide", echo)
	g := serve(t, nil, "--nats-url", nc.ConnectedUrl())
	g.waitReady(200, "")
	taken := serve(t, nil, "--nats-url", nc.ConnectedUrl())
	p := start(t, nil, "serve", "--takeover", "--socket", g.socket, "--probe-addr", strings.TrimPrefix(taken.probe, "http://"), "--nats-url", nc.ConnectedUrl())
	if code := p.wait(); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	wantAll(t, p.stderr.String(), "nothing was taken over, the other gateway serves on", "--probe-addr")
	g.waitLog("the takeover failed, serving on")
	if code, _, stderr := runInput(map[string]string{"IPC_SOCKET_PATH": g.socket}, "", "send", "x"); code != 0 {
		t.Error(stderr)
	}
	wantConsole(t, g, "show clients")
	g.waitReady(200, "")
}

// Goal: without a gateway to take over from, it starts like any other.
func TestTakeoverFromNobody(t *testing.T) {
	g := serve(t, nil, "--takeover")
	g.waitLog("there is no gateway to take over from")
	g.signal(os.Interrupt)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
}
