package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// deadNATS is where no NATS server is: the socket does not need one.
const deadNATS = "nats://127.0.0.1:1"

// socketConfig is testConfig for tests of the socket alone.
func socketConfig(t testing.TB) Config {
	cfg := testConfig(t, deadNATS)
	cfg.NATS.ReconnectWait = time.Minute
	return cfg
}

// startAt tries to start a gateway at path. The gateway is closed at the end of the test.
func startAt(t testing.TB, path string) (*Gateway, error) {
	t.Helper()
	cfg := socketConfig(t)
	cfg.SocketPath = path
	g, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, g.Start()
}

// ping checks that a gateway serves the socket at path.
func ping(t testing.TB, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer conn.Close() //nolint:errcheck // it was only asked for a PONG
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	p := &peer{t, conn.(*net.UnixConn)}
	p.send(v1(codec.TypePing, ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Fatalf("got %v, want PONG", f.Type)
	}
}

// identity is what must not change about a file that is left untouched.
func identity(t testing.TB, path string) string {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return fmt.Sprintf("device %d inode %d mode %o links %d size %d mtime %v ctime %v", s.Dev, s.Ino, s.Mode, s.Nlink, s.Size, s.Mtim, s.Ctim)
}

// names lists a folder, so that nothing is left in it unseen.
func names(t testing.TB, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	found := make([]string, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

// deadSocket leaves a socket at path that nobody serves, as a killed process does.
func deadSocket(t testing.TB, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
}

// Goal: the socket has exactly the mode that was asked for, whatever the umask is.
func TestSocketModeIsExact(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []os.FileMode{0o600, 0o660, 0o666, 0o777, 0o640} {
			t.Run(fmt.Sprintf("umask %03o mode %03o", umask, mode), func(t *testing.T) {
				cfg := socketConfig(t) // before the umask, which would be its folder's, too
				if DefaultConfig().SocketMode != 0o600 {
					t.Errorf("the default mode is %v", DefaultConfig().SocketMode)
				}
				cfg.SocketMode = mode
				old := unix.Umask(umask)
				defer unix.Umask(old)
				runGateway(t, cfg)
				info, err := os.Lstat(cfg.SocketPath)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != fs.ModeSocket|mode {
					t.Errorf("mode %v, want %v", info.Mode(), fs.ModeSocket|mode)
				}
			})
		}
	}
}

// Goal: no file in the folder ever has a wider mode than the socket's, temporary names included.
// Method: a goroutine looks at everything in the folder, again and again, while a gateway's listener
// comes and goes with the umask that hides nothing.
func TestSocketIsNeverWiderForAMoment(t *testing.T) {
	folder := shortTempDir(t)
	path := filepath.Join(folder, "gw.sock")
	old := unix.Umask(0)
	defer unix.Umask(old)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	var temporary, final int
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			entries, err := os.ReadDir(folder)
			if err != nil {
				t.Errorf("watching: %v", err)
				return
			}
			for _, e := range entries {
				info, err := os.Lstat(filepath.Join(folder, e.Name()))
				if err != nil {
					continue // it was renamed or removed in between
				}
				if info.Mode()&0o177 != 0 {
					t.Errorf("%s had mode %v", e.Name(), info.Mode())
				}
				if e.Name() == "gw.sock" {
					final++
				} else {
					temporary++
				}
			}
		}
	})
	enough := time.Now().Add(time.Second)
	for i := 0; i < 300 || time.Now().Before(enough); i++ {
		s, err := ListenAt(path, 0o600)
		if err != nil {
			t.Fatalf("ListenAt: %v", err)
		}
		if i%2 == 0 {
			if err := s.Remove(); err != nil { // else the next one replaces it
				t.Fatal(err)
			}
		}
		_ = s.Close()
	}
	close(stop)
	watching.Wait()
	if temporary == 0 || final == 0 {
		t.Errorf("the watcher saw the temporary name %d times and the path %d times: it saw nothing", temporary, final)
	}
}

