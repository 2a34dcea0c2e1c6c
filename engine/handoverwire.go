package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What the two processes of a handover say to each other, over a Unix stream socket. The one that takes over asks for
// the sockets with a byte, wantSockets. Then the other one sends messages, each with the descriptors that belong to it, and waits
// after each for a byte, taken.
//
//	byte 0      kind
//	byte 1      flags of a client
//	bytes 2-3   zero
//	bytes 4-7   length of in, big endian
//	bytes 8-11  length of out, big endian
//	then        in, out
//
// # Who has what
//
// A client is the sender's to keep until taken is in the socket, and the receiver's from then on: that one serves it only
// when the write of that byte has succeeded, and the sender closes it only when it has read the byte, so that between the two
// nobody serves it. No clock decides: whoever freezes finds what he had left. The sender ends the wait by shutting the connection
// down. The kernel lets either this or the byte come first: the byte can be read after it, or its write fails.
//
// Once the sockets are taken the process that ends the connection before messageDone is taken leaves the service to the
// other one, and ends: it was told to stop, or has failed. One that dies ends it as well, and one that freezes does not. So the one
// that sees the end is the one that remains, and looks after the paths of the sockets.

const (
	messageSockets byte = 'S' // in: a passedSockets as JSON; descriptors: the listener, then those of the probe and the operator, if there are any
	messageClient  byte = 'C' // in: read and not served; out: not yet written; descriptor: the connection
	messageDone    byte = 'D' // that was all

	// flagFinishing: no more frames are read from the client: it ends when out is written.
	flagFinishing byte = 1 << 0
	// flagEOF: the client has shut down its writing side.
	flagEOF byte = 1 << 1

	messageHeaderBytes = 12
	// messageBytesMax is far above what a client's buffers can hold.
	messageBytesMax = 2 << 30
	// descriptorsMax is how many come with a message.
	descriptorsMax = 3

	wantSockets byte = 'W'
	taken       byte = 'T'
)

type message struct {
	kind, flags byte
	in, out     []byte
}

// passedSockets describes what is passed before the clients.
type passedSockets struct {
	Main         passedSocket  `json:"main"`
	Control      *passedSocket `json:"control,omitempty"`
	HasProbe     bool          `json:"has_probe"`
	ProbeAddress string        `json:"probe_address"`
	NotifySocket string        `json:"notify_socket"`
	Watchdog     time.Duration `json:"watchdog"`
}

// passedSocket describes a listening socket.
type passedSocket struct {
	Path    string `json:"path"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	Adopted bool   `json:"adopted"` // see AdoptSocket
}

func (s *SocketFile) described() passedSocket {
	return passedSocket{Path: s.path, Device: s.device, Inode: s.inode, Adopted: s.adopted}
}

// socketFrom returns the socket that another process has passed as fd, which the caller still closes. Its path is that one's
// to look after for now.
func (p *passedSocket) socketFrom(fd *os.File) (*SocketFile, error) {
	s, err := AdoptSocket(fd)
	if err != nil {
		return nil, err
	}
	s.path, s.device, s.inode, s.adopted = p.Path, p.Device, p.Inode, p.Adopted
	s.borrowed.Store(true)
	return s, nil
}

// sendFiles is sendMessage for files.
func sendFiles(conn *net.UnixConn, m message, files ...*os.File) error {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn() // Fd would make them block
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return err
		}
	}
	defer runtime.KeepAlive(files)
	return sendMessage(conn, m, fds...)
}

// sendMessage sends m with descriptors, which stay the caller's. awaitTaken is to follow, without a bound: see above.
func sendMessage(conn *net.UnixConn, m message, fds ...int) error {
	header := make([]byte, messageHeaderBytes)
	header[0], header[1] = m.kind, m.flags
	binary.BigEndian.PutUint32(header[4:], uint32(len(m.in)))
	binary.BigEndian.PutUint32(header[8:], uint32(len(m.out)))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if n, _, err := conn.WriteMsgUnix(header, rights, nil); err != nil {
		return err
	} else if n < len(header) {
		return io.ErrShortWrite
	}
	// An empty write would fail if the other process had taken the message, and closed, already.
	if rest := slices.Concat(m.in, m.out); len(rest) > 0 {
		if _, err := conn.Write(rest); err != nil {
			return err
		}
	}
	return nil
}

// awaitTaken waits until the other process has taken a message.
func awaitTaken(conn *net.UnixConn) error {
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("the other process did not take it: %w", err)
	}
	if answer[0] != taken {
		return fmt.Errorf("the other process answered with 0x%02x", answer[0])
	}
	return nil
}

// receive reads a message and its descriptors, which are the caller's.
func receive(conn *net.UnixConn) (m message, fds []int, err error) {
	header, rights := make([]byte, messageHeaderBytes), make([]byte, unix.CmsgSpace(4*descriptorsMax))
	n, rightsBytes, _, _, err := conn.ReadMsgUnix(header, rights)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return m, nil, err
	}
	fds = descriptorsIn(rights[:rightsBytes])
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	if _, err := io.ReadFull(conn, header[n:]); err != nil {
		return m, nil, err
	}
	in, out := binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[8:])
	if uint64(in)+uint64(out) > messageBytesMax {
		return m, nil, errors.New("a message that is too long to be one")
	}
	m.kind, m.flags = header[0], header[1]
	if m.in, err = readBytes(conn, in); err == nil {
		m.out, err = readBytes(conn, out)
	}
	return m, fds, err
}

// readBytes reads n bytes, and makes no room for more than come.
func readBytes(from io.Reader, n uint32) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, from, int64(n))
	return b.Bytes(), err
}

// descriptorsIn returns the descriptors that came with a message.
func descriptorsIn(rights []byte) (fds []int) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	for i := range messages {
		if some, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, some...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// acknowledge says that the last message was taken. If it fails it was not, and is the other process's.
func acknowledge(conn *net.UnixConn) error {
	_, err := conn.Write([]byte{taken})
	return err
}

// credentialsOfConn tells which process is at the other end.
func credentialsOfConn(conn *net.UnixConn) (peer peerCredentials) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { peer = credentialsOf(int(fd)) })
	}
	return peer
}
