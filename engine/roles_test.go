package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// roles are what this test binary can be besides a test run; see TestMain.
var roles = map[string]func(){
	"natsd":   natsdRole,
	"gateway": gatewayRole,
}

// process is this test binary in another role. It ends when its standard input closes.
type process struct {
	*exec.Cmd
	line   string // its first line of output
	stdin  io.WriteCloser
	stdout *bufio.Reader
	once   sync.Once
}

// startProcess starts a role and waits for the line in which it says that it is up.
func startProcess(t testing.TB, role string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), append(env, "IPC_TEST_ROLE="+role)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("role %s: %v", role, err)
	}
	p := &process{Cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	t.Cleanup(p.end)
	p.line = p.readLine(t)
	return p
}

// readLine returns the next line that the process says.
func (p *process) readLine(t testing.TB) string {
	t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("the other process ended: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// end lets the process end by itself, also one that was frozen, and waits for it.
func (p *process) end() {
	p.once.Do(func() {
		_ = p.Process.Signal(syscall.SIGCONT)
		_ = p.stdin.Close()
		_ = p.Wait()
	})
}

// kill ends the process as kill -9 does, and waits until the kernel has closed all that it had.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
}

// retire gives a nats-server notice, and waits until it has ended.
func (p *process) retire() {
	p.once.Do(func() {
		_ = p.Process.Signal(syscall.SIGUSR2)
		_ = p.Wait()
	})
}

// freeze stops the process until thaw, and returns once it stands still.
func (p *process) freeze(t testing.TB) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every thread of the process is stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Process.Pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err != nil || !strings.Contains(string(stat), ") T ")
		})
	})
}

func (p *process) thaw(t testing.TB) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// natsdOptions are what a test may ask of a nats-server in a process of its own.
type natsdOptions struct {
	Name               string // empty: its id
	Port               int    // 0: a free one
	Monitor            int    // port for connz; 0: none
	Username, Password string
	StoreDir           string // of JetStream; empty: none
	ClusterPort        int    // 0: no cluster
	Routes             []int  // cluster ports of the members
}

// startNATSD starts a nats-server in a process of its own. Its URL is the first line that it says.
func startNATSD(t testing.TB, o natsdOptions) *process {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return startProcess(t, "natsd", "IPC_TEST_NATSD="+string(text))
}

func natsdRole() {
	var o natsdOptions
	roleMust(json.Unmarshal([]byte(os.Getenv("IPC_TEST_NATSD")), &o))
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	opts := &server.Options{
		ServerName: o.Name, Host: "127.0.0.1", Port: o.Port, HTTPHost: "127.0.0.1", HTTPPort: o.Monitor, Username: o.Username, Password: o.Password,
		JetStream: o.StoreDir != "", StoreDir: o.StoreDir,
		NoLog: true, NoSigs: true, MaxPayload: 1 << 20,
		LameDuckDuration: 2 * time.Second, LameDuckGracePeriod: time.Second,
	}
	if o.ClusterPort != 0 {
		opts.Cluster.Name, opts.Cluster.Host, opts.Cluster.Port = "test", "127.0.0.1", o.ClusterPort
		for _, port := range o.Routes {
			opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		}
	}
	s, err := server.NewServer(opts)
	roleMust(err)
	notice := make(chan os.Signal, 1)
	signal.Notify(notice, syscall.SIGUSR2)
	go func() {
		<-notice
		s.LameDuckShutdown()
		os.Exit(0)
	}()
	s.Start()
	if !s.ReadyForConnections(testTimeout) {
		roleMust(fmt.Errorf("nats-server does not come up on port %d", o.Port))
	}
	fmt.Println(s.ClientURL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
}

// gatewayRole serves the socket IPC_TEST_SOCKET without NATS. It says "serving", or why it cannot.
func gatewayRole() {
	cfg := DefaultConfig()
	cfg.Loops = 1
	cfg.SocketPath = os.Getenv("IPC_TEST_SOCKET")
	cfg.NATS.URLs = []string{"nats://127.0.0.1:1"}
	cfg.NATS.ReconnectWait = time.Minute
	g, err := New(cfg)
	roleMust(err)
	if err := g.Start(); err != nil {
		fmt.Println(err)
	} else {
		fmt.Println("serving")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	roleMust(g.Close())
}

func roleMust(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// freePort returns a loopback port that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it was only asked for its port
	return ln.Addr().(*net.TCPAddr).Port
}
