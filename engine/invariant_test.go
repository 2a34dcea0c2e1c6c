package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

const (
	// invariantMaxPayload is the server's max_payload in the test of the invariant, so that a frame over it is cheap.
	invariantMaxPayload = 80_000
	// invariantLateMax is how long after its deadline a request may be answered there: a frame may have to wait behind
	// others of its client, whose deadlines are at most 200 ms away, and the machine may have other things to do.
	invariantLateMax = 5 * time.Second
)

// Goal: the one invariant. Every whole request frame gets exactly one answer; version 1 answers come in order; an answer
// belongs to its request; a deadline is never early, and kept within invariantLateMax; and what was answered with sent:false
// was never executed, not even later.
//
// Method: clients send random frames of both versions and of all kinds, torn at random, to responders that reply at once, late,
// twice, with an error or never, while the connections to NATS are cut and held back again and again, limits are low, and
// clients wait for their answers, half-close, or vanish. Each client checks its own answers; the responders remember what they
// executed. A marker that follows everything tells when they have seen it all. IPC_TEST_SEED repeats the choices.
func TestEveryRequestGetsExactlyOneAnswer(t *testing.T) {
	seed := testSeed(t)

	s := runNATS(t, func(o *server.Options) { o.MaxPayload = invariantMaxPayload })
	var executed sync.Map // payloads that a responder saw
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "app.*", func(m *nats.Msg) { respondOddly(m, &executed) })
	proxy := newProxy(t, s.Addr().String())
	cfg := testConfig(t, "nats://"+proxy.address())
	cfg.Logger = nil
	cfg.Loops = 2
	cfg.MaxInflight, cfg.MaxInflightPerConnection = 150, 40
	cfg.Routes = Routes{
		Submit: Route{Subject: "app.now", Mode: ModeRequest, Timeout: 200 * time.Millisecond},
		Query:  Route{Subject: "app.odd", Mode: ModeRequest, Timeout: 50 * time.Millisecond},
		Cancel: Route{Subject: "app.now", Mode: ModePublish, Timeout: 200 * time.Millisecond},
	}
	g := runGateway(t, cfg)
	waitReady(t, g)

	faults := startFaults(g, proxy, rand.New(rand.NewPCG(seed, 99)))
	var clients sync.WaitGroup
	counts := make([]invariantCounts, 12)
	for i := range counts {
		clients.Go(func() {
			c := invariantClient{t: t, g: g, rng: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprint("c", i), counts: &counts[i]}
			for life := range 40 {
				if t.Failed() {
					return
				}
				if life%4 != 0 { // else what it sends may be refused, all of it
					c.awaitNATS()
				}
				c.live(life)
			}
		})
	}
	clients.Wait()
	faults.end()
	waitForStragglers(t, g, s, nc, &executed)

	var sum invariantCounts
	for i := range counts {
		c := &counts[i]
		for _, payload := range c.denied {
			if _, ran := executed.Load(payload); ran {
				t.Errorf("%.60q was executed, but answered sent:false", payload)
			}
		}
		sum.add(c)
	}
	t.Logf("%d frames: %d ok, %d timed out (%d of them unsent), %d lost with NATS (%d of them unsent), %d refused, %d of them with an id in use, %d for their size; %d cuts; a deadline was kept %v late at most",
		sum.frames, sum.ok, sum.timeouts, sum.overdue, sum.lost, sum.unsent, sum.refused, sum.twice, sum.tooLarge, faults.cuts, sum.late)
	if sum.ok == 0 || sum.timeouts == 0 || sum.lost == 0 || sum.unsent == 0 || sum.refused == 0 || sum.twice == 0 || sum.tooLarge == 0 {
		t.Error("not every kind of end occurred: the test does not test what it says")
	}
	eventually(t, "everything is released", func() bool {
		st := g.Stats()
		return st.Inflight == 0 && st.Connections == 0 && st.ClientBytesBuffered == 0
	})
}