// Goal: whatever is at the path and is no socket stays as it is, and the error says what it is.
func TestPathThatIsNoSocketIsLeftUntouched(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		kind string
		make func(folder, path string)
	}{
		{"file", func(_, path string) { must(os.WriteFile(path, []byte("precious"), 0o644)) }},
		{"folder", func(_, path string) {
			must(os.Mkdir(path, 0o755))
			must(os.WriteFile(filepath.Join(path, "precious"), nil, 0o644))
		}},
		{"folder", func(_, path string) { must(os.Mkdir(path, 0o755)) }}, // rename could replace an empty one
		{"named pipe", func(_, path string) { must(unix.Mkfifo(path, 0o600)) }},
		{"symbolic link", func(folder, path string) { must(os.Symlink(filepath.Join(folder, "nowhere"), path)) }},
		{"symbolic link", func(folder, path string) { // to a dead socket
			deadSocket(t, filepath.Join(folder, "dead"))
			must(os.Symlink("dead", path))
		}},
		{"symbolic link", func(folder, path string) { // to a live socket
			ln, err := net.Listen("unix", filepath.Join(folder, "live"))
			must(err)
			t.Cleanup(func() { _ = ln.Close() })
			must(os.Symlink("live", path))
		}},
		{"device", func(_, path string) {
			if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
				t.Skipf("mknod: %v", err)
			}
		}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			folder := shortTempDir(t)
			path := filepath.Join(folder, "gw.sock")
			test.make(folder, path)
			before, listed := identity(t, path), names(t, folder)
			_, err := startAt(t, path)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "there is a "+test.kind+" at this path, not a socket") {
				t.Errorf("Start: %v; want that there is a %s at %s", err, test.kind, path)
			}
			if after := identity(t, path); after != before {
				t.Errorf("touched: %s\n was %s", after, before)
			}
			if after := names(t, folder); fmt.Sprint(after) != fmt.Sprint(listed) {
				t.Errorf("the folder holds %v, was %v", after, listed)
			}
		})
	}
}

func TestPathLengths(t *testing.T) {
	folder := shortTempDir(t)
	of := func(length int) string {
		return filepath.Join(folder, strings.Repeat("s", length-len(folder)-1))
	}
	if path := of(107); len(path) != SocketPathMax {
		t.Fatalf("the longest path is %d bytes long", len(path))
	}
	if _, err := startAt(t, of(107)); err != nil {
		t.Fatalf("Start: %v", err)
	}
	ping(t, of(107))
	// The second one comes to a live socket, also at this length.
	if _, err := startAt(t, of(107)); err == nil || !strings.Contains(err.Error(), "another gateway serves this path") {
		t.Errorf("second Start: %v", err)
	}
	cfg := socketConfig(t)
	for path, want := range map[string]string{
		of(108):           "is 108 bytes long: a Unix socket address takes at most 107",
		"":                "socket path is empty",
		"@name":           "abstract",
		"/tmp/gw\x00sock": "zero byte",
	} {
		cfg.SocketPath = path
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate of %q: %v; want %q", path, err, want)
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("New takes %q", path)
		}
	}
}

func TestFolderThatCannotBeUsed(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "missing", "gw.sock")
	if _, err := startAt(t, path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("in a missing folder: %v", err)
	}
	file := filepath.Join(shortTempDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := startAt(t, filepath.Join(file, "gw.sock")); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("in a file: %v", err)
	}
	folder := shortTempDir(t)
	if err := os.Chmod(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	var err error
	withoutPrivileges(t, func() { _, err = startAt(t, filepath.Join(folder, "gw.sock")) })
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), folder) {
		t.Errorf("in a folder that is not ours to write: %v", err)
	}
	if left := names(t, folder); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// withoutPrivileges runs f on a thread that may do to files only what everybody may.
func withoutPrivileges(t testing.TB, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The file system's user is a thread's own, and with it go the capabilities to override modes.
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}
