package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

func init() { roles["sleeper"] = sleeper }

// keepRhythm sends requests one after the other, until the session peeks.
func keepRhythm(t *testing.T, g *Gateway, p *peer) {
	t.Helper()
	for i := range uint64(peekAfter + 2) {
		p.send(v2(codec.TypeRequest, i, "app.echo", "rhythm"))
		p.expectOK(codec.Version2, i, "rhythm")
	}
	if n := peeking(t, g); n != 1 {
		t.Fatalf("%d sessions peek, want 1", n)
	}
}

// runPatientGateway runs a gateway whose sessions peek however slow the client is.
func runPatientGateway(t *testing.T, url string) *Gateway {
	t.Helper()
	g := runGateway(t, testConfig(t, url))
	waitReady(t, g)
	for _, l := range g.loops {
		l.post(func() { l.peeker.pause = int64(time.Hour) })
	}
	return g
}

// peeking returns how many sessions peek.
func peeking(t *testing.T, g *Gateway) (n int) {
	t.Helper()
	for _, l := range g.loops {
		counted := make(chan int)
		l.post(func() {
			n := 0
			l.eachSession(func(s *session) {
				if s.peeks {
					n++
				}
			})
			counted <- n
		})
		n += <-counted
	}
	return n
}

// Goal: whatever a client does that has kept to the rhythm of one request after the other, each of its frames is answered
// once, in order, and the end of its stream is seen. Method: each case begins with a session that peeks, whose next
// request is held back by the responder.
func TestPeekingLosesNothing(t *testing.T) {
	big := strings.Repeat("b", 3*peekBytesMax)
	for _, test := range []struct {
		name string
		then func(t *testing.T, g *Gateway, p *peer, release func())
		ends bool // the session does not go on
	}{
		{"goes on", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			p.send(v1(codec.TypeTaskSubmit, "held"))
			release()
			p.expectOK(codec.Version1, 0, "held")
		}, false},
		{"sends more before the answer", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			p.send(v1(codec.TypeTaskSubmit, "held"))
			p.send(v2(codec.TypeRequest, 1, "app.echo", "second"))
			p.expectOK(codec.Version2, 1, "second")
			p.send(v1(codec.TypePing, ""))
			release()
			p.expectOK(codec.Version1, 0, "held")
			p.receive()
		}, false},
		{"sends many at a time", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			p.send(repeat(300, func(int) codec.Frame { return v1(codec.TypeTaskSubmit, "one of many") })...)
			for range 300 {
				p.expectOK(codec.Version1, 0, "one of many")
			}
		}, false},
		{"sends some in as many writes, while the loop is busy", func(_ *testing.T, g *Gateway, p *peer, release func()) {
			release()
			const frames = 20
			for range 20 { // in all more than a buffer for sending holds, with the kernel's own part of each
				func() {
					busy := make(chan struct{})
					defer close(busy)
					g.loops[0].post(func() { <-busy })
					for range frames {
						p.send(v1(codec.TypeTaskSubmit, "one of some"))
					}
				}()
				for range frames {
					p.expectOK(codec.Version1, 0, "one of some")
				}
			}
		}, false},
		{"sends a frame in parts", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			f := v1(codec.TypeTaskSubmit, "in parts")
			b := codec.AppendFrame(nil, &f)
			for i := range b {
				p.sendBytes(b[i : i+1])
			}
			p.expectOK(codec.Version1, 0, "in parts")
		}, false},
		{"sends what is larger than a peek", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			p.send(v1(codec.TypeTaskSubmit, big))
			p.expectOK(codec.Version1, 0, big)
		}, false},
		{"sends what needs no reply", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			noReply := v2(codec.TypePublish, 0, "app.nobody", "x")
			noReply.Flags = codec.FlagNoReply
			p.send(noReply)
			p.send(v1(codec.TypePing, ""))
			if f := p.receive(); f.Type != codec.TypePong {
				p.t.Fatalf("got %v", f.Type)
			}
		}, false},
		{"shuts down its side", func(t *testing.T, _ *Gateway, p *peer, release func()) {
			p.send(v1(codec.TypeTaskSubmit, "held"))
			if err := p.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			release()
			p.expectOK(codec.Version1, 0, "held")
			p.expectEOF()
		}, true},
		{"goes away", func(_ *testing.T, g *Gateway, p *peer, release func()) {
			p.send(v1(codec.TypeTaskSubmit, "held"))
			eventually(p.t, "the request is in flight", func() bool { return g.Stats().Inflight == 1 })
			_ = p.Close()
			eventually(p.t, "the client is gone", func() bool { return g.Stats().Connections == 0 })
			release()
		}, true},
		{"passes a descriptor along", func(t *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			first, second := v1(codec.TypeTaskSubmit, "with a descriptor"), v1(codec.TypeTaskSubmit, "behind it")
			conn, err := p.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			rights := unix.UnixRights(0)
			err = errors.Join(conn.Control(func(fd uintptr) {
				err = unix.Sendmsg(int(fd), codec.AppendFrame(nil, &first), rights, nil, 0)
				p.send(second)
			}), err)
			if err != nil {
				t.Fatal(err)
			}
			p.expectOK(codec.Version1, 0, "with a descriptor")
			p.expectOK(codec.Version1, 0, "behind it")
		}, false},
		{"is killed", func(t *testing.T, g *Gateway, p *peer, release func()) {
			p.send(v1(codec.TypeTaskSubmit, "held"))
			eventually(t, "the request is in flight", func() bool { return g.Stats().Inflight == 1 })
			for _, l := range g.loops {
				l.post(func() { l.eachSession(l.doom) })
			}
			p.expectEOF() // and no reset
			release()
		}, true},
		{"babbles", func(_ *testing.T, _ *Gateway, p *peer, release func()) {
			release()
			p.sendBytes(bytes.Repeat([]byte{0xff}, 64))
			p.receive()
			p.expectEOF()
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := runNATS(t, nil)
			nc := responder(t, s.ClientURL())
			held := make(chan struct{})
			answerWith(t, nc, "app.echo", echo)
			answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { <-held; echo(m) })
			g := runPatientGateway(t, s.ClientURL())
			p := dial(t, g)
			keepRhythm(t, g, p)
			released := false
			release := func() {
				if !released {
					released = true
					close(held)
				}
			}
			defer release()
			test.then(t, g, p, release)
			if test.ends {
				return
			}
			keepRhythm(t, g, p)
		})
	}
}