// invariantFaults cuts the connections to NATS at random moments, some of them when it had taken nothing for a while.
type invariantFaults struct {
	cuts    int
	stop    chan struct{}
	running sync.WaitGroup
}

func startFaults(g *Gateway, p *proxy, rng *rand.Rand) *invariantFaults {
	f := &invariantFaults{stop: make(chan struct{})}
	f.running.Go(func() {
		for f.pause(time.Duration(20+rng.IntN(120)) * time.Millisecond) {
			held := f.cuts == 0 || rng.IntN(4) == 0
			if held {
				p.hold()
				// Until bytes wait, the first time however long that takes.
				for tries := 0; g.Stats().UpstreamBuffered == 0 && (f.cuts == 0 || tries < 50); tries++ {
					if !f.pause(2 * time.Millisecond) {
						break
					}
				}
			}
			p.cut()
			f.cuts++
			if held {
				p.release()
			}
		}
	})
	return f
}

// pause lets time pass between two faults: it is their schedule, not a wait for anything. It reports whether they are to go on.
func (f *invariantFaults) pause(d time.Duration) bool {
	select {
	case <-f.stop:
		return false
	case <-time.After(d):
		return true
	}
}

func (f *invariantFaults) end() {
	close(f.stop)
	f.running.Wait()
}

// waitForStragglers waits until responders have seen all that will ever reach them of what the gateway was given so far.
func waitForStragglers(t *testing.T, g *Gateway, s *server.Server, nc *nats.Conn, executed *sync.Map) {
	t.Helper()
	// The last cut may still be on its way to the gateway.
	eventually(t, "the server has closed the old connections, and has all that the new ones were given", func() bool {
		return g.Ready() == nil && s.NumClients() == g.cfg.Loops+1 && g.flushToNATS() == nil
	})
	if err := nc.Publish("app.now", []byte("marker")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the responder has seen all that came before", func() bool { _, seen := executed.Load("marker"); return seen })
}

type invariantCounts struct {
	frames, ok, timeouts, overdue, lost, unsent, refused, twice, tooLarge int

	late   time.Duration // behind its deadline, the latest answer of a TIMEOUT
	denied []string      // payloads that were answered sent:false
}

func (sum *invariantCounts) add(c *invariantCounts) {
	sum.frames += c.frames
	sum.ok += c.ok
	sum.timeouts += c.timeouts
	sum.overdue += c.overdue
	sum.lost += c.lost
	sum.unsent += c.unsent
	sum.refused += c.refused
	sum.twice += c.twice
	sum.tooLarge += c.tooLarge
	sum.late = max(sum.late, c.late)
}

// respondOddly answers as the request's subject and payload ask.
func respondOddly(m *nats.Msg, executed *sync.Map) {
	executed.Store(string(m.Data), true)
	if m.Subject != "app.odd" {
		echo(m)
		return
	}
	switch len(m.Data) % 5 {
	case 0:
		echo(m)
	case 1:
		echo(m)
		echo(m) // the second one is late
	case 2: // never
	case 3:
		time.AfterFunc(time.Duration(len(m.Data)%100)*time.Millisecond, func() { echo(m) })
	case 4:
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Nats-Service-Error-Code", "500")
		reply.Header.Set("Nats-Service-Error", "odd")
		_ = m.RespondMsg(reply)
	}
}

// invariantClient lives one connection after another.
type invariantClient struct {
	t      *testing.T
	g      *Gateway
	rng    *rand.Rand
	name   string
	counts *invariantCounts

	ordered []*expectation            // version 1, in order
	byID    map[uint64][]*expectation // version 2; a second one uses the id of the first
	ends    []*expectation            // all of them, as their frames are in the stream
}

// expectation is a frame that has to be answered.
type expectation struct {
	typ      codec.Type
	payload  string
	code     codec.ErrorCode // the only possible answer, if not 0
	tooLarge bool            // for NATS: it cannot succeed, and is never sent
	second   bool            // its id is that of the frame before it
	timeout  time.Duration   // 0: it has none

	end     int          // of its frame in the stream
	written atomic.Int64 // when the last byte of it began to be written, in nanoseconds since 1970
}

// awaitNATS waits until NATS is connected.
func (c *invariantClient) awaitNATS() {
	for deadline := time.Now().Add(testTimeout); c.g.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Errorf("%s: NATS is not connected for %v", c.name, testTimeout)
			return
		}
	}
}

