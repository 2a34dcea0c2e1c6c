package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/control"
)

// largeAnswer is what a request with the payload "large" is answered with: more than a socket holds.
const largeAnswer = 900_000

// handingOver starts a gateway to take over from, with a client that is at rest. Requests are echoed but two kinds: "large", and
// "slow", which is never answered.
func handingOver(t *testing.T, args ...string) (g *gateway, rested *rawClient, more []string) {
	t.Helper()
	nc := natsServer(t)
	respond(t, nc, "echo", func(m *nats.Msg) {
		switch string(m.Data) {
		case "large":
			_ = m.Respond(make([]byte, largeAnswer))
		case "slow":
		default:
			echo(m)
		}
	})
	more = append([]string{"--nats-url", nc.ConnectedUrl(), "--subject", "echo"}, args...)
	g = serve(t, nil, more...)
	g.waitReady(http.StatusOK, "")
	rested = g.dial()
	rested.ask("before")
	return g, rested, more
}

// beginTakeover starts a gateway that takes over from g, and does not wait for it.
func beginTakeover(t *testing.T, g *gateway, args ...string) *gateway {
	t.Helper()
	next := &gateway{socket: g.socket}
	next.process = start(t, nil, append([]string{"serve", "--takeover", "--socket", g.socket, "--probe-addr", "off"}, args...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway that took over: %s\nthe one that handed over: %s", next.stderr.String(), g.stderr.String())
		}
	})
	return next
}

// waitInflight waits until a request is in flight.
func (g *gateway) waitInflight() {
	g.t.Helper()
	waitFor(g.t, func() error {
		var now control.Status
		_, err := ask(g.socket+".ctl", http.MethodGet, "/v1/status", &now)
		if err == nil && now.Inflight == 0 {
			err = errors.New("nothing is in flight")
		}
		return err
	})
}

// wantSole fails the test unless remains is the only gateway, and is reached at the paths.
func wantSole(t *testing.T, remains, ended *gateway) {
	t.Helper()
	if code := ended.wait(); code != 0 && ended.cmd.ProcessState.Exited() {
		t.Errorf("the other gateway: exit code %d: %s", code, ended.stderr.String())
	}
	select {
	case <-remains.exited:
		t.Fatalf("the gateway that should remain has ended: %s", remains.stderr.String())
	default:
	}
	remains.dial().ask("newcomer")
	var now control.Status
	waitFor(t, func() error {
		status, err := ask(remains.socket+".ctl", http.MethodGet, "/v1/status", &now)
		if err == nil && (status != http.StatusOK || now.PID != remains.cmd.Process.Pid) {
			err = fmt.Errorf("control socket: status %d of process %d, want %d", status, now.PID, remains.cmd.Process.Pid)
		}
		return err
	})
	remains.signal(syscall.SIGTERM)
	if code := remains.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, remains.stderr.String())
	}
	for _, path := range []string{remains.socket, remains.socket + ".ctl"} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left over: %v", path, err)
		}
	}
}

// Goal: a client that ends its side, or talks rubbish, and takes none of its answer does not hold a takeover up, and gets all
// that waits for it when it likes.
func TestTakeoverPastClientsThatDoNotRead(t *testing.T) {
	for name, end := range map[string]func(deaf *rawClient){
		"half closed": func(deaf *rawClient) { _ = deaf.CloseWrite() },
		"babbles":     func(deaf *rawClient) { deaf.write(bytes.Repeat([]byte{0xff}, 64)) },
	} {
		t.Run(name, func(t *testing.T) {
			g, rested, more := handingOver(t, "--drain-timeout", "1s")
			deaf := g.dial()
			deaf.write(submitFrame("large"))
			waitFor(t, func() error {
				_, metrics, err := g.get("/metrics")
				if err == nil && strings.Contains(metrics, "\nipc_client_buffered_bytes 0\n") {
					err = errors.New("no answer waits")
				}
				return err
			})
			end(deaf)
			next := beginTakeover(t, g, more...)
			next.waitLog("the takeover is complete")
			g.wait()
			rested.ask("after")
			if got, payload := deaf.receive(); got != codec.TypeResponseOK || len(payload) != largeAnswer {
				t.Errorf("the deaf one got %v with %d bytes", got, len(payload))
			}
			if _, err := io.Copy(io.Discard, deaf); err != nil {
				t.Errorf("the deaf one: %v; want the end of the connection", err)
			}
			wantSole(t, next, g)
		})
	}
}

// Goal: a process that freezes while it takes over, at whatever moment and for however long, leaves one gateway with all clients
// once it goes on.
func TestTakeoverByOneThatFreezes(t *testing.T) {
	for name, when := range map[string]func(g, next *gateway){
		"it starts":                  func(*gateway, *gateway) {},
		"it takes the sockets":       func(g, _ *gateway) { g.waitLog("handing over to another process") },
		"it serves":                  func(_, next *gateway) { next.waitLog("msg=serving") },
		"it waits for a slow client": func(_, next *gateway) { next.waitLog("client taken over") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, rested, more := handingOver(t, "--drain-timeout", "1s", "--log-level", "debug")
			clients := []*rawClient{rested}
			for range 50 {
				c := g.dial()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				clients = append(clients, c)
			}
			if strings.Contains(name, "slow") {
				slow := g.dial()
				slow.write(submitFrame("slow"))
				g.waitInflight()
			}
			next := beginTakeover(t, g, more...)
			when(g, next)
			next.signal(syscall.SIGSTOP)
			frozen := time.NewTimer(12 * time.Second) // the length of the freeze, not a wait
			defer frozen.Stop()
			for i, c := range clients {
				c.write(submitFrame(fmt.Sprint("meanwhile ", i)))
			}
			<-frozen.C
			select {
			case <-g.exited:
				t.Log("it had taken everything when it froze")
			default:
			}
			next.signal(syscall.SIGCONT)
			next.waitLog("the takeover is complete")
			g.wait()
			for i, c := range clients {
				if got, payload := c.receive(); got != codec.TypeResponseOK || payload != fmt.Sprint("meanwhile ", i) {
					t.Errorf("client %d got %v %.100q", i, got, payload)
				}
				c.ask("after")
			}
			wantSole(t, next, g)
		})
	}
}

