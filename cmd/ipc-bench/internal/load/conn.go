package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// readBytes is the size of a connection's read buffer; a longer frame makes it grow.
const readBytes = 64 << 10

// slot is a request in flight.
type slot struct {
	seq    uint64
	fromNs int64 // when it should have been sent, on the monotonic clock: its latency counts from here
	sentNs int64 // when it was sent: an answer may take so long from here
	used   bool
}

// conn is one connection, non-blocking. It belongs to one worker.
type conn struct {
	fd      int
	number  int // among those of all workers
	frame   codec.Frame
	payload payload
	dead    error // why nothing more is sent and read; nil: it lives

	seq   uint64 // of the next request
	slots []slot
	free  []uint32 // indexes of slots that are not in use
	order []uint32 // v1: a ring of the slots in use, oldest at head
	head  int

	unsent    int   // requests of the schedule that are due and found no free slot
	scheduled int64 // requests of the schedule that were sent

	in           []byte
	start, end   int // in[start:end] was read and is not taken yet
	out          []byte
	taken        int  // out[:taken] the kernel has
	writeBlocked bool // the worker waits until the kernel takes more
}

func dial(s *Spec, number int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.Socket}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to %s: %w", s.Socket, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &conn{
		fd: fd, number: number, payload: newPayload(number, s.PayloadBytes),
		frame: codec.Frame{Version: s.Version, Type: s.Type, Subject: []byte(s.Subject)},
		slots: make([]slot, s.Window), free: make([]uint32, s.Window), order: make([]uint32, s.Window),
		in: make([]byte, readBytes),
	}
	for i := range c.free {
		c.free[i] = uint32(s.Window - 1 - i)
	}
	return c, nil
}

func (c *conn) inflight() int { return len(c.slots) - len(c.free) }

// append adds a request to what flush writes at nowNs. Its latency counts from fromNs.
//
// REQUIRES: a free slot.
func (c *conn) append(fromNs, nowNs int64) {
	inflight := c.inflight()
	last := len(c.free) - 1
	i := c.free[last]
	c.free = c.free[:last]
	c.slots[i] = slot{seq: c.seq, fromNs: fromNs, sentNs: nowNs, used: true}
	c.order[(c.head+inflight)%len(c.order)] = i
	c.frame.Payload = c.payload.of(c.number, c.seq)
	if c.frame.Version == codec.Version2 {
		c.frame.CorrelationID = correlationID(c.seq, i)
	}
	c.out = codec.AppendFrame(c.out, &c.frame)
	c.seq++
}

// correlationID numbers a request so that its answer finds the slot again.
func correlationID(seq uint64, slot uint32) uint64 { return seq<<16 | uint64(slot) }

// flush writes what the kernel takes. After an error the connection is dead.
func (c *conn) flush() error {
	for c.taken < len(c.out) {
		n, err := unix.Write(c.fd, c.out[c.taken:])
		switch {
		case n > 0:
			c.taken += n
		case errors.Is(err, unix.EAGAIN):
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("write: %w", err)
		}
	}
	c.out, c.taken = c.out[:0], 0
	return nil
}

