package engine

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// watchedFor returns for what the kernel watches the paused client of a gateway with one loop, and how many bytes it has from it that nobody has
// read; zeros while no client is paused.
func watchedFor(t *testing.T, g *Gateway) (events uint32, unread int) {
	t.Helper()
	fd := -1
	onLoop(t, g, func(l *loop) {
		for _, s := range l.watch.sessions {
			if s != nil && s.paused&pausedForReal != 0 {
				fd = s.fd
			}
		}
	})
	if fd < 0 {
		return 0, 0
	}
	unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", g.loops[0].watch.epoll))
	if err != nil {
		t.Fatal(err)
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		var watched int
		if _, err := fmt.Sscanf(lines.Text(), "tfd: %d events: %x", &watched, &events); err == nil && watched == fd {
			return events, unread
		}
	}
	t.Fatalf("descriptor %d is not watched", fd)
	return 0, 0
}

// Goal: pausing through the epoll descriptor is sound. A paused client stays in the set, but not for input: what it sends
// stays in its socket, the loop is not woken by it, and when it may go on nothing is missing. What becomes of one that hangs
// up meanwhile is in TestPausedClientGoesAway.
func TestPausedClientIsNotRead(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 100)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxInflightPerConnection, cfg.PauseMax = 1, time.Hour
	g := runGateway(t, cfg)
	waitReady(t, g)
	p, other := dial(t, g), dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "0"), v1(codec.TypeTaskSubmit, "1")) // the second one waits for room
	eventually(t, "the client is paused", func() bool { events, _ := watchedFor(t, g); return events != 0 && events&unix.EPOLLIN == 0 })

	const more = 20
	p.send(repeat(more, func(i int) codec.Frame { return v1(codec.TypeTaskSubmit, strings.Repeat("x", i)) })...)
	in := g.Stats().ClientBytesIn
	const pings = 50
	for range pings {
		other.send(v1(codec.TypePing, ""))
		other.receive()
	}
	size := len(codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypePing}))
	if read := g.Stats().ClientBytesIn - in; read != uint64(pings*size) {
		t.Errorf("%d bytes were read, want the %d of the other client", read, pings*size)
	}
	if events, unread := watchedFor(t, g); unread == 0 || events&unix.EPOLLIN != 0 || events&unix.EPOLLET == 0 {
		t.Errorf("%d bytes are in the socket, which is watched for %#x", unread, events)
	}

	for range 2 + more {
		m := <-asked
		_ = m.Respond(m.Data)
		p.receive()
	}
	p.expectNothingMore()
	if n := g.Stats().PausedConnections; n != 0 {
		t.Errorf("%d are paused", n)
	}
}
