package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience bounds every wait for something that must happen. It is never slept through.
const patience = 60 * time.Second

// eventually waits until check returns nil, and returns its last error if that takes longer than patience.
func eventually(check func() error) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", patience, err)
		}
	}
}

// freeze stops a process, and returns once it stands still.
func freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	return eventually(func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(stat), ") T ") {
			err = fmt.Errorf("process %d is not stopped: %s", pid, stat)
		}
		return err
	})
}

func thaw(pid int) { _ = syscall.Kill(pid, syscall.SIGCONT) }

// natsd is a nats-server in a process of its own: this test binary in another role. It ends when its
// standard input closes, and so with the test.
type natsd struct {
	options natsdOptions
	cmd     *exec.Cmd
	stdin   io.WriteCloser
}

type natsdOptions struct {
	Name        string
	Port        int // of clients
	ClusterPort int
	Routes      []int // cluster ports of the members
	StoreDir    string
}

const (
	roleVariable  = "IPC_CHAOS_ROLE"
	natsdVariable = "IPC_CHAOS_NATSD"
)

func (n *natsd) start() error {
	text, err := json.Marshal(n.options)
	if err != nil {
		return err
	}
	n.cmd = exec.Command(os.Args[0], "-test.run=^$")
	n.cmd.Env = append(os.Environ(), roleVariable+"=natsd", natsdVariable+"="+string(text))
	n.cmd.Stderr = os.Stderr
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return fmt.Errorf("nats-server %s does not start: %q, %w", n.options.Name, line, err)
	}
	return nil
}

// end ends the process by a signal, and waits until the kernel has closed all that it had.
func (n *natsd) end(s syscall.Signal) {
	_ = n.cmd.Process.Signal(s)
	_ = n.cmd.Wait()
}

func (n *natsd) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.options.Port) }

// natsdRole is the nats-server. SIGUSR2 ends it with notice, SIGTERM without.
func natsdRole() {
	var o natsdOptions
	roleMust(json.Unmarshal([]byte(os.Getenv(natsdVariable)), &o))
	opts := &server.Options{
		ServerName: o.Name, Host: "127.0.0.1", Port: o.Port,
		JetStream: true, StoreDir: o.StoreDir, NoLog: true, NoSigs: true,
		LameDuckDuration: time.Second, LameDuckGracePeriod: 500 * time.Millisecond,
	}
	opts.Cluster.Name, opts.Cluster.Host, opts.Cluster.Port = "chaos", "127.0.0.1", o.ClusterPort
	opts.Cluster.NoAdvertise = true // the gateway shall stay behind the proxies
	for _, port := range o.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	s, err := server.NewServer(opts)
	roleMust(err)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2, syscall.SIGTERM)
	go func() {
		if <-signals == syscall.SIGUSR2 {
			s.LameDuckShutdown()
		} else {
			s.Shutdown()
		}
		os.Exit(0)
	}()
	s.Start()
	if !s.ReadyForConnections(patience) {
		roleMust(fmt.Errorf("no nats-server comes up on port %d", o.Port))
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func roleMust(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// freePort returns a loopback port that was free a moment ago. It is none that the kernel gives to outgoing
// connections, which might take it while its owner restarts.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(20_000)
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