func (c *invariantClient) live(life int) {
	conn, err := net.Dial("unix", c.g.cfg.SocketPath)
	if err != nil {
		c.t.Errorf("dial: %v", err)
		return
	}
	defer conn.Close() //nolint:errcheck // the test is over
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	c.ordered, c.byID, c.ends = nil, map[uint64][]*expectation{}, nil
	var stream []byte
	frames := 1 + c.rng.IntN(60)
	for i := range frames {
		unique := fmt.Sprintf("%s-%d-%d-", c.name, life, i)
		f, e := c.frame(unique, uint64(i))
		stream = c.append(stream, &f, e)
		if f.Type == codec.TypeRequest && e.code == 0 && !e.tooLarge && c.rng.IntN(10) == 0 {
			frames++
			f.Payload = []byte(unique + "again")
			stream = c.append(stream, &f, &expectation{typ: f.Type, payload: string(f.Payload), second: true, timeout: e.timeout})
		}
	}
	fatal := c.rng.IntN(8) == 0
	if fatal {
		stream = append(stream, 0, 0, 0, 9, 9)
		c.ordered = append(c.ordered, &expectation{code: codec.CodeInvalidVersion})
	}
	ending := c.rng.IntN(4)
	if ending == 3 {
		stream = append(stream, 0, 0, 1, 0, 1) // a frame that is never completed
	}
	expected := len(c.ordered)
	for _, e := range c.byID {
		expected += len(e)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write(conn, stream)
		if ending >= 2 {
			_ = conn.(*net.UnixConn).CloseWrite()
		}
	}()
	defer func() { <-written }()
	c.counts.frames += frames
	if ending == 0 {
		expected = c.rng.IntN(expected + 1) // vanish in the middle
	}
	p := &peer{t: c.t, UnixConn: conn.(*net.UnixConn)}
	for i := range expected {
		f, err := p.tryReceive()
		if err != nil {
			c.t.Errorf("%s, life %d: %d of %d answers, then %v", c.name, life, i, expected, err)
			return
		}
		c.check(f)
	}
	if ending == 0 {
		_ = conn.Close()
		return
	}
	if ending >= 2 || fatal {
		if f, err := p.tryReceive(); !errors.Is(err, io.EOF) {
			c.t.Errorf("%s, life %d: behind the last answer: %+v, %v; want EOF", c.name, life, f, err)
		}
	}
}

// append appends a frame to the stream, and notes what may answer it; e is nil if nothing does.
func (c *invariantClient) append(stream []byte, f *codec.Frame, e *expectation) []byte {
	stream = codec.AppendFrame(stream, f)
	if e == nil {
		return stream
	}
	e.end = len(stream)
	c.ends = append(c.ends, e)
	if f.Version == codec.Version1 {
		c.ordered = append(c.ordered, e)
	} else {
		c.byID[f.CorrelationID] = append(c.byID[f.CorrelationID], e)
	}
	return stream
}

