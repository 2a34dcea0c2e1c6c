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
// after each for a byte, taken: what was not taken is still the sender's.
//
//	byte 0      kind
//	bytes 1-3   zero
//	bytes 4-7   length of in, big endian
//	bytes 8-11  length of out, big endian
//	then        in, out

const (
	messageSockets byte = 'S' // in: a passedSocket as JSON; descriptors: the listener and, if there is one, that of the probe
	messageClient  byte = 'C' // in: read and not served; out: not yet written; descriptor: the connection
	messageDone    byte = 'D' // that was all

	messageHeaderBytes = 12
	// messageBytesMax is far above what a client's buffers can hold.
	messageBytesMax = 2 << 30

	wantSockets byte = 'W'
	taken       byte = 'T'
)

type message struct {
	kind    byte
	in, out []byte
}

// passedSocket describes the listening socket.
type passedSocket struct {
	Path    string `json:"path"`
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	Adopted bool   `json:"adopted"` // see AdoptSocket
	Probe   string `json:"probe"`   // the setting by which the probe's listener was made
}

// pass is passDescriptors for files.
func pass(conn *net.UnixConn, m message, files ...*os.File) error {
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
	return passDescriptors(conn, m, fds...)
}

// passDescriptors sends m and waits until it is taken.
func passDescriptors(conn *net.UnixConn, m message, fds ...int) error {
	if err := conn.SetDeadline(time.Now().Add(handoverWait)); err != nil {
		return err
	}
	header := make([]byte, messageHeaderBytes)
	header[0] = m.kind
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
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("the other process did not take it: %w", err)
	}
	if answer[0] != taken {
		return fmt.Errorf("the other process answered with 0x%02x", answer[0])
	}
	return nil
}

// receive reads a message and its descriptors, which are the caller's, within wait.
func receive(conn *net.UnixConn, wait time.Duration) (m message, fds []int, err error) {
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return m, nil, err
	}
	header, rights := make([]byte, messageHeaderBytes), make([]byte, unix.CmsgSpace(4*4))
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
	m.kind = header[0]
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

// acknowledge says that the last message was taken.
func acknowledge(conn *net.UnixConn) error {
	_, err := conn.Write([]byte{taken})
	return err
}
