package engine

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

const anotherGateway = "another gateway serves this path"

// Goal: a socket that somebody serves is refused and goes on being served; once its process is
// dead, without having cleaned up, it is replaced.
func TestLiveSocketIsRefusedAndADeadOneReplaced(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "gw.sock")
	other := startProcess(t, "gateway", "IPC_TEST_SOCKET="+path)
	if other.line != "serving" {
		t.Fatalf("the other gateway: %s", other.line)
	}
	before := identity(t, path)
	if _, err := startAt(t, path); err == nil || !strings.Contains(err.Error(), anotherGateway) || !strings.Contains(err.Error(), path) {
		t.Errorf("Start: %v; want that %s", err, anotherGateway)
	}
	if after := identity(t, path); after != before {
		t.Errorf("touched: %s\n was %s", after, before)
	}
	ping(t, path)

	other.kill()
	if after := identity(t, path); after != before {
		t.Fatalf("kill -9 has cleaned up: %s", after)
	}
	g, err := startAt(t, path)
	if err != nil {
		t.Fatalf("Start over a dead socket: %v", err)
	}
	ping(t, path)
	if left := names(t, filepath.Dir(path)); len(left) != 1 {
		t.Errorf("the folder holds %v", left)
	}
	// The other process sees ours as we saw its.
	if again := startProcess(t, "gateway", "IPC_TEST_SOCKET="+path); !strings.Contains(again.line, anotherGateway) {
		t.Errorf("the other gateway: %s", again.line)
	}
	if err := g.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if left := names(t, filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// Goal: liveness does not depend on who listens, or whether it accepts.
func TestLiveSocketsOfOtherKinds(t *testing.T) {
	t.Run("full backlog", func(t *testing.T) {
		path := filepath.Join(shortTempDir(t), "gw.sock")
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // the test is over
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 0); err != nil {
			t.Fatal(err)
		}
		waiting, err := net.Dial("unix", path) // the one that fits
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close() //nolint:errcheck // the test is over
		if _, err := startAt(t, path); err == nil || !strings.Contains(err.Error(), anotherGateway) {
			t.Errorf("Start: %v; want that %s", err, anotherGateway)
		}
	})
	t.Run("datagrams", func(t *testing.T) {
		path := filepath.Join(shortTempDir(t), "gw.sock")
		conn, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the test is over
		before := identity(t, path)
		if _, err := startAt(t, path); err == nil || !strings.Contains(err.Error(), "left untouched") {
			t.Errorf("Start: %v", err)
		}
		if after := identity(t, path); after != before {
			t.Errorf("touched: %s\n was %s", after, before)
		}
	})
	t.Run("somebody else's", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs a second user")
		}
		folder := shortTempDir(t)
		path := filepath.Join(folder, "gw.sock")
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() //nolint:errcheck // the test is over
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		before := identity(t, path)
		withoutPrivileges(t, func() { _, err = startAt(t, path) })
		if err == nil || !strings.Contains(err.Error(), "cannot tell whether somebody serves this path") {
			t.Errorf("Start: %v", err)
		}
		if after := identity(t, path); after != before {
			t.Errorf("touched: %s\n was %s", after, before)
		}
	})
}

// Goal: of two gateways that start at the same moment on the same path, free or with a dead socket
// on it, exactly one wins, and it is the one that is reached.
func TestTwoGatewaysAtOnce(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(shortTempDir(t), "gw.sock")
		if round%2 == 1 {
			deadSocket(t, path)
		}
		var gateways [2]*Gateway
		var errs [2]error
		var both sync.WaitGroup
		begin := make(chan struct{})
		for i := range gateways {
			cfg := socketConfig(t)
			cfg.SocketPath = path
			g, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			gateways[i] = g
			both.Go(func() {
				<-begin
				errs[i] = g.Start()
			})
		}
		close(begin)
		both.Wait()
		winner, loser := 0, 1
		if errs[0] != nil {
			winner, loser = 1, 0
		}
		if errs[winner] != nil || errs[loser] == nil || !strings.Contains(errs[loser].Error(), anotherGateway) {
			t.Fatalf("round %d: %v; %v", round, errs[0], errs[1])
		}
		ping(t, path)
		if n := gateways[winner].Stats().ConnectionsTotal; n == 0 {
			t.Errorf("round %d: the winner was not reached", round)
		}
		if left := names(t, filepath.Dir(path)); len(left) != 1 {
			t.Errorf("round %d: the folder holds %v", round, left)
		}
		for _, g := range gateways {
			if err := g.Close(); err != nil {
				t.Errorf("round %d: Close: %v", round, err)
			}
		}
	}
}

