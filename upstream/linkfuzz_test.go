package upstream

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// fuzzStreamMax bounds the bytes that a fuzzed server says, so that an input takes no more than milliseconds.
const fuzzStreamMax = 64 << 10

// FuzzLink talks garbage to a link, not only to its parser. Whatever the server says, in whatever pieces, while
// requests are published and it takes them slowly: replies are delivered, and nats.go is told the rest, exactly as
// the stream has them up to its first error; what goes out is what was queued, in order; the counters agree with
// both; what waits is bounded; and the link closes, or goes on. After all that a new connection works.
func FuzzLink(f *testing.F) {
	const info = "INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n"
	for _, stream := range []string{
		info + "PONG\r\n" + strings.ReplaceAll(conversation, "_INBOX.a.", "_INBOX.test."),
		info + "MSG _INBOX.test.00000000001 1 5\r\nhello\r\nMSG _INBOX.test.00000000001 1 5\r\nhello\r\n",
		info + "MSG _INBOX.test.00000000001 1 5\r\nhel",
		info + "HMSG _INBOX.test.00000000001 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nGARBAGE\r\n" + info + "PING\r\n",
		"INFO {\"max_payload\":1}\r\nINFO {\"max_payload\":-1}\r\nINFO {]\r\nINFO {\"max_payload\":99999999999999999999}\r\n",
		"-ERR 'Permissions Violation for Subscription to \"_INBOX.test.*\"'\r\nPING\r\n-ERR 'Stale Connection'\r\n",
		"MSG _INBOX.test. 1 0\r\n\r\nMSG _INBOX.test.zzzzzzzzzzz 1 0\r\n\r\nMSG _INBOX.testing 1 0\r\n\r\n",
		"MSG a 1 999999999\r\n", "HMSG a 1 9 3\r\n", "\r\n", "",
	} {
		for seed := range uint64(3) {
			f.Add([]byte(stream), seed)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		w := newFuzzWorld(t, seed)
		for stream = stream[:min(len(stream), fuzzStreamMax)]; len(stream) > 0; {
			if w.wire == nil {
				w.connect()
			}
			n := min(1+w.rng.IntN(1+w.rng.IntN(200)), len(stream))
			w.say(stream[:n])
			stream = stream[n:]
			w.act()
			w.check()
		}
		if w.wire != nil {
			w.hangUp()
		}
		w.check()
		w.checkService()
	})
}

// fuzzWorld is a link with what is around it: a loop, which it is told by, nats.go, and a server at the other end of a
// socket pair.
type fuzzWorld struct {
	t    *testing.T
	rng  *rand.Rand
	link *Link

	in, downs, written uint64 // bytes received, wires that ended, what Written said last
	blocked            bool

	// Of the wire.
	wire      *Wire // nil: none is open
	dialed    *Wire // the latest, open or not
	server    int   // descriptor of the other end
	received  []byte
	delivered []string
	natsGo    []byte // what it was told
	queued    []byte // what was to go out
	outBefore uint64 // Counters.BytesOut
	arrived   []byte // what the server has read
	chatter   int    // bytes that nats.go wrote
	quit      bool   // nats.go has closed the connection
}

func newFuzzWorld(t *testing.T, seed uint64) *fuzzWorld {
	w := &fuzzWorld{t: t, rng: rand.New(rand.NewPCG(seed, 0))}
	w.link = newLink(w, newStatus(slog.New(slog.DiscardHandler)), "_INBOX.test", 4096+w.rng.IntN(64<<10))
	w.link.owner = &dialer{}
	t.Cleanup(func() {
		if w.wire != nil {
			w.wire.close()
			_ = unix.Close(w.server)
		}
	})
	return w
}

// Deliver and the others implement Handler.
func (w *fuzzWorld) Deliver(token uint64, m *Message) {
	w.delivered = append(w.delivered, describeReply(token, m))
}

func (w *fuzzWorld) Written(written uint64) {
	if written < w.written || written != w.link.written {
		w.t.Errorf("Written(%d) after %d, and %d are written", written, w.written, w.link.written)
	}
	w.written = written
}

func (w *fuzzWorld) LinkDown(from, to, written uint64) {
	w.downs++
	if from > written || written > to || to != w.link.queued || written < w.written {
		w.t.Errorf("LinkDown(%d, %d, %d) after Written(%d) with %d queued", from, to, written, w.written, w.link.queued)
	}
	w.written = to
}
func (w *fuzzWorld) InFlight(uint64) bool { return false }
func (w *fuzzWorld) AwaitWritable(int)    { w.blocked = true }
func (w *fuzzWorld) Wake()                {}

func describeReply(token uint64, m *Message) string {
	return fmt.Sprintf("%x: %d %q, %q, %q", token, m.Status, m.Description, m.Headers, m.Payload)
}

