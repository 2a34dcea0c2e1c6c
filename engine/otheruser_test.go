package engine

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["connect"] = connectRole }

// user is whom a client connects as.
type user struct {
	uid, gid uint32
	groups   []uint32 // supplementary
}

// openToAll lets every user reach the gateway's socket, so that the gateway alone decides.
func openToAll(t testing.TB, cfg *Config) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs other users, and so root")
	}
	cfg.SocketMode = 0o666
	if err := os.Chmod(cfg.SocketPath[:len(cfg.SocketPath)-len("/gw.sock")], 0o711); err != nil {
		t.Fatal(err)
	}
}

// dialAs connects to the gateway as somebody else: a process of that user connects, and hands its connection over. The
// kernel goes on telling who connected.
func dialAs(t testing.TB, g *Gateway, u user) *peer {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	// The path of the test binary may lead through folders that are root's alone; this does not.
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "IPC_TEST_ROLE=connect", "IPC_TEST_SOCKET="+g.cfg.SocketPath)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}}
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("connecting as %+v: %v: %s", u, err, output)
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "client")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	return &peer{t, conn.(*net.UnixConn)}
}

// connectRole connects to IPC_TEST_SOCKET, and sends the connection to descriptor 3.
func connectRole() {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	roleMust(err)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: os.Getenv("IPC_TEST_SOCKET")}); err != nil {
		roleMust(fmt.Errorf("connect: %w", err))
	}
	roleMust(unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0))
}
