package upstream

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loopStub is a loop that writes down what its link tells it.
type loopStub struct {
	delivered map[uint64]string
	written   uint64
	down      []uint64
	inFlight  bool
	blocked   int
}

func (s *loopStub) Deliver(token uint64, m *Message) {
	if s.delivered != nil {
		s.delivered[token] = string(m.Payload)
	}
}
func (s *loopStub) Written(written uint64)        { s.written = written }
func (s *loopStub) InFlight(uint64) bool          { return s.inFlight }
func (s *loopStub) LinkDown(_, _, written uint64) { s.down = append(s.down, written) }
func (s *loopStub) AwaitWritable(int)             { s.blocked++ }
func (s *loopStub) Wake()                         {}

// openLink returns a ready link whose connection is one end of a socket pair; the other end is server.
func openLink(t testing.TB, bufferedMax int) (l *Link, loop *loopStub, server *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	server = os.NewFile(uintptr(fds[1]), "server")
	t.Cleanup(func() {
		_ = unix.Close(fds[0])
		_ = server.Close()
	})
	loop = &loopStub{delivered: map[uint64]string{}}
	l = newLink(loop, newStatus(slog.New(slog.DiscardHandler)), "_INBOX.test", bufferedMax)
	l.wire = &Wire{link: l, tap: newTap(nil, nil, loop.Wake), fd: fds[0], server: "server"}
	l.maxPayload, l.headers = 1<<20, true
	l.ready.Store(true)
	return l, loop, server
}

func TestPublishWritesTheProtocol(t *testing.T) {
	l, loop, server := openLink(t, 1<<20)
	end, err := l.Publish([]byte("a.b"), nil, []byte("hello"), 7, true)
	if err != nil {
		t.Fatal(err)
	}
	end2, err := l.Publish([]byte("c"), []byte("A: b\r\n"), []byte("x"), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	const want = "PUB a.b _INBOX.test.00000000007 5\r\nhello\r\n" + "HPUB c 18 19\r\nNATS/1.0\r\nA: b\r\n\r\nx\r\n"
	if end != uint64(strings.Index(want, "HPUB")) || end2 != uint64(len(want)) {
		t.Errorf("ends at %d and %d, want %d and %d", end, end2, strings.Index(want, "HPUB"), len(want))
	}
	l.Flush()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(server, got); err != nil || string(got) != want {
		t.Errorf("wrote %q, %v\nwant  %q", got, err, want)
	}
	if loop.written != end2 || l.PendingBytes() != 0 {
		t.Errorf("written %d, pending %d", loop.written, l.PendingBytes())
	}
}

// Goal: what Written and LinkDown tell is exactly what the socket took.
func TestOffsetsFollowTheSocket(t *testing.T) {
	l, loop, server := openLink(t, 8<<20)
	payload := bytes.Repeat([]byte("p"), 100_000)
	var ends []uint64
	for range 30 { // more than a socket pair holds
		end, err := l.Publish([]byte("a"), nil, payload, 1, true)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	l.Flush()
	if loop.blocked != 1 || loop.written == 0 || loop.written >= ends[29] || l.Pending() {
		t.Fatalf("blocked %d times, %d of %d written, pending %v", loop.blocked, loop.written, ends[29], l.Pending())
	}
	taken := make([]byte, loop.written)
	if _, err := io.ReadFull(server, taken); err != nil {
		t.Fatal(err)
	}
	l.Flush()
	if loop.written <= uint64(len(taken)) {
		t.Errorf("still %d written once there was room", loop.written)
	}
	written := loop.written
	wire := l.wire
	wire.Closed(nil)
	if len(loop.down) != 1 || loop.down[0] != written || l.Ready() {
		t.Errorf("LinkDown(%v), ready %v; want LinkDown([%d])", loop.down, l.Ready(), written)
	}
	if dropped := l.Counters.Dropped.Load(); dropped != ends[29]-written {
		t.Errorf("%d bytes counted as dropped, want %d", dropped, ends[29]-written)
	}
	if _, err := l.Publish([]byte("a"), nil, payload, 1, true); err != ErrNotReady {
		t.Errorf("Publish after the loss: %v, want %v", err, ErrNotReady)
	}
	wire.Closed(nil) // an old epoch's close must not touch the next one
	if len(loop.down) != 1 {
		t.Error("a second close of the same connection ended something")
	}
}

func TestPublishRefusesWhatDoesNotFit(t *testing.T) {
	l, _, _ := openLink(t, 4096)
	l.maxPayload = 1000
	if _, err := l.Publish([]byte("a"), []byte("A: b\r\n"), make([]byte, 983), 0, false); err != ErrTooLarge {
		t.Errorf("1001 bytes of headers and payload: %v, want %v", err, ErrTooLarge)
	}
	if _, err := l.Publish([]byte("a"), []byte("A: b\r\n"), make([]byte, 982), 0, false); err != nil {
		t.Errorf("1000 bytes of headers and payload: %v", err)
	}
	var err error
	for range 10 {
		if _, err = l.Publish([]byte("a"), nil, make([]byte, 1000), 0, false); err != nil {
			break
		}
	}
	if err != ErrFull || l.PendingBytes() > 4096 {
		t.Errorf("filling 4096 bytes: %v with %d waiting, want %v", err, l.PendingBytes(), ErrFull)
	}
}

// Goal: replies to us stay in the loop, everything else reaches nats.go byte for byte.
func TestReceivedIsSplitBetweenLoopAndTap(t *testing.T) {
	l, loop, _ := openLink(t, 4096)
	stream := "PING\r\nMSG _INBOX.test.00000000007 1 5\r\nhello\r\nMSG other.subject 2 2\r\nhi\r\n" +
		"MSG _INBOX.test.not-a-token 1 1\r\nx\r\nINFO {\"max_payload\":77}\r\n"
	l.wire.Received([]byte(stream))
	if loop.delivered[7] != "hello" {
		t.Errorf("delivered %v", loop.delivered)
	}
	if text, found := loop.delivered[0]; !found || text != "x" {
		t.Errorf("a foreign token must be told as token 0, which no request has: %v", loop.delivered)
	}
	const want = "PING\r\nMSG other.subject 2 2\r\nhi\r\nINFO {\"max_payload\":77}\r\n"
	got := make([]byte, 200)
	if n, err := l.wire.tap.Read(got); err != nil || string(got[:n]) != want {
		t.Errorf("nats.go reads %q, %v\nwant %q", got[:n], err, want)
	}
	if l.MaxPayload() != 77 {
		t.Errorf("max_payload %d, want 77", l.MaxPayload())
	}
}

func TestGarbageBreaksTheConnectionOnly(t *testing.T) {
	l, loop, _ := openLink(t, 4096)
	l.wire.Received([]byte("PING\r\nGARBAGE\r\nMSG _INBOX.test.00000000007 1 5\r\nhello\r\n"))
	if !l.wire.broken || len(loop.delivered) != 0 {
		t.Errorf("broken %v, delivered %v", l.wire.broken, loop.delivered)
	}
	if _, err := l.Publish([]byte("a"), nil, nil, 0, false); err != nil {
		t.Errorf("Publish before the loop has closed it: %v", err)
	}
	l.Flush()
	if l.PendingBytes() == 0 {
		t.Error("a broken connection was written to")
	}
}