// Goal: Drain and Close remove the socket that is ours, and nothing else, whatever has become of it.
func TestOnlyOurSocketIsRemoved(t *testing.T) {
	for _, end := range []struct {
		name string
		run  func(*Gateway) error
	}{
		{"Close", (*Gateway).Close},
		{"Drain", func(g *Gateway) error { return g.Drain(testTimeout) }},
	} {
		for name, replace := range map[string]func(t *testing.T, path string){
			"still ours": nil,
			"gone":       func(*testing.T, string) {},
			"a file":     func(t *testing.T, path string) { _ = os.WriteFile(path, []byte("precious"), 0o600) },
			"a socket": func(t *testing.T, path string) {
				ln, err := net.Listen("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = ln.Close() })
			},
			"another gateway": func(t *testing.T, path string) {
				if _, err := startAt(t, path); err != nil {
					t.Fatal(err)
				}
			},
			"a link to our socket": func(t *testing.T, path string) {
				_ = os.Symlink("moved", path)
			},
		} {
			t.Run(end.name+" "+name, func(t *testing.T) {
				g := runGateway(t, socketConfig(t))
				path := g.cfg.SocketPath
				before := ""
				if replace != nil {
					if err := os.Rename(path, filepath.Join(filepath.Dir(path), "moved")); err != nil {
						t.Fatal(err)
					}
					replace(t, path)
					if name != "gone" {
						before = identity(t, path)
					}
				}
				if err := end.run(g); err != nil {
					t.Errorf("%s: %v", end.name, err)
				}
				if before == "" {
					if _, err := os.Lstat(path); !os.IsNotExist(err) {
						t.Errorf("the path after the end: %v", err)
					}
				} else if after := identity(t, path); after != before {
					t.Errorf("touched: %s\n was %s", after, before)
				}
			})
		}
	}
	t.Run("the folder is gone", func(t *testing.T) {
		g := runGateway(t, socketConfig(t))
		if err := os.RemoveAll(filepath.Dir(g.cfg.SocketPath)); err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// Goal: clients that had connected when a drain began are served, although nobody had accepted them
// yet. Method: the event loop is held up, so that accepting stands still behind it for longer than
// a drain gives the stragglers; meanwhile clients connect, and the drain begins.
func TestConnectsInTheBacklogAreServed(t *testing.T) {
	g := runGateway(t, socketConfig(t))
	entered, release := make(chan struct{}), make(chan struct{})
	g.loops[0].post(func() {
		close(entered)
		<-release
	})
	<-entered
	const clients = 50
	peers := make([]*peer, clients)
	for i := range peers {
		peers[i] = dial(t, g)
		peers[i].send(v2(codec.TypePing, uint64(i), "", fmt.Sprint(i)), v1(codec.TypeTaskSubmit, "x"))
	}
	drained := make(chan error, 1)
	go func() { drained <- g.Drain(testTimeout) }()
	eventually(t, "the socket is gone", func() bool { _, err := os.Lstat(g.cfg.SocketPath); return os.IsNotExist(err) })
	held := time.Now()
	eventually(t, "the stragglers' time is over", func() bool { return time.Since(held) > 2*acceptLeftovers })
	close(release)
	for i, p := range peers {
		for range 2 {
			f, err := p.tryReceive()
			if err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
			switch {
			case f.Type == codec.TypePong && f.CorrelationID == uint64(i):
			case f.Type == codec.TypeResponseError && f.Version == 1:
			default:
				t.Errorf("client %d: %v %s", i, f.Type, f.Payload)
			}
		}
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
}