// Goal: clients that change their manners at random get one answer to each request, in order. Method: random numbers of
// frames, written in one piece or torn, with random waits for answers between them; many clients at a time. The seed
// is printed.
func TestPeekingWithRandomManners(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runPatientGateway(t, s.ClientURL())
	t.Run("clients", func(t *testing.T) {
		for client := range uint64(8) {
			t.Run(fmt.Sprint(client), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, client))
				p := dial(t, g)
				sent, got := 0, 0
				take := func() {
					p.expectOK(codec.Version1, 0, fmt.Sprint(got))
					got++
				}
				for range 2000 {
					var b []byte
					frames := 1
					if random.IntN(8) == 0 {
						frames += random.IntN(40)
					}
					for range frames {
						f := v1(codec.TypeTaskSubmit, fmt.Sprint(sent))
						b = codec.AppendFrame(b, &f)
						sent++
					}
					if random.IntN(8) == 0 {
						cut := 1 + random.IntN(len(b)-1)
						p.sendBytes(b[:cut])
						b = b[cut:]
					}
					p.sendBytes(b)
					for sent-got > random.IntN(100)*random.IntN(2) {
						take()
					}
				}
				for got < sent {
					take()
				}
			})
		}
	})
}

// Goal: nothing stays in the socket of a client that has stopped to ask, whose buffer for sending may be full of it.
func TestPeekedIsTakenOutOfAnIdleSocket(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "app.echo", echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	conn, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	keepRhythm(t, g, p)
	eventually(t, "nothing of the client is left in the socket", func() bool {
		unread := 0
		err := conn.Control(func(fd uintptr) { unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil {
			t.Fatal(err)
		}
		return unread == 0 && peeking(t, g) == 0
	})
}

// Goal: a client whose buffer for sending is full of what was served waits a few times, and not again and again. Method: requests
// as large as the smallest buffer takes, one after the other.
func TestSmallBuffersAreNotPeeked(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	if err := p.SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	payload := strings.Repeat("x", 1500)
	waits := 0
	for range 500 {
		began := time.Now()
		p.send(v1(codec.TypeTaskSubmit, payload))
		if time.Since(began) > time.Duration(peekPause)/2 {
			waits++
		}
		p.expectOK(codec.Version1, 0, payload)
	}
	// A machine that is busy adds some, and takes some for an idle client's.
	if t.Logf("it waited %d times", waits); waits == 0 || waits > 20 {
		t.Errorf("it waited %d times in 500 requests", waits)
	}
}

// Goal: a client that sleeps while it waits for the answer is woken once for each request, and not also when the gateway
// reads it. Method: the client, a process of its own, counts how often it went to sleep.
func TestPeekingWakesTheClientOnce(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runPatientGateway(t, s.ClientURL())
	client := startProcess(t, "sleeper", "SOCKET="+g.cfg.SocketPath)
	slept, err := strconv.Atoi(client.line)
	if err != nil {
		t.Fatalf("the client says %q", client.line)
	}
	t.Logf("the client slept %d times in %d requests", slept, sleeperRequests)
	if slept > sleeperRequests*3/2 { // with plain reads it is up to twice for each
		t.Errorf("the client slept %d times in %d requests", slept, sleeperRequests)
	}
}

const sleeperRequests = 2000

// sleeper is a client that sleeps in recv, and says how often it did.
func sleeper() {
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: os.Getenv("SOCKET")}); err != nil {
		panic(err)
	}
	f := v1(codec.TypeTaskSubmit, "x")
	request, answer := codec.AppendFrame(nil, &f), make([]byte, 100)
	// Calls that the Go scheduler does not know of, so that only the socket puts the thread to sleep.
	call := func(trap uintptr, p []byte) {
		for {
			n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
			if int(n) == len(request) {
				return
			}
			if errno != unix.EINTR {
				panic(errno)
			}
		}
	}
	ask := func(times int) int64 {
		before := sleeps()
		for range times {
			call(unix.SYS_WRITE, request)
			call(unix.SYS_READ, answer)
		}
		return sleeps() - before
	}
	ask(100)
	fmt.Println(ask(sleeperRequests))
}

// sleeps returns how often the calling thread gave up the CPU to wait for something.
func sleeps() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		panic(err)
	}
	return usage.Nvcsw
}
