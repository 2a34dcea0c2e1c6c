package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/control"
)

// manager is the end of systemd: what services tell it.
type manager struct {
	t    *testing.T
	path string
	*net.UnixConn
}

func listenNotify(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{t, path, conn}
}

// await takes messages until one matches pattern.
func (m *manager) await(pattern string) {
	m.t.Helper()
	want := regexp.MustCompile(pattern)
	var told []string
	_ = m.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		message := make([]byte, 4096)
		n, err := m.Read(message)
		if err != nil {
			m.t.Fatalf("nothing like %q in %q: %v", pattern, told, err)
		}
		if want.Match(message[:n]) {
			return
		}
		told = append(told, string(message[:n]))
	}
}

// Goal: systemd is told when the gateway accepts, how it is, that it lives, when it reloads, and when it stops.
func TestSystemdIsTold(t *testing.T) {
	m := listenNotify(t)
	config := configFileWith(t, "drain_timeout: 40s\n")
	g := serve(t, []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"}, "--config", config, "--nats-url", natsServer(t).ConnectedUrl())
	m.await(`^READY=1\nSTATUS=0 clients, `)
	m.await(`^WATCHDOG=1$`)
	m.await(`^STATUS=0 clients, NATS connected, \d+ req/s$`)
	g.signal(syscall.SIGHUP)
	m.await(`^RELOADING=1\nMONOTONIC_USEC=\d+$`)
	m.await(`^READY=1$`)
	configWith(t, config, "no setting")
	if code, _, _ := console(g, "reload"); code != exitFailure {
		t.Errorf("exit code %d of a bad reload", code)
	}
	m.await(`^RELOADING=1\n`)
	m.await(`^READY=1$`)
	m.await(`^WATCHDOG=1$`)
	g.signal(syscall.SIGTERM)
	m.await(`^STOPPING=1\nEXTEND_TIMEOUT_USEC=50000000$`)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
}

// Goal: the watchdog is fed only while every loop turns.
func TestWatchdogStarves(t *testing.T) {
	m := listenNotify(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	n := newNotifier(slog.New(slog.DiscardHandler))
	n.feed(t.Context(), time.Second, func(context.Context) error { return errors.New("event loop 1 does not turn") })
	n.tell("MARK=1")
	n.feed(t.Context(), time.Second, func(context.Context) error { return nil })
	for _, want := range []string{"MARK=1", "WATCHDOG=1"} {
		message := make([]byte, 100)
		_ = m.SetReadDeadline(time.Now().Add(10 * time.Second))
		size, err := m.Read(message)
		if err != nil || string(message[:size]) != want {
			t.Errorf("told %q, %v; want %q", message[:size], err, want)
		}
	}
}

// serveActivated starts a gateway as systemd does with sockets that it has opened.
func serveActivated(t *testing.T, sockets []*os.File, names string, args ...string) *process {
	t.Helper()
	// The pid is known in the process only.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$0" "$@"`, binary, "serve", "--probe-addr", "off"}, args...)...)
	cmd.ExtraFiles = sockets
	return startCommand(t, []string{fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES=" + names}, cmd)
}

// listening returns a listening socket at path, as systemd has one.
func listening(t *testing.T, path string) *os.File {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// Goal: sockets that systemd has opened are used, and stay when the gateway ends; who connects meanwhile is served by
// the next one.
func TestSocketActivation(t *testing.T) {
	folder := t.TempDir()
	path, operators := filepath.Join(folder, "clients.sock"), filepath.Join(folder, "operators.sock")
	sockets := []*os.File{listening(t, path), listening(t, operators)}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	ping := func() (int, string) {
		code, _, errs := runInput(nil, "", "ping", "--socket", path, "-n", "1")
		return code, errs
	}
	for range 2 {
		p := serveActivated(t, sockets, "gateway.socket:control", "--nats-url", "nats://127.0.0.1:1", "--socket", filepath.Join(folder, "other"))
		if code, errs := ping(); code != 0 { // it waits for the gateway, if that is not there yet
			t.Errorf("ping: exit code %d: %s", code, errs)
		}
		p.waitLog("msg=serving")
		var settings control.Settings
		if status, err := ask(operators, http.MethodGet, "/v1/config", &settings); status != http.StatusOK {
			t.Errorf("%d, %v", status, err)
		}
		shown := fmt.Sprint(settings)
		wantAll(t, shown, "{socket "+path+" socket passed by systemd}", "{control_socket "+operators+" socket passed by systemd}")
		var reloaded control.Reloaded
		if status, err := ask(operators, http.MethodPost, "/v1/reload", &reloaded); status != http.StatusOK || len(reloaded.NeedRestart) != 0 {
			t.Errorf("%d, %+v, %v", status, reloaded, err)
		}
		p.signal(syscall.SIGTERM)
		if code := p.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, p.stderr.String())
		}
		after, err := os.Stat(path)
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("the socket is not what it was: %v", err)
		}
		if _, err := os.Stat(operators); err != nil {
			t.Error(err)
		}
		checkNoSocket(t, filepath.Join(folder, "other"))
	}
}

// Goal: what cannot be the gateway's socket is refused with a reason.
func TestSocketActivationRefusals(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	port, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	connected, other := os.NewFile(uintptr(pair[0]), "connected"), os.NewFile(uintptr(pair[1]), "other")
	defer connected.Close()
	defer other.Close()
	packets, err := listenNotify(t).File()
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	regular, err := os.Open(configFileWith(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	good := listening(t, filepath.Join(t.TempDir(), "gw.sock"))
	for want, sockets := range map[string][]*os.File{
		"it is no Unix socket":   {port},
		"it does not listen":     {connected},
		"it is no stream socket": {packets},
		"it is no socket":        {regular},
		"one socket too many":    {good, good},
	} {
		p := serveActivated(t, sockets, strings.Repeat("a.socket:", len(sockets)-1)+"a.socket")
		if code := p.wait(); code != exitFailure || !strings.Contains(p.stderr.String(), want) {
			t.Errorf("%s: exit code %d: %s", want, code, p.stderr.String())
		}
	}
}

// Goal: a gateway that drains does not keep the next one from having its control socket.
func TestControlSocketIsTakenFromOneThatDrains(t *testing.T) {
	g, requested := stuckGateway(t, "--drain-timeout", "1h")
	g.signal(syscall.SIGTERM)
	g.waitReady(http.StatusServiceUnavailable, "draining")
	next := start(t, nil, "serve", "--socket", g.socket, "--probe-addr", "off")
	next.waitLog("msg=serving")
	g.insist(syscall.SIGTERM)
	requested()
	var now control.Status
	if status, err := ask(g.socket+".ctl", http.MethodGet, "/v1/status", &now); status != http.StatusOK || now.PID != next.cmd.Process.Pid {
		t.Errorf("%d, %+v, %v", status, now, err)
	}
}

// Goal: who takes over is told what systemd has told only the first process, and names itself, feeds the watchdog and never says
// that the service stops; and so on from one to the next.
func TestSystemdGoesAlongWithATakeover(t *testing.T) {
	m := listenNotify(t)
	told := m.everything()
	nats := natsServer(t).ConnectedUrl()
	g := serve(t, []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"}, "--nats-url", nats)
	g.waitReady(http.StatusOK, "")
	for range 2 {
		next := succeed(t, g, "--nats-url", nats)
		before := len(told.String()) // all of the other one, which has ended
		waitFor(t, func() error {
			if !strings.Contains(told.String()[before:], "\nWATCHDOG=1\n") {
				return errors.New("the watchdog is not fed")
			}
			return nil
		})
		wantAll(t, told.String(), fmt.Sprintf("\nMAINPID=%d\n", next.cmd.Process.Pid))
		g = next
	}
	if strings.Contains(told.String(), "STOPPING=1") {
		t.Errorf("the service stops: %q", told.String())
	}
	g.signal(syscall.SIGTERM)
	if code := g.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, g.stderr.String())
	}
	waitFor(t, func() error {
		if !strings.Contains(told.String(), "\nSTOPPING=1\n") {
			return errors.New("the service does not stop")
		}
		return nil
	})
}

// Goal: the status is that of the process which has the service. Who hands over says so and nothing after that; who takes over tells
// nothing before it has the service, and then both at once; and if it dies before, the other one tells its own again. Method: a client
// with a request that is not answered makes the takeovers longer than the time between two looks at the status.
func TestStatusIsThatOfTheService(t *testing.T) {
	m := listenNotify(t)
	told := m.everythingBySender()
	nc := natsServer(t)
	respond(t, nc, "slow", func(*nats.Msg) {})
	more := []string{"--nats-url", nc.ConnectedUrl(), "--subject", "slow", "--drain-timeout", "5s"}
	g := serve(t, []string{"NOTIFY_SOCKET=" + m.path}, more...)
	g.waitReady(http.StatusOK, "")
	g.dial().write(submitFrame("never answered"))
	g.waitInflight()
	last := func(p *process) string {
		all := strings.Split(told.String(), "\n\n")
		for i := len(all) - 1; i >= 0; i-- {
			if message, by := strings.CutPrefix(strings.TrimSpace(all[i]), fmt.Sprintf("from %d:\n", p.cmd.Process.Pid)); by && strings.Contains(message, "STATUS=") {
				return message
			}
		}
		return ""
	}
	await := func(p *process, want string) {
		t.Helper()
		waitFor(t, func() error {
			if got := last(p); !strings.HasPrefix(got, want) {
				return fmt.Errorf("the last status is %q, want %q; all: %s", got, want, told.String())
			}
			return nil
		})
	}
	const handingOver = "STATUS=handing over to another process"
	await(g.process, "STATUS=1 clients, NATS connected")
	killed := beginTakeover(t, g, more...)
	killed.waitLog("msg=serving")
	await(g.process, handingOver)
	killed.signal(syscall.SIGKILL)
	await(g.process, "STATUS=1 clients, NATS connected")
	if got := last(killed.process); got != "" {
		t.Errorf("who did not get the service told %q", got)
	}

	next := beginTakeover(t, g, more...)
	g.wait()
	next.waitLog("the takeover is complete")
	await(next.process, fmt.Sprintf("MAINPID=%d\nSTATUS=1 clients, ", next.cmd.Process.Pid))
	if got := last(g.process); got != handingOver {
		t.Errorf("who has handed over told %q", got)
	}
	if got := strings.Count(told.String(), handingOver); got != 2 {
		t.Errorf("%q was told %d times, want twice", handingOver, got)
	}
}

// everythingBySender takes what is told, each message behind the process that it is from and with an empty line behind it.
func (m *manager) everythingBySender() *lockedBuffer {
	told := &lockedBuffer{}
	raw, err := m.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		m.t.Fatal(err)
	}
	go func() {
		message, credentials := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
		for {
			n, size, _, _, err := m.ReadMsgUnix(message, credentials)
			if err != nil {
				return // the test is over
			}
			var from unix.Ucred
			if parsed, err := unix.ParseSocketControlMessage(credentials[:size]); err == nil && len(parsed) == 1 {
				if who, err := unix.ParseUnixCredentials(&parsed[0]); err == nil {
					from = *who
				}
			}
			fmt.Fprintf(told, "from %d:\n%s\n\n", from.Pid, message[:n])
		}
	}()
	return told
}

// everything takes what is told, each message between line ends: whoever tells something waits while the socket is full.
func (m *manager) everything() *lockedBuffer {
	told := &lockedBuffer{}
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := m.Read(message)
			if err != nil {
				return // the test is over
			}
			_, _ = told.Write(append(append([]byte{'\n'}, message[:n]...), '\n'))
		}
	}()
	return told
}
