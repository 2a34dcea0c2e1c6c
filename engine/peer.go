package engine

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// peerCredentials says who is at the other end of a connection, as the kernel knows it from the moment of
// the connect.
type peerCredentials struct {
	uid, gid uint32
	pid      int32 // 0: of a PID namespace that we do not see
}

// unknownID is the kernel's overflow value: nobody's uid or gid.
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

// LogValue implements slog.LogValuer.
func (p peerCredentials) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("uid", uint64(p.uid)), slog.Uint64("gid", uint64(p.gid)), slog.Int("pid", int(p.pid)))
}
