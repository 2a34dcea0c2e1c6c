package chaos

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// answerWithin is how long an answer may take: the longest deadline of a request, the longest freeze, and time for
// a busy machine.
const answerWithin = 20 * time.Second

// client has one conversation with the gateway after the other, as a program would that does nothing wrong.
type client struct {
	w   *world
	rng *rand.Rand
}

func (c *client) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			c.converse(stop)
		}
	}
}

// ending is how a client ends a conversation.
type ending int

const (
	closes      ending = iota // when all is answered
	halfCloses                // shuts down its writing side behind the last request, and reads to the end
	vanishes                  // with requests in flight
	tearsFrames               // in the middle of a frame
	endings
)

// conversation is one connection. One goroutine writes, another one reads.
type conversation struct {
	w      *world
	conn   *net.UnixConn
	number uint64
	weight uint64 // heavy, or 0
	ends   int64  // of the gateway when it was dialed

	mu       sync.Mutex
	ordered  []*record          // version 1, waiting
	byID     map[uint64]*record // version 2, waiting
	given    uint64             // correlation ids
	asked    bool               // all that the client wants to ask
	vanished bool               // the client has closed it, or is about to

	refused atomic.Bool   // since the writer looked last
	window  chan struct{} // a token for each request that waits
	over    chan struct{} // closed when nothing more is read
	problem string        // why the reader gave up, if that breaks a promise
}

func (c *client) converse(stop <-chan struct{}) {
	v := c.w.dial(stop)
	if v == nil {
		return
	}
	v.window = make(chan struct{}, 1+c.rng.IntN(32))
	end := ending(c.rng.IntN(int(endings)))
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(v.over)
		v.read(end)
	})
	c.write(v, stop)
	v.finish(c.rng, end)
	reading.Wait()
	_ = v.conn.Close()
	v.settle()
}

// dial connects to the gateway, which may be away, but not for long. It returns nil when stop is closed first.
func (w *world) dial(stop <-chan struct{}) *conversation {
	v := &conversation{w: w, byID: map[uint64]*record{}, over: make(chan struct{}), window: make(chan struct{}, 1)}
	err := eventually(func() error {
		select {
		case <-stop:
			return nil
		default:
		}
		v.ends = w.gateway.ends.Load()
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.gateway.socket})
		v.conn = conn
		return err
	})
	if err != nil {
		w.history.problem(nil, "nobody serves the socket: %v", err)
	}
	if v.conn == nil {
		return nil
	}
	v.number = w.connections.Add(1)
	return v
}

// write asks at random until it had enough. A client that is to stop asks no more.
func (c *client) write(v *conversation, stop <-chan struct{}) {
	versions := c.rng.IntN(3) // 0: version 1 only, 1: version 2 only, 2: both on one connection
	batches := 1 + c.rng.IntN(40)
	if c.rng.IntN(50) == 0 {
		v.weight, batches = heavy, 3
	}
	for range batches {
		batch := c.batch(v, versions, stop)
		if len(batch) == 0 {
			return
		}
		if !c.writeTorn(v.conn, batch) {
			return
		}
		// A client's own work between its requests, and its patience after an error. They keep the machine from
		// being the bottleneck.
		pause := c.w.pause
		if v.refused.Swap(false) {
			pause *= 10
		}
		time.Sleep(time.Duration(c.rng.IntN(int(2 * pause))))
	}
}

// batch returns some requests, as many as the window has room for, and none when there is no more to ask.
func (c *client) batch(v *conversation, versions int, stop <-chan struct{}) (batch []byte) {
	select {
	case v.window <- struct{}{}:
	case <-stop:
		return nil
	case <-v.over:
		return nil
	}
	for range 1 + c.rng.IntN(cap(v.window)) {
		batch = v.ask(batch, c.choose(versions, v.weight), c.timeoutMs())
		select {
		case v.window <- struct{}{}:
		default:
			return batch
		}
	}
	<-v.window // the token of the request that was not asked
	return batch
}

// choose returns what to ask for next.
func (c *client) choose(versions int, weight uint64) kind {
	if weight == heavy {
		return [...]kind{submitV1, requestV2}[c.rng.IntN(2)]
	}
	v1 := versions == 0 || versions == 2 && c.rng.IntN(2) == 0
	switch n := c.rng.IntN(100); {
	case v1 && n < 85:
		return submitV1
	case v1:
		return pingV1
	case n < 50:
		return requestV2
	case n < 70:
		return publishV2
	case n < 90:
		return durableV2
	}
	return pingV2
}