// frame makes a random frame, and what may answer it: nil if nothing does.
func (c *invariantClient) frame(unique string, id uint64) (codec.Frame, *expectation) {
	e := &expectation{payload: unique + strings.Repeat("x", c.rng.IntN(300))}
	switch c.rng.IntN(40) {
	case 0, 1, 3, 4, 5:
		e.payload = unique + strings.Repeat("y", 70_000)
	case 2:
		e.payload, e.tooLarge = unique+strings.Repeat("z", invariantMaxPayload), true
	}
	if c.rng.IntN(2) == 0 {
		return c.frame1(e), e
	}
	f := c.frame2(e, id)
	if f.Flags&codec.FlagNoReply != 0 {
		return f, nil
	}
	return f, e
}

func (c *invariantClient) frame1(e *expectation) codec.Frame {
	routes := &c.g.cfg.Routes
	switch c.rng.IntN(6) {
	case 0:
		e.typ, e.timeout = codec.TypeTaskSubmit, routes.Submit.Timeout
	case 1:
		e.typ, e.timeout = codec.TypeTaskQuery, routes.Query.Timeout
	case 2:
		e.typ, e.timeout = codec.TypeTaskCancel, routes.Cancel.Timeout
	case 3:
		e.typ, e.tooLarge = codec.TypePing, false
	case 4:
		e.typ, e.tooLarge = codec.TypeCapabilities, false
	case 5:
		e.typ, e.code = codec.TypeStreamSubscribe, codec.CodeInvalidType
	}
	return v1(e.typ, e.payload)
}

func (c *invariantClient) frame2(e *expectation, id uint64) codec.Frame {
	f := v2(codec.TypeRequest, id, [...]string{"app.now", "app.odd", "nobody.there"}[c.rng.IntN(3)], e.payload)
	f.TimeoutMs = uint32(1 + c.rng.IntN(100))
	switch c.rng.IntN(9) {
	case 0:
		f.Type = codec.TypePublish
	case 1:
		f.Type, f.Flags = codec.TypePublish, codec.FlagNoReply
	case 2:
		f.Subject, e.code = []byte("app.*"), codec.CodeInvalidPayload
	case 3:
		f.Type = [...]codec.Type{codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel}[c.rng.IntN(3)]
		if c.rng.IntN(2) == 0 {
			f.Subject = nil // that of the route
		}
	case 4:
		f.Type = [...]codec.Type{codec.TypePing, codec.TypeCapabilities}[c.rng.IntN(2)]
		e.tooLarge = false
	}
	e.typ, e.timeout = f.Type, time.Duration(f.TimeoutMs)*time.Millisecond
	return f
}

// write writes the stream in pieces, and notes when.
func (c *invariantClient) write(conn net.Conn, stream []byte) {
	rng := rand.New(rand.NewPCG(uint64(len(stream)), 5))
	ends := c.ends
	for at := 0; at < len(stream); {
		n := len(stream) - at
		if rng.IntN(3) > 0 {
			n = min(n, 1+rng.IntN(2000))
		}
		now := time.Now().UnixNano()
		for ; len(ends) > 0 && ends[0].end <= at+n; ends = ends[1:] {
			ends[0].written.Store(now)
		}
		if _, err := conn.Write(stream[at : at+n]); err != nil {
			return // the checker sees what was not answered
		}
		at += n
	}
}

// check holds an answer against what is expected next.
func (c *invariantClient) check(f codec.Frame) {
	var e *expectation
	if f.Version == codec.Version1 {
		if len(c.ordered) == 0 {
			c.t.Errorf("%s: an answer to nothing: %v %q", c.name, f.Type, f.Payload)
			return
		}
		e, c.ordered = c.ordered[0], c.ordered[1:]
	} else if e = c.take(f); e == nil {
		c.t.Errorf("%s: an answer to nothing: id %d, %v %q", c.name, f.CorrelationID, f.Type, f.Payload)
		return
	}
	if f.Type == codec.TypeResponseError {
		c.checkError(e, f)
		return
	}
	want, wantType := e.payload, codec.TypeResponseOK
	switch {
	case e.typ == codec.TypePing:
		wantType = codec.TypePong
		if f.Version == codec.Version1 {
			want = ""
		}
	case e.typ == codec.TypeCapabilities:
		want = string(f.Payload)
	case e.typ == codec.TypePublish, e.typ == codec.TypeTaskCancel && f.Version == codec.Version2:
		want = ""
	case e.typ == codec.TypeTaskCancel:
		want = `{"ok":true}`
	}
	if e.code != 0 || e.tooLarge || f.Type != wantType || string(f.Payload) != want {
		c.t.Errorf("%s: %v %.60q was answered %v %.60q", c.name, e.typ, e.payload, f.Type, f.Payload)
	}
	c.counts.ok++
}