// fuzzConn is what gnet knows of a wire.
type fuzzConn struct {
	gnet.Conn
	w  *fuzzWorld
	fd int
}

func (c *fuzzConn) Fd() int                   { return c.fd }
func (c *fuzzConn) EventLoop() gnet.EventLoop { return fuzzEventLoop{conn: c} }

type fuzzEventLoop struct {
	gnet.EventLoop
	conn *fuzzConn
}

func (l fuzzEventLoop) Close(gnet.Conn) error {
	w := l.conn.w
	w.wire = nil
	err := unix.Close(l.conn.fd)
	w.dialed.Closed(nil)
	return err
}

// connect opens a wire, as the dialer and nats.go do.
func (w *fuzzWorld) connect() {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096) // full soon
	w.received, w.delivered, w.natsGo, w.queued, w.arrived, w.chatter, w.quit = nil, nil, nil, nil, nil, 0, false
	w.outBefore, w.blocked = w.link.Counters.BytesOut.Load(), false
	w.dialed = &Wire{link: w.link, dial: w.link.owner, tap: newTap(nil, nil, w.Wake), server: "fuzz"}
	w.wire, w.server = w.dialed, fds[1]
	w.wire.Opened(&fuzzConn{w: w, fd: fds[0]})
	w.natsGoSays("CONNECT {}\r\nPING\r\nSUB _INBOX.test.* 1\r\n")
	w.service()
	if !w.link.Ready() {
		w.t.Fatal("a new wire does not become ready")
	}
	w.link.maxPayload, w.link.headers = 1<<20, true
}

func (w *fuzzWorld) natsGoSays(text string) {
	if n, err := w.wire.tap.Write([]byte(text)); n != len(text) || err != nil {
		w.t.Fatalf("nats.go writes to its connection: %v", err)
	}
	w.chatter += len(text)
}

// service is what the loop does on each wake.
func (w *fuzzWorld) service() {
	if !w.dialed.broken {
		w.queued = append(w.queued, w.dialed.tap.out...)
	}
	w.link.Service()
}

// say has the server send bytes, and the loop read them.
func (w *fuzzWorld) say(text []byte) {
	if n, err := unix.Write(w.server, text); n != len(text) {
		w.t.Fatalf("%d bytes of %d written to the link: %v", n, len(text), err)
	}
	buffer := make([]byte, 1+w.rng.IntN(200))
	for w.wire != nil {
		n, err := unix.Read(w.wire.fd, buffer)
		if err != nil {
			return // EAGAIN
		}
		if !w.wire.broken {
			w.received = append(w.received, buffer[:n]...)
			w.in += uint64(n)
		}
		w.wire.Received(buffer[:n])
		for i := range buffer {
			buffer[i] = '#' // it was borrowed
		}
		if w.rng.IntN(4) == 0 {
			w.service()
		}
	}
	w.ended()
}

// act does some of what happens in a loop between two reads, in any order.
func (w *fuzzWorld) act() {
	for range w.rng.IntN(4) {
		if w.wire == nil {
			return
		}
		switch w.rng.IntN(8) {
		case 0, 1:
			var headers []byte
			if w.rng.IntN(2) == 0 {
				headers = []byte("A: b\r\n")
			}
			_ = w.publish(headers, make([]byte, w.rng.IntN(3000)), w.rng.Uint64(), w.rng.IntN(2) == 0) // there may be no room
		case 2:
			w.link.Flush()
		case 3:
			w.take(w.rng.IntN(8192))
		case 4:
			w.listen()
		case 5:
			if !w.quit {
				w.natsGoSays("PING\r\n")
			}
		case 6:
			w.service()
			w.ended()
		case 7:
			if w.rng.IntN(16) == 0 && !w.quit {
				w.quit = true
				_ = w.wire.tap.Close()
			}
		}
	}
}

func (w *fuzzWorld) publish(headers, payload []byte, token uint64, reply bool) error {
	before := len(w.link.out)
	_, err := w.link.Publish([]byte("a.b"), headers, payload, token, reply)
	if err == nil {
		w.queued = append(w.queued, w.link.out[before:]...)
	}
	return err
}

// take has the server read.
func (w *fuzzWorld) take(most int) {
	buffer := make([]byte, most+1)
	if n, _ := unix.Read(w.server, buffer); n > 0 {
		w.arrived = append(w.arrived, buffer[:n]...)
		if w.blocked && w.wire != nil {
			w.blocked = false
			w.link.Flush()
		}
	}
}

