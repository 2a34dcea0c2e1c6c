package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// listen opens a Unix socket, serves its first connection with serve and returns its path. The
// connection is closed when serve returns.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gw.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return path
}

// echo answers each frame with itself, once it was read whole: like the gateway, and unlike a plain
// copy, it does not make a client that only writes wait.
func echo(conn net.Conn) {
	buffer := make([]byte, codec.FrameBytesMax)
	for {
		if _, err := io.ReadFull(conn, buffer[:4]); err != nil {
			return
		}
		frame := buffer[:codec.FrameBytes(buffer[:4])]
		if _, err := io.ReadFull(conn, frame[4:]); err != nil {
			return
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

func dial(t *testing.T, path string) *client.Conn {
	t.Helper()
	c, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func frames() []codec.Frame {
	return []codec.Frame{
		{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: []byte(`{"task":"x"}`)},
		{Version: codec.Version1, Type: codec.TypePing},
		{
			Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: 1<<63 + 5, TimeoutMs: 250,
			Subject: []byte("a.b"), Headers: []byte("K: v\r\n"), Payload: []byte("hello"),
		},
		{Version: codec.Version2, Type: codec.TypePublish, Flags: codec.FlagNoReply, CorrelationID: 2, Subject: []byte("a")},
		{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: 3, Subject: []byte("big"), Payload: bytes.Repeat([]byte{7}, 300_000)},
		{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: 4, Payload: make([]byte, codec.FrameBytesMax-codec.HeaderBytesV2)},
	}
}

func checkEqual(t *testing.T, got, want *codec.Frame) {
	t.Helper()
	if got.Version != want.Version || got.Type != want.Type || got.Flags != want.Flags ||
		got.CorrelationID != want.CorrelationID || got.TimeoutMs != want.TimeoutMs ||
		!bytes.Equal(got.Subject, want.Subject) || !bytes.Equal(got.Headers, want.Headers) || !bytes.Equal(got.Payload, want.Payload) {
		t.Fatalf("got %v id %d subject %q headers %q payload of %d bytes, want %v id %d subject %q headers %q payload of %d bytes",
			got.Type, got.CorrelationID, got.Subject, got.Headers, len(got.Payload),
			want.Type, want.CorrelationID, want.Subject, want.Headers, len(want.Payload))
	}
}

// Every field of a frame, and every size up to the largest, survives the way there and back.
func TestDoRoundTrip(t *testing.T) {
	c := dial(t, listen(t, echo))
	for _, f := range frames() {
		answer, err := c.Do(&f)
		if err != nil {
			t.Fatal(err)
		}
		checkEqual(t, &answer, &f)
	}
}

// Frames that come in one piece, and frames that come byte by byte, are the same to Receive.
func TestReceiveAnyChunking(t *testing.T) {
	want := frames()[:4]
	var stream []byte
	for range 50 {
		for i := range want {
			stream = codec.AppendFrame(stream, &want[i])
		}
	}
	for _, chunk := range []int{1, 3, 1000, len(stream)} {
		c := dial(t, listen(t, func(conn net.Conn) {
			for rest := stream; len(rest) > 0; {
				n, err := conn.Write(rest[:min(chunk, len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
		}))
		for i := range 50 * len(want) {
			got, err := c.Receive()
			if err != nil {
				t.Fatalf("chunks of %d bytes, frame %d: %v", chunk, i, err)
			}
			checkEqual(t, &got, &want[i%len(want)])
		}
		if _, err := c.Receive(); !errors.Is(err, client.ErrClosed) || !errors.Is(err, io.EOF) {
			t.Fatalf("after the last frame: got %v, want ErrClosed and io.EOF", err)
		}
	}
}

func TestReceiveTornFrame(t *testing.T) {
	f := codec.Frame{Version: codec.Version2, Type: codec.TypePong, Payload: []byte("never whole")}
	stream := codec.AppendFrame(nil, &f)
	c := dial(t, listen(t, func(conn net.Conn) { _, _ = conn.Write(stream[:len(stream)-1]) }))
	if _, err := c.Receive(); !errors.Is(err, client.ErrClosed) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want ErrClosed and io.ErrUnexpectedEOF", err)
	}
}

func TestReceiveFromSomethingElse(t *testing.T) {
	c := dial(t, listen(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }))
	if _, err := c.Receive(); !errors.Is(err, client.ErrProtocol) {
		t.Fatalf("got %v, want ErrProtocol", err)
	}
}

// A deadline that passes in the middle of a frame loses none of it.
func TestReceiveGoesOnAfterDeadline(t *testing.T) {
	f := codec.Frame{Version: codec.Version2, Type: codec.TypePong, CorrelationID: 9, Payload: []byte("late")}
	stream := codec.AppendFrame(nil, &f)
	late := make(chan struct{})
	c := dial(t, listen(t, func(conn net.Conn) {
		_, _ = conn.Write(stream[:10])
		<-late
		_, _ = conn.Write(stream[10:])
	}))
	if err := c.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want os.ErrDeadlineExceeded", err)
	}
	close(late)
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, &got, &f)
}

// What cannot be a frame is refused before a byte is sent, and the connection stays good.
func TestSendRefuses(t *testing.T) {
	c := dial(t, listen(t, echo))
	for name, f := range map[string]codec.Frame{
		"no version":               {Type: codec.TypePing},
		"version 1 with subject":   {Version: codec.Version1, Type: codec.TypeTaskSubmit, Subject: []byte("a")},
		"version 1 with id":        {Version: codec.Version1, Type: codec.TypeTaskSubmit, CorrelationID: 1},
		"long subject":             {Version: codec.Version2, Type: codec.TypeRequest, Subject: make([]byte, 1<<16)},
		"long headers":             {Version: codec.Version2, Type: codec.TypeRequest, Headers: make([]byte, 1<<16)},
		"payload over the largest": {Version: codec.Version2, Type: codec.TypeRequest, Payload: make([]byte, codec.FrameBytesMax-codec.HeaderBytesV2+1)},
	} {
		if err := c.Send(&f); !errors.Is(err, client.ErrFrame) {
			t.Errorf("%s: got %v, want ErrFrame", name, err)
		}
	}
	good := frames()[0]
	answer, err := c.Do(&good)
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, &answer, &good)
}

// The message of a failed Dial says what to do.
func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	deserted := filepath.Join(dir, "deserted.sock")
	listener, err := net.Listen("unix", deserted)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = listener.Close()

	for path, want := range map[string]string{
		filepath.Join(dir, "none.sock"): "start a gateway",
		deserted:                        "start it again",
		strings.Repeat("x", 200):        "connect to the gateway",
	} {
		if _, err := client.Dial(context.Background(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", path, err, want)
		}
	}
}

// Frames of a steady size cost no allocation: both buffers are reused.
func TestAllocDo(t *testing.T) {
	c := dial(t, listen(t, echo))
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	f := frames()[2]
	do := func() {
		if _, err := c.Do(&f); err != nil {
			t.Fatal(err)
		}
	}
	do()
	// One run of many calls: an average per call would round down.
	const calls = 2000
	allocs := testing.AllocsPerRun(1, func() {
		for range calls {
			do()
		}
	})
	// The echo's goroutine and the runtime may allocate a few times, not per call.
	if allocs > calls/100 {
		t.Errorf("%v allocations in %d calls", allocs, calls)
	}
}
