package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenBacklog is how many connects may wait to be accepted; the kernel cuts it to net.core.somaxconn.
const listenBacklog = 4096

// SocketFile is a socket in the file system that we listen on, and only ours to remove. Closing it leaves the path.
type SocketFile struct {
	*os.File
	raw           syscall.RawConn
	path          string
	device, inode uint64
	adopted       bool // made by another process, who looks after the path; see AdoptSocket

	// borrowed is set while another process serves the socket too, and looks after the path; see handoverwire.go.
	borrowed atomic.Bool
}

// looksAfterPath reports whether who connects is ours to serve until the path is gone, and the path ours to remove.
func (s *SocketFile) looksAfterPath() bool { return !s.adopted && !s.borrowed.Load() }

// Path returns where the socket is in the file system; empty: an adopted one that is nowhere.
func (s *SocketFile) Path() string { return s.path }

// ErrServed says that somebody serves the path of a socket.
var ErrServed = errors.New("another gateway serves this path: stop it or choose another path")

// ListenAt makes a listening socket at path, with the given permission bits from its first moment.
// The socket is bound to a name of its own in the same folder and renamed over path, so that a dead
// socket there is replaced without a gap. Whatever is at path and is not a dead socket stays; the error is ErrServed if
// it is a live one.
func ListenAt(path string, mode os.FileMode) (*SocketFile, error) { return listenAt(path, mode, false) }

// TakePath is ListenAt that replaces a live socket too: the caller knows that who serves it is about to end. Connections to
// that one live on.
func TakePath(path string, mode os.FileMode) (*SocketFile, error) { return listenAt(path, mode, true) }

func listenAt(path string, mode os.FileMode, evenServed bool) (*SocketFile, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("socket %s: the folder cannot be opened: %w", path, err)
	}
	defer folder.Close() //nolint:errcheck // nothing was written
	// Two gateways that start at once must not both find the path free.
	unlock := lockFolder(folder)
	defer unlock()

	replace, err := claimable(path)
	if evenServed && errors.Is(err, ErrServed) {
		replace, err = true, nil
	}
	if err != nil {
		return nil, err
	}
	fd, temporary, err := bindTemporary(folder, path, mode)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	s, err := serveAt(fd, folder, temporary, path, mode, replace)
	if err != nil {
		_ = unix.Unlinkat(int(folder.Fd()), temporary, 0)
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return s, nil
}

// lockFolder keeps other gateways out of folder for a moment. If somebody else keeps the folder
// locked, it goes on without: the lock narrows a race, and the checks stand without it.
func lockFolder(folder *os.File) (unlock func()) {
	fd := int(folder.Fd())
	for range 100 {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return func() { _ = unix.Flock(fd, unix.LOCK_UN) }
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() {}
}

// claimable reports whether there is nothing at path, or (replace) a socket that nobody serves.
func claimable(path string) (replace bool, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("socket %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return false, fmt.Errorf("socket %s: there is a %s at this path, not a socket; it is left untouched: remove it or choose another path", path, kindOf(info.Mode()))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case err == nil, errors.Is(err, unix.EAGAIN):
		// EAGAIN: alive, with a full backlog.
		return false, fmt.Errorf("socket %s: %w", path, ErrServed)
	case errors.Is(err, unix.ECONNREFUSED):
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	}
	return false, fmt.Errorf("socket %s: cannot tell whether somebody serves this path; it is left untouched: %w", path, err)
}

func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case fs.ModeDir:
		return "folder"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	case 0:
		return "file"
	}
	return "device"
}

// bindTemporary returns a bound socket and its name in folder, that of path. Its permission bits are never wider
// than mode: Linux takes those of the new file from the socket's own, less the umask.
func bindTemporary(folder *os.File, path string, mode os.FileMode) (fd int, name string, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, "", os.NewSyscallError("socket", err)
	}
	if err = unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		_ = unix.Close(fd)
		return -1, "", os.NewSyscallError("fchmod", err)
	}
	// The kernel goes on showing the name that was bound, in ss and lsof: it should tell whose it is.
	name = fmt.Sprintf(".%s.%d-%04x", filepath.Base(path), os.Getpid(), rand.Uint32N(1<<16))
	address := filepath.Join(filepath.Dir(path), name)
	if len(address) > SocketPathMax {
		address = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
	}
	if len(address) > SocketPathMax {
		name = fmt.Sprintf(".ipc-gateway-%d-%08x", os.Getpid(), rand.Uint32())
		address = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		_ = unix.Close(fd)
		return -1, "", os.NewSyscallError("bind", err)
	}
	return fd, name, nil
}

// serveAt listens on the bound socket fd, which it takes over, and moves it to path.
func serveAt(fd int, folder *os.File, temporary, path string, mode os.FileMode, replace bool) (s *SocketFile, err error) {
	f := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	folderFd := int(folder.Fd())
	// The umask may have taken bits away at bind.
	if err := unix.Fchmodat(folderFd, temporary, uint32(mode.Perm()), 0); err != nil {
		return nil, os.NewSyscallError("chmod", err)
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(folderFd, temporary, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, os.NewSyscallError("fstatat", err)
	}
	if err := move(folderFd, temporary, path, replace); err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &SocketFile{File: f, raw: raw, path: path, device: stat.Dev, inode: stat.Ino}, nil
}

// move gives the file temporary in folder the name path. Without replace, path must be free.
func move(folder int, temporary, path string, replace bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	err := unix.Renameat2(folder, temporary, unix.AT_FDCWD, path, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Not every file system can do without replacing. A second name can, and then the first one goes.
		if err = unix.Linkat(folder, temporary, unix.AT_FDCWD, path, 0); err == nil {
			err = unix.Unlinkat(folder, temporary, 0)
		}
	}
	return os.NewSyscallError("rename", err)
}

// accept waits for a connection and returns its descriptor, which does not block and is the
// caller's. The error is os.ErrDeadlineExceeded or os.ErrClosed for those, else the kernel's.
func (s *SocketFile) accept() (fd int, err error) {
	waitErr := s.raw.Read(func(listener uintptr) (done bool) {
		fd, _, err = unix.Accept4(int(listener), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if waitErr != nil {
		return -1, waitErr
	}
	return fd, os.NewSyscallError("accept4", err)
}

// Remove unlinks the path if it still leads to our socket. Connects are refused from then on;
// those that were made before can still be accepted.
func (s *SocketFile) Remove() error {
	if !s.looksAfterPath() {
		return nil
	}
	folder, err := os.Open(filepath.Dir(s.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone with its folder
	}
	if err != nil {
		return err
	}
	defer folder.Close() //nolint:errcheck // nothing was written
	unlock := lockFolder(folder)
	defer unlock()
	var stat unix.Stat_t
	if err := unix.Lstat(s.path, &stat); err != nil || stat.Dev != s.device || stat.Ino != s.inode {
		return nil // somebody else's, or gone
	}
	return os.Remove(s.path)
}