// take returns what a version 2 answer belongs to. Where an id was used twice, the second frame was refused for that, or the
// first one's answer came before.
func (c *invariantClient) take(f codec.Frame) *expectation {
	all := c.byID[f.CorrelationID]
	if len(all) == 0 {
		return nil
	}
	i := 0
	if len(all) == 2 && f.Type == codec.TypeResponseError {
		if info, err := codec.ParseError(f.Payload); err == nil && info.Code == int(codec.CodeInvalidPayload) {
			i = 1
			c.counts.twice++
		}
	}
	e := all[i]
	c.byID[f.CorrelationID] = slices.Delete(all, i, i+1)
	return e
}

func (c *invariantClient) checkError(e *expectation, f codec.Frame) {
	info, err := codec.ParseError(f.Payload)
	if err != nil {
		c.t.Errorf("%s: error object %q: %v", c.name, f.Payload, err)
		return
	}
	if !info.Sent && e.payload != "" {
		c.counts.denied = append(c.counts.denied, e.payload)
	}
	code := codec.ErrorCode(info.Code)
	if e.code != 0 && code != e.code || e.typ == codec.TypePing || e.typ == codec.TypeCapabilities || e.tooLarge && info.Sent {
		c.t.Errorf("%s: %v %.60q was answered %s", c.name, e.typ, e.payload, f.Payload)
	}
	switch code {
	case codec.CodeTimeout:
		c.counts.timeouts++
		if !info.Sent {
			c.counts.overdue++
		}
		c.checkDeadline(e, f)
	case codec.CodeConnectionClosed:
		c.counts.lost++
		if !info.Sent {
			c.counts.unsent++
		}
	case codec.CodeFrameTooLarge:
		c.counts.tooLarge++
		if !e.tooLarge {
			c.t.Errorf("%s: %d bytes were answered %s", c.name, len(e.payload), f.Payload)
		}
	case codec.CodeInvalidPayload, codec.CodeInvalidType, codec.CodeInvalidVersion:
		if e.code != code && !e.second {
			c.t.Errorf("%s: %v %.60q was answered %s", c.name, e.typ, e.payload, f.Payload)
		}
		fallthrough
	case codec.CodeOverloaded, codec.CodeUnavailable:
		c.counts.refused++
		if info.Sent {
			c.t.Errorf("%s: refused, but sent: %s", c.name, f.Payload)
		}
	case codec.CodeNoResponders, codec.CodeServiceError:
	default:
		c.t.Errorf("%s: %v %.60q was answered %s", c.name, e.typ, e.payload, f.Payload)
	}
}

// checkDeadline checks when a TIMEOUT came.
func (c *invariantClient) checkDeadline(e *expectation, f codec.Frame) {
	took := time.Since(time.Unix(0, e.written.Load()))
	if took < e.timeout || took > e.timeout+invariantLateMax {
		c.t.Errorf("%s: %v %.60q with a timeout of %v was answered %s after %v", c.name, e.typ, e.payload, e.timeout, f.Payload, took)
	}
	c.counts.late = max(c.counts.late, took-e.timeout)
}

// testSeed returns the seed of a test's random choices, a new one each time, or IPC_TEST_SEED to repeat them.
func testSeed(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("IPC_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("IPC_TEST_SEED=%d", seed)
	return seed
}