// listen has nats.go read what there is.
func (w *fuzzWorld) listen() {
	tap := w.dialed.tap
	for buffer := make([]byte, 100); !w.quit && tap.inAt < len(tap.in); {
		n, err := tap.Read(buffer)
		if err != nil {
			w.t.Fatalf("nats.go reads from its connection: %v", err)
		}
		w.natsGo = append(w.natsGo, buffer[:n]...)
	}
}

// hangUp has the server close the connection, and the loop read that.
func (w *fuzzWorld) hangUp() {
	w.wire.Ended(io.EOF)
	w.ended()
}

// ended checks a wire that has ended, if it has.
func (w *fuzzWorld) ended() {
	if w.wire != nil {
		return
	}
	written := w.link.Counters.BytesOut.Load() - w.outBefore
	for uint64(len(w.arrived)) < written {
		before := len(w.arrived)
		if w.take(1 << 16); len(w.arrived) == before {
			w.t.Fatalf("%d bytes of %d that were written have arrived", before, written)
		}
	}
	_ = unix.Close(w.server)
	if written > uint64(len(w.queued)) || !bytes.Equal(w.arrived, w.queued[:written]) {
		w.t.Errorf("%d of %d bytes were written, and not those that were queued", written, len(w.queued))
	}
	var o oracle
	var p parser
	err := p.parse(w.received, &o)
	if err != nil && !w.dialed.broken {
		w.t.Errorf("the stream has the error %v, and the wire is not broken", err)
	}
	w.listen()
	if fmt.Sprint(o.delivered) != fmt.Sprint(w.delivered) {
		w.t.Errorf("delivered %q\n     want %q", w.delivered, o.delivered)
	}
	if !bytes.Equal(o.rest, w.natsGo) && (!w.quit || !bytes.HasPrefix(o.rest, w.natsGo)) {
		w.t.Errorf("nats.go was told %q\n           want %q", w.natsGo, o.rest)
	}
	if !w.quit {
		if _, err := w.dialed.tap.Read(make([]byte, 1)); err == nil {
			w.t.Error("nats.go is not told of the end")
		}
	}
}

// oracle divides the operations of a stream.
type oracle struct {
	delivered []string
	rest      []byte
}

func (o *oracle) onMessage(m *Message) {
	token, ours := bytes.CutPrefix(m.Subject, []byte("_INBOX.test."))
	if !ours {
		o.rest = append(o.rest, m.Raw...)
		return
	}
	value, _ := parseToken(token)
	o.delivered = append(o.delivered, describeReply(value, m))
}

func (o *oracle) onControl(raw []byte) { o.rest = append(o.rest, raw...) }

// check checks what holds at any time.
func (w *fuzzWorld) check() {
	l := w.link
	if pending := uint64(l.PendingBytes()); l.queued-l.written != pending || pending > uint64(l.bufferedMax+w.chatter) {
		w.t.Errorf("%d queued, %d written, %d pending of %d", l.queued, l.written, pending, l.bufferedMax)
	}
	if out, dropped := l.Counters.BytesOut.Load(), l.Counters.Dropped.Load(); out+dropped != l.written {
		w.t.Errorf("%d bytes out and %d dropped, but %d written", out, dropped, l.written)
	}
	if in := l.Counters.BytesIn.Load(); in != w.in {
		w.t.Errorf("%d bytes in, want %d", in, w.in)
	}
	if l.wire != w.wire || l.Ready() && (l.wire == nil || l.wire.denied || l.wire.closed.Load()) {
		w.t.Errorf("ready %v, with a wire %v, want %v", l.Ready(), l.wire != nil, w.wire != nil)
	}
	open := uint64(0)
	if w.wire != nil {
		open = 1
	}
	if connects := l.Counters.Connects.Load(); connects != w.downs+open {
		w.t.Errorf("%d connects, %d ends, %d open", connects, w.downs, open)
	}
	if w.dialed != nil && len(w.dialed.parser.partial) > len(w.received) {
		w.t.Errorf("the parser keeps %d bytes of %d", len(w.dialed.parser.partial), len(w.received))
	}
}

// checkService checks that a request on a new wire is answered.
func (w *fuzzWorld) checkService() {
	w.connect()
	if err := w.publish(nil, []byte("x"), 7, true); err != nil {
		w.t.Fatalf("a request on a new wire: %v", err)
	}
	w.link.Flush()
	w.take(4096)
	if !bytes.HasSuffix(w.arrived, []byte("PUB a.b _INBOX.test.00000000007 1\r\nx\r\n")) {
		w.t.Fatalf("arrived: %q", w.arrived)
	}
	w.say([]byte("MSG _INBOX.test.00000000007 1 2\r\nok\r\n"))
	if len(w.delivered) != 1 || !strings.HasPrefix(w.delivered[0], "7: ") {
		w.t.Fatalf("delivered: %q", w.delivered)
	}
	w.check()
	w.hangUp()
	w.check()
}