// fill reads once. It returns nil when there is nothing to read.
func (c *conn) fill() error {
	if c.start > 0 {
		c.end = copy(c.in, c.in[c.start:c.end])
		c.start = 0
	}
	if want := min(codec.FrameBytes(c.in[:c.end]), codec.FrameBytesMax); want > len(c.in) {
		c.in = append(c.in, make([]byte, want-len(c.in))...)
	}
	n, err := unix.Read(c.fd, c.in[c.end:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return fmt.Errorf("the gateway closed the connection with %d requests in flight: %w", c.inflight(), io.EOF)
	}
	c.end += n
	return nil
}

// take returns the next whole frame of what was read; false: there is none. Its slices are valid until fill.
func (c *conn) take() (codec.Frame, bool, error) {
	f, n, err := codec.Decode(c.in[c.start:c.end])
	if err != nil {
		return codec.Frame{}, false, fmt.Errorf("an answer that is no frame: %w", err)
	}
	c.start += n
	return f, n > 0, nil
}

// lastWords returns why the gateway has closed the connection, if it said so before nothing could be written, else err.
func (c *conn) lastWords(err error) error {
	if c.fill() != nil {
		return err
	}
	for {
		f, more, unreadable := c.take()
		if !more || unreadable != nil {
			return err
		}
		if _, refused := refusal(&f); refused != nil {
			return fmt.Errorf("the gateway refuses it: %w", refused)
		}
	}
}

// uncalled returns the error that the gateway sends without being asked, such as to a connection that it has no room for; nil:
// f is something else.
func (c *conn) uncalled(f *codec.Frame) error {
	if f.Version == c.frame.Version && c.inflight() > 0 {
		return nil
	}
	if _, err := refusal(f); err != nil {
		return fmt.Errorf("the gateway refuses it: %w", err)
	}
	return nil
}

// settle finds the request that f answers and frees its slot. Without one the answer is wrong.
func (c *conn) settle(f *codec.Frame) (slot, error) {
	if f.Version != c.frame.Version {
		return slot{}, fmt.Errorf("connection %d: an answer of version %d (%v) to frames of version %d", c.number, f.Version, f.Type, c.frame.Version)
	}
	if c.inflight() == 0 {
		return slot{}, fmt.Errorf("connection %d: an answer (%v) with no request in flight", c.number, f.Type)
	}
	i := c.order[c.head]
	if f.Version == codec.Version2 {
		i = uint32(f.CorrelationID & (WindowMax - 1))
		if int(i) >= len(c.slots) || !c.slots[i].used || correlationID(c.slots[i].seq, i) != f.CorrelationID {
			return slot{}, fmt.Errorf("connection %d: an answer with correlation id %d, which is not in flight", c.number, f.CorrelationID)
		}
	} else {
		c.head = (c.head + 1) % len(c.order)
	}
	s := c.slots[i]
	c.slots[i].used = false
	c.free = append(c.free, i)
	return s, nil
}

// refusal is the error that an error answer carries, or nil for other answers.
func refusal(f *codec.Frame) (name string, err error) {
	if f.Type != codec.TypeResponseError {
		return "", nil
	}
	info, err := codec.ParseError(f.Payload)
	if err != nil {
		return "unreadable error", fmt.Errorf("an error answer that cannot be read: %w", err)
	}
	return info.Name, fmt.Errorf("%s: %s", info.Name, info.Message)
}

// check compares an answer that is no refusal with request seq. It says what the answer shows of the
// request's payload where expect is ExpectLearned.
func (c *conn) check(f *codec.Frame, seq uint64, expect Expect) (Expect, error) {
	want := codec.TypeResponseOK
	if c.frame.Type == codec.TypePing {
		want = codec.TypePong
	}
	if f.Type != want {
		return expect, fmt.Errorf("connection %d: request %d was answered with %v, not %v", c.number, seq, f.Type, want)
	}
	sent := c.payload.of(c.number, seq)
	if expect == ExpectLearned {
		expect = shown(f.Payload, sent)
	}
	if expect == ExpectEcho && !bytes.Equal(f.Payload, sent) || expect == ExpectPart && !bytes.Contains(f.Payload, sent) {
		return expect, fmt.Errorf("connection %d: the answer to request %d has not its payload: %s", c.number, seq, excerpt(f.Payload))
	}
	if expect == ExpectOK {
		if mark, found := c.payload.markIn(f.Payload); found && mark != markOf(c.number, seq) {
			return expect, fmt.Errorf("connection %d: the answer to request %d is that to request %d of connection %d: %s",
				c.number, seq, mark&(1<<48-1), mark>>48, excerpt(f.Payload))
		}
	}
	return expect, nil
}

// shown says what an answer shows of what was sent.
func shown(got, sent []byte) Expect {
	switch {
	case bytes.Equal(got, sent):
		return ExpectEcho
	case len(sent) >= markBytes && bytes.Contains(got, sent):
		return ExpectPart
	}
	return ExpectOK
}

// excerpt is as much of a payload as fits a message.
func excerpt(b []byte) string {
	const shownBytes = 80
	if len(b) <= shownBytes {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q... (%d bytes)", b[:shownBytes], len(b))
}
