package engine

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// dialAs connects to the gateway as somebody else: a thread that becomes that user connects, and ends. The kernel goes on telling
// who connected.
func dialAs(t testing.TB, g *Gateway, u user) *peer {
	t.Helper()
	connected := make(chan *net.UnixConn, 1)
	go onThreadOfItsOwn(func() {
		defer close(connected)
		if err := become(u); err != nil {
			t.Errorf("becoming %+v: %v", u, err)
			return
		}
		conn, err := connectHere(g.cfg.SocketPath)
		if err != nil {
			t.Errorf("connecting as %+v: %v", u, err)
			return
		}
		connected <- conn
	})
	conn, ok := <-connected
	if !ok {
		t.FailNow()
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	return &peer{t, conn}
}

// onThreadOfItsOwn calls f on a thread that nothing else runs on afterwards.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread() // for ever: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// The first thread of a process does not end. While it waits here it is in nobody's way, and then it may go on as before.
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() { defer close(done); onThreadOfItsOwn(f) }()
	<-done
}

// become makes the calling thread, and no other one, another user.
func become(u user) error {
	var groups unsafe.Pointer
	if len(u.groups) > 0 {
		groups = unsafe.Pointer(&u.groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.groups)), uintptr(groups), 0); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)); errno != 0 {
		return errno
	}
	return nil
}

// connectHere connects on the calling thread.
func connectHere(path string) (*net.UnixConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