// Goal: if the process that takes over is killed meanwhile, frozen or not, the other one remains, with its paths and the clients that
// were not taken.
func TestTakeoverByOneThatIsKilled(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		g, _, more := handingOver(t, "--drain-timeout", "20s")
		held := g.dial()
		held.write(submitFrame("slow")) // holds the takeover up
		g.waitInflight()
		next := beginTakeover(t, g, more...)
		next.waitLog("msg=serving")
		if frozen {
			next.signal(syscall.SIGSTOP)
		}
		next.signal(syscall.SIGKILL)
		g.waitLog("the takeover failed, serving on: this process remains")
		_ = held.Close() // or its request would be waited for
		wantSole(t, g, next)
	}
}

// Goal: a gateway that hands over ends soon when it is told to, although the other one is frozen. That one remains, with what it
// has.
func TestStopOfAGatewayThatHandsOver(t *testing.T) {
	g, rested, more := handingOver(t, "--drain-timeout", "300ms")
	next := beginTakeover(t, g, more...)
	next.waitLog("the takeover is complete")
	g.wait()
	// Again, and this time a slow client holds it up.
	slow := next.dial()
	slow.write(submitFrame("slow"))
	next.waitInflight()
	last := beginTakeover(t, next, more...)
	last.waitLog("msg=serving")
	last.signal(syscall.SIGSTOP)
	next.signal(syscall.SIGTERM)
	if code := next.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	last.signal(syscall.SIGCONT)
	last.waitLog("this process remains")
	_ = rested.Close()
	wantSole(t, last, next)
}

// Goal: a gateway that takes over and is told to stop meanwhile leaves the service to the other one.
func TestStopOfAGatewayThatTakesOver(t *testing.T) {
	g, _, more := handingOver(t, "--drain-timeout", "15s")
	slow := g.dial()
	slow.write(submitFrame("slow")) // holds the takeover up
	g.waitInflight()
	next := beginTakeover(t, g, more...)
	next.waitLog("msg=serving")
	next.signal(syscall.SIGTERM)
	if code := next.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	wantAll(t, next.stderr.String(), "the other process remains, this one ends")
	g.waitLog("this process remains")
	_ = slow.Close()
	wantSole(t, g, next)
}

// Goal: a process that was to take over and is told to stop while it waits for NATS ends at once and says by its exit code that it did,
// and the other gateway has noticed nothing: it has its clients, its sockets and its service. Method: a NATS server that accepts and never
// says anything.
func TestStopOfATakeoverThatWaitsForNATS(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	g, rested, _ := handingOver(t)
	for _, told := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		next := beginTakeover(t, g, "--nats-url", "nats://"+mute.Addr().String())
		waiting, err := mute.Accept()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		next.signal(told)
		if code := next.wait(); code != 128+int(told) {
			t.Errorf("%v: exit code %d: %s", told, code, next.stderr.String())
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%v: it took %v", told, took)
		}
		_ = waiting.Close()
		wantAll(t, next.stderr.String(), "nothing was taken over, the other gateway serves on: told to stop ("+told.String()+")")
		if strings.Contains(g.stderr.String(), "handing over") {
			t.Errorf("%v: it began to hand over: %s", told, g.stderr.String())
		}
		rested.ask("after")
		g.waitReady(http.StatusOK, "")
	}
}

// Goal: --detach returns when the takeover is complete, and with the exit code of a gateway that cannot be started.
func TestDetach(t *testing.T) {
	g, rested, more := handingOver(t)
	// The log is a file: the process that goes on keeps it open.
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	launcher := exec.Command(binary, append([]string{"serve", "--takeover", "--detach", "--socket", g.socket, "--probe-addr", "off"}, more...)...)
	launcher.Stdout, launcher.Stderr = log, log
	if err := launcher.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = console(g, "drain") })
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	rested.ask("after")
	if code := start(t, nil, "serve", "--detach", "--socket", g.socket, "--probe-addr", "off").wait(); code != exitFailure {
		t.Errorf("exit code %d of a gateway in the place of another one", code)
	}
	wantConsole(t, g, "drain")
	checkNoSocket(t, g.socket)
}

// Goal: who ends a command with --detach that has not returned yet ends what it has started.
func TestStopOfADetachedTakeover(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	g, rested, _ := handingOver(t)
	launcher := beginTakeover(t, g, "--detach", "--nats-url", "nats://"+mute.Addr().String())
	waiting, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	launcher.signal(syscall.SIGTERM)
	if code := launcher.wait(); code != 128+int(syscall.SIGTERM) { // and its standard error is closed in both processes
		t.Errorf("exit code %d: %s", code, launcher.stderr.String())
	}
	wantAll(t, launcher.stderr.String(), "nothing was taken over")
	rested.ask("after")
	g.waitReady(http.StatusOK, "")
}