// timeoutMs returns a deadline for a version 2 request; 0 leaves it to the gateway, which has 2 s.
func (c *client) timeoutMs() uint32 { return [...]uint32{0, 300, 1000, 3000}[c.rng.IntN(4)] }

// ask appends a frame to dst, and notes it as waiting.
func (v *conversation) ask(dst []byte, k kind, timeoutMs uint32) []byte {
	r := v.w.history.ask(k, v.number, v.weight)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.given++
	_ = v.conn.SetReadDeadline(time.Now().Add(answerWithin))
	f := frameOf(r, v.given, timeoutMs)
	if f.Version == codec.Version1 {
		v.ordered = append(v.ordered, r)
	} else {
		v.byID[v.given] = r
	}
	return codec.AppendFrame(dst, &f)
}

func frameOf(r *record, correlationID uint64, timeoutMs uint32) codec.Frame {
	f := codec.Frame{Version: codec.Version2, CorrelationID: correlationID, TimeoutMs: timeoutMs, Payload: payloadOf(r.id, r.kind)}
	switch r.kind {
	case submitV1:
		return codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: f.Payload}
	case pingV1:
		return codec.Frame{Version: codec.Version1, Type: codec.TypePing}
	case requestV2:
		f.Type, f.Subject = codec.TypeRequest, []byte(subjectRequest)
	case publishV2:
		f.Type, f.Subject = codec.TypePublish, []byte(subjectPublish)
	case durableV2:
		f.Type, f.Subject, f.Headers = codec.TypePublish, []byte(streamSubject), []byte("Nats-Expected-Stream: "+streamName+"\r\n")
	case pingV2:
		f.Type, f.TimeoutMs = codec.TypePing, 0
	}
	return f
}

// writeTorn writes in pieces, as often as not. It reports whether all could be written.
func (c *client) writeTorn(conn net.Conn, b []byte) bool {
	whole := c.rng.IntN(2) == 0
	for len(b) > 0 {
		n := len(b)
		if !whole {
			n = min(n, 1+c.rng.IntN(1000))
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return false // the reader sees why
		}
		b = b[n:]
	}
	return true
}

// finish ends the conversation from the client's side. What the gateway does about it may be seen by the reader at
// once, so it is told first.
func (v *conversation) finish(rng *rand.Rand, end ending) {
	if end == tearsFrames {
		v.tear(rng)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked, v.vanished = true, end >= vanishes
	switch {
	case v.vanished:
		_ = v.conn.Close()
	case end == halfCloses:
		_ = v.conn.SetReadDeadline(time.Now().Add(answerWithin))
		_ = v.conn.CloseWrite()
	case v.waiting() == 0:
		_ = v.conn.SetReadDeadline(time.Now()) // nothing will come: wake the reader
	}
}

// tear writes a part of a frame, which must never be executed.
func (v *conversation) tear(rng *rand.Rand) {
	kinds := [...]kind{submitV1, requestV2, publishV2, durableV2}
	r := v.w.history.ask(kinds[rng.IntN(len(kinds))], v.number, 0)
	f := frameOf(r, 1<<40, 0)
	frame := codec.AppendFrame(nil, &f)
	v.w.history.end(r, torn, "")
	_, _ = v.conn.Write(frame[:1+rng.IntN(len(frame)-1)])
}

// waiting counts the requests without an answer. REQUIRES: v.mu.
func (v *conversation) waiting() int { return len(v.ordered) + len(v.byID) }

// read takes answers until the conversation is over.
func (v *conversation) read(end ending) {
	var frame []byte
	for v.expectMore(end) {
		var err error
		if frame, err = readFrame(v.conn, frame); err != nil {
			v.stopReading(end, err)
			return
		}
		f, _, err := codec.Decode(frame)
		if err != nil {
			v.w.history.problem(nil, "connection %d: the gateway sends what is no frame: %v", v.number, err)
			return
		}
		if !v.take(&f) {
			return
		}
	}
}

// expectMore bounds the wait for the next frame, and reports whether there is one to wait for. A client that has
// half-closed waits for the end as well.
func (v *conversation) expectMore(end ending) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked && v.waiting() == 0 && end == closes {
		return false
	}
	if v.waiting() > 0 || v.asked {
		_ = v.conn.SetReadDeadline(time.Now().Add(answerWithin))
	} else {
		_ = v.conn.SetReadDeadline(time.Time{}) // ask sets the next one
	}
	return true
}

