package engine

import (
	"errors"
	"log/slog"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerCredentials says who is at the other end of a connection, as the kernel knows it from the moment of
// the connect.
type peerCredentials struct {
	uid, gid uint32
	pid      int32 // 0: of a PID namespace that we do not see
}

// unknownID is the uid and gid that the kernel gives to nobody: chown(2) and setresuid(2) read it as "leave it".
const unknownID = ^uint32(0)

// credentialsOf asks the kernel who connected.
func credentialsOf(fd int) peerCredentials {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		// Linux always knows them for a Unix socket. Whoever it is, he is trusted with nothing.
		return peerCredentials{uid: unknownID, gid: unknownID}
	}
	return peerCredentials{uid: credentials.Uid, gid: credentials.Gid, pid: credentials.Pid}
}

// groupsMany is more groups than most users are in.
const groupsMany = 64

// supplementaryGroupsOf asks the kernel which groups the client was in when it connected, beside its
// own. If it does not say, as before Linux 4.13, there are none.
func supplementaryGroupsOf(fd int) []uint32 {
	groups := make([]uint32, groupsMany)
	for {
		size := uint32(len(groups)) * uint32(unsafe.Sizeof(groups[0]))
		_, _, err := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		count := int(size) / int(unsafe.Sizeof(groups[0]))
		switch {
		case err == 0:
			return groups[:count]
		case errors.Is(err, unix.ERANGE) && count > len(groups):
			groups = make([]uint32, count) // the kernel told how many there are
		default:
			return nil
		}
	}
}

// LogValue implements slog.LogValuer.
func (p peerCredentials) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("uid", uint64(p.uid)), slog.Uint64("gid", uint64(p.gid)), slog.Int("pid", int(p.pid)))
}

// UserOf asks the kernel which user connected to the Unix socket fd; ok is false if it does not say.
func UserOf(fd int) (uid uint32, ok bool) {
	uid = credentialsOf(fd).uid
	return uid, uid != unknownID
}
