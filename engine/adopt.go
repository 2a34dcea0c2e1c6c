package engine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// AdoptSocket returns the listening socket that another process has passed as a descriptor, on a duplicate: the caller
// still closes file. Its path, which the process that made it looks after, is never removed, and who waits to be accepted when it is
// closed waits on, for the next one who is passed it.
func AdoptSocket(file *os.File) (*SocketFile, error) {
	connection, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var problem error
	err = connection.Control(func(passed uintptr) {
		if problem = checkListening(int(passed)); problem == nil {
			fd, problem = unix.FcntlInt(passed, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err = errors.Join(err, problem); err != nil {
		return nil, fmt.Errorf("the passed descriptor %q cannot be used: %w", file.Name(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), file.Name())
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &SocketFile{File: f, raw: raw, adopted: true, path: boundTo(fd)}, nil
}

// checkListening says what is wrong with a descriptor that should be a listening Unix stream socket.
func checkListening(fd int) error {
	for _, want := range []struct {
		option, value int
		otherwise     string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "it is no Unix socket: want a path in ListenStream="},
		{unix.SO_TYPE, unix.SOCK_STREAM, "it is no stream socket: want ListenStream=, not ListenDatagram= or ListenSequentialPacket="},
		{unix.SO_ACCEPTCONN, 1, "it does not listen: want Accept=no"},
	} {
		value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		switch {
		case errors.Is(err, unix.ENOTSOCK):
			return errors.New("it is no socket: want a path in ListenStream=")
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case value != want.value:
			return errors.New(want.otherwise)
		}
	}
	return nil
}

// boundTo returns the path that a Unix socket was bound to; empty: none, or an abstract address.
func boundTo(fd int) string {
	address, err := unix.Getsockname(fd)
	if bound, ok := address.(*unix.SockaddrUnix); err == nil && ok && CheckSocketPath(bound.Name) == nil {
		return bound.Name
	}
	return ""
}