func readFrame(conn net.Conn, buffer []byte) ([]byte, error) {
	buffer = append(buffer[:0], 0, 0, 0, 0)
	if _, err := io.ReadFull(conn, buffer); err != nil {
		return buffer, err
	}
	length := binary.BigEndian.Uint32(buffer)
	if length < codec.HeaderBytesV1 || length > codec.FrameBytesMax {
		return buffer, errors.New("a length that no frame has")
	}
	buffer = append(buffer, make([]byte, length-4)...)
	_, err := io.ReadFull(conn, buffer[4:])
	return buffer, err
}

// stopReading judges why nothing more can be read.
func (v *conversation) stopReading(end ending, err error) {
	v.mu.Lock()
	waiting, ended := v.waiting(), v.asked && end == halfCloses && errors.Is(err, io.EOF)
	mine := v.vanished || v.asked && waiting == 0 && end == closes
	v.mu.Unlock()
	byFault := v.ends%2 == 1 || v.w.gateway.ends.Load() != v.ends
	switch {
	case mine, byFault, ended && waiting == 0:
	case errors.Is(err, os.ErrDeadlineExceeded):
		v.problem = "no answer within " + answerWithin.String()
	case ended:
		v.problem = "the stream of a client that half-closed ended before all was answered"
	default:
		v.problem = "the connection ended without a reason: " + err.Error()
	}
}

// take finds the request that f answers, and notes the answer.
func (v *conversation) take(f *codec.Frame) bool {
	v.mu.Lock()
	var r *record
	if f.Version == codec.Version1 && len(v.ordered) > 0 {
		r, v.ordered = v.ordered[0], v.ordered[1:]
	} else if f.Version == codec.Version2 {
		r = v.byID[f.CorrelationID]
		delete(v.byID, f.CorrelationID)
	}
	v.mu.Unlock()
	if r == nil {
		v.w.history.problem(nil, "connection %d: an answer to nothing that waits: version %d %v id %d %.80q", v.number, f.Version, f.Type, f.CorrelationID, f.Payload)
		return false
	}
	<-v.window
	switch {
	case f.Type == codec.TypeResponseError && r.kind != pingV1 && r.kind != pingV2:
		v.refused.Store(true)
		v.w.history.fail(r, f.Payload)
	case answers(r, f):
		v.w.history.end(r, fine, "")
	default:
		v.w.history.end(r, fine, "")
		v.w.history.problem(r, "an answer that is not its own: %v %.80q", f.Type, f.Payload)
	}
	return true
}

// answers reports whether f is what r asked for.
func answers(r *record, f *codec.Frame) bool {
	switch r.kind {
	case pingV1:
		return f.Type == codec.TypePong && len(f.Payload) == 0
	case pingV2:
		return f.Type == codec.TypePong && bytes.Equal(f.Payload, payloadOf(r.id, r.kind))
	case publishV2:
		return f.Type == codec.TypeResponseOK && len(f.Payload) == 0
	case durableV2:
		var ack struct {
			Stream string `json:"stream"`
			Seq    uint64 `json:"seq"`
		}
		return f.Type == codec.TypeResponseOK && json.Unmarshal(f.Payload, &ack) == nil && ack.Stream == streamName && ack.Seq > 0
	}
	return f.Type == codec.TypeResponseOK && bytes.Equal(f.Payload, payloadOf(r.id, r.kind))
}

// settle notes what became of the requests without an answer. One of them is enough to tell what went wrong.
func (v *conversation) settle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	left := slices.AppendSeq(v.ordered, maps.Values(v.byID))
	if v.problem != "" {
		var first *record
		if len(left) > 0 {
			first = left[0]
		}
		v.w.history.problem(first, "connection %d, %d requests without an answer: %s", v.number, len(left), v.problem)
	}
	for _, r := range left {
		v.w.history.end(r, unknown, "")
	}
}
