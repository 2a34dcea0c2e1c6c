package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// Sizes of the read buffer, in bytes. It grows to the largest frame that came, and stays so.
const (
	readBufferBytesMin = 64 << 10
	readBufferBytesMax = codec.FrameBytesMax
)

var (
	// ErrClosed is returned when the gateway ended the connection: it stopped, or the last answer
	// was of the kind that closes. Dial again.
	ErrClosed = errors.New("the gateway closed the connection")
	// ErrFrame is returned by Send for a frame that the protocol cannot carry; nothing was sent and
	// the connection stays good. The message says which field is too long.
	ErrFrame = errors.New("frame does not fit the protocol")
	// ErrProtocol is returned when the peer sent bytes that are no frame. It is not the gateway, or
	// not of this protocol version: check the socket's path.
	ErrProtocol = errors.New("the peer does not speak the gateway's protocol")
)

// Conn is a connection to a gateway. One goroutine may send while another one receives; two must
// not do the same at once.
type Conn struct {
	conn net.Conn
	path string

	out []byte // the frame being sent; reused

	in    []byte // read buffer; reused
	start int    // in[start:end] was read and not handed out yet
	end   int
}

// Dial connects to the gateway's socket at path. It does not wait for a gateway that is not there;
// ctx bounds the rare wait for a place in the socket's backlog.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, dialError(path, err)
	}
	return New(conn), nil
}

// New makes a Conn of a connection to the gateway that the caller has opened. It is the Conn's from now on.
func New(conn net.Conn) *Conn {
	return &Conn{conn: conn, path: conn.RemoteAddr().String(), in: make([]byte, readBufferBytesMin)}
}

// dialError adds what to do about err.
func dialError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no gateway socket at %s: start a gateway there, or name the socket it has: %w", path, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s: its gateway is gone, start it again: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s does not let this user in: run as its owner, or give the gateway a wider socket mode and name this user with --allow-uid: %w", path, err)
	}
	return fmt.Errorf("connect to the gateway at %s: %w", path, err)
}

// Send writes f, whole. It borrows f's slices only until it returns. It blocks while the gateway
// takes no more bytes, until the deadline.
func (c *Conn) Send(f *codec.Frame) error {
	if err := checkFrame(f); err != nil {
		return err
	}
	c.out = codec.AppendFrame(c.out[:0], f)
	if _, err := c.conn.Write(c.out); err != nil {
		return c.ioError("send to", err)
	}
	return nil
}

// checkFrame refuses what codec.AppendFrame could not represent and what every gateway would refuse.
func checkFrame(f *codec.Frame) error {
	headerBytes := codec.HeaderBytesV1
	switch f.Version {
	case codec.Version1:
		if len(f.Subject) != 0 || len(f.Headers) != 0 || f.Flags != 0 || f.CorrelationID != 0 || f.TimeoutMs != 0 {
			return fmt.Errorf("%w: version 1 has no subject, headers, flags, correlation id and timeout: use version 2", ErrFrame)
		}
	case codec.Version2:
		headerBytes = codec.HeaderBytesV2
		if n := len(f.Subject); n > codec.SubjectBytesMax {
			return fmt.Errorf("%w: the subject has %d bytes, at most %d fit", ErrFrame, n, codec.SubjectBytesMax)
		}
		if n := len(f.Headers); n > codec.HeadersBytesMax {
			return fmt.Errorf("%w: the headers have %d bytes, at most %d fit", ErrFrame, n, codec.HeadersBytesMax)
		}
	default:
		return fmt.Errorf("%w: version %d is neither 1 nor 2", ErrFrame, f.Version)
	}
	if n := headerBytes + len(f.Subject) + len(f.Headers) + len(f.Payload); n > codec.FrameBytesMax {
		return fmt.Errorf("%w: it has %d bytes, at most %d fit", ErrFrame, n, codec.FrameBytesMax)
	}
	return nil
}

// Receive returns the next frame. Its slices point into the connection's read buffer: they are valid
// until the next Receive. It blocks until a frame is there, until the deadline. After an error the
// connection is of no more use, except after an expired deadline: a later Receive goes on where this
// one stopped.
func (c *Conn) Receive() (codec.Frame, error) {
	for {
		f, n, err := codec.Decode(c.in[c.start:c.end])
		if err != nil {
			return codec.Frame{}, fmt.Errorf("%w: %w from %s", ErrProtocol, err, c.path)
		}
		if n > 0 {
			c.start += n
			return f, nil
		}
		c.makeRoom()
		n, err = c.conn.Read(c.in[c.end:])
		c.end += n
		if n == 0 && err != nil {
			return codec.Frame{}, c.readError(err)
		}
	}
}

// makeRoom leaves free bytes behind c.end: it moves the partial frame to the front, and grows the
// buffer once to the length that the frame states.
func (c *Conn) makeRoom() {
	if c.start > 0 {
		c.end = copy(c.in, c.in[c.start:c.end])
		c.start = 0
	}
	if want := min(codec.FrameBytes(c.in[:c.end]), readBufferBytesMax); want > len(c.in) {
		grown := make([]byte, want)
		copy(grown, c.in[:c.end])
		c.in = grown
	}
}

func (c *Conn) readError(err error) error {
	if !errors.Is(err, io.EOF) {
		return c.ioError("receive from", err)
	}
	if torn := c.end - c.start; torn > 0 {
		return fmt.Errorf("%w at %s after %d bytes of a frame: %w", ErrClosed, c.path, torn, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w at %s: %w", ErrClosed, c.path, io.EOF)
}

func (c *Conn) ioError(what string, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s the gateway at %s: it did not answer in time: %w", what, c.path, err)
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w at %s: %w", ErrClosed, c.path, err)
	}
	return fmt.Errorf("%s the gateway at %s: %w", what, c.path, err)
}

// Do sends f and returns the next frame that comes. It is for one request at a time: with others in
// flight the frame may be the answer to one of them. The frame's slices are valid until the next
// Receive or Do.
func (c *Conn) Do(f *codec.Frame) (codec.Frame, error) {
	if err := c.Send(f); err != nil {
		return codec.Frame{}, err
	}
	return c.Receive()
}

// SetDeadline bounds every Send and Receive from now on; the zero time lifts the bound. An expired
// Send may have written a part of its frame, after which only Close makes sense.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Close closes the connection. Requests in flight are given up by the gateway; a Receive that waits
// returns an error.
func (c *Conn) Close() error { return c.conn.Close() }
