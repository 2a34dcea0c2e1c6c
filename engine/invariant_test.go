package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: the one invariant. Every whole request frame gets exactly one answer; version 1 answers
// come in order; an answer belongs to its request; and what was answered with sent:false was never
// executed.
//
// Method: clients send random frames of both versions, torn at random, to responders that reply at
// once, late, twice, with an error or never, while the connections to NATS are cut again and again,
// limits are low, and clients wait for their answers, half-close, or vanish. Each client checks its
// own answers; the responders remember what they executed. IPC_TEST_SEED repeats the choices.
func TestEveryRequestGetsExactlyOneAnswer(t *testing.T) {
	seed := testSeed(t)

	s := runNATS(t, nil)
	var executed sync.Map // payloads that a responder saw
	answerWith(t, responder(t, s.ClientURL()), "app.*", func(m *nats.Msg) { respondOddly(m, &executed) })
	proxy := newProxy(t, s.Addr().String())
	cfg := testConfig(t, "nats://"+proxy.address())
	cfg.Logger = nil
	cfg.Loops = 2
	cfg.MaxInflight, cfg.MaxInflightPerConnection = 150, 40
	cfg.Routes = Routes{
		Submit: Route{Subject: "app.now", Mode: ModeRequest, Timeout: 200 * time.Millisecond},
		Query:  Route{Subject: "app.odd", Mode: ModeRequest, Timeout: 50 * time.Millisecond},
		Cancel: Route{Subject: "app.now", Mode: ModePublish, Timeout: time.Second},
	}
	g := runGateway(t, cfg)
	waitReady(t, g)

	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() { proxy.cutUntil(stop, rand.New(rand.NewPCG(seed, 99))) })
	var clients sync.WaitGroup
	counts := make([]invariantCounts, 12)
	for i := range counts {
		clients.Go(func() {
			c := invariantClient{t: t, g: g, rng: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprint("c", i), counts: &counts[i]}
			for life := range 60 {
				if t.Failed() {
					return
				}
				c.live(life)
			}
		})
	}
	clients.Wait()
	close(stop)
	cutting.Wait()
	var sum invariantCounts
	for _, c := range counts {
		for _, payload := range c.denied {
			if _, ran := executed.Load(payload); ran {
				t.Errorf("%.60q was executed, but answered sent:false", payload)
			}
		}
		sum.frames += c.frames
		sum.ok += c.ok
		sum.unsent += c.unsent
		sum.lost += c.lost
		sum.timeouts += c.timeouts
		sum.refused += c.refused
	}
	t.Logf("%d frames: %d ok, %d timed out, %d lost with NATS (%d of them unsent), %d refused; %d cuts",
		sum.frames, sum.ok, sum.timeouts, sum.lost, sum.unsent, sum.refused, proxy.cuts)
	if sum.ok == 0 || sum.timeouts == 0 || sum.lost == 0 || sum.refused == 0 {
		t.Error("not every kind of end occurred: the test does not test what it says")
	}
	eventually(t, "everything is released", func() bool {
		st := g.Stats()
		return st.Inflight == 0 && st.Connections == 0 && st.ClientBytesBuffered == 0
	})
}

type invariantCounts struct {
	frames, ok, timeouts, lost, unsent, refused int

	denied []string // payloads that were answered sent:false
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

	ordered []*expectation          // version 1, in order
	byID    map[uint64]*expectation // version 2
}

// expectation is a frame that has to be answered.
type expectation struct {
	typ     codec.Type
	payload string
	code    codec.ErrorCode // the only possible answer, if not 0
}

func (c *invariantClient) live(life int) {
	conn, err := net.Dial("unix", c.g.cfg.SocketPath)
	if err != nil {
		c.t.Errorf("dial: %v", err)
		return
	}
	defer conn.Close() //nolint:errcheck // the test is over
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	c.ordered, c.byID = nil, map[uint64]*expectation{}
	var stream []byte
	frames := 1 + c.rng.IntN(60)
	for i := range frames {
		f := c.frame(fmt.Sprintf("%s-%d-%d-", c.name, life, i), uint64(i))
		stream = codec.AppendFrame(stream, &f)
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
	expected := len(c.ordered) + len(c.byID)
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

// frame makes a random frame, and notes what may answer it.
func (c *invariantClient) frame(unique string, id uint64) codec.Frame {
	payload := unique + strings.Repeat("x", c.rng.IntN(300))
	if c.rng.IntN(20) == 0 {
		payload = unique + strings.Repeat("y", 70_000)
	}
	if c.rng.IntN(2) == 0 {
		typ := [...]codec.Type{codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel, codec.TypePing, codec.TypeStreamSubscribe}[c.rng.IntN(5)]
		e := &expectation{typ: typ, payload: payload}
		if typ == codec.TypeStreamSubscribe {
			e.code = codec.CodeInvalidType
		}
		c.ordered = append(c.ordered, e)
		return v1(typ, payload)
	}
	f := v2(codec.TypeRequest, id, [...]string{"app.now", "app.odd", "nobody.there"}[c.rng.IntN(3)], payload)
	f.TimeoutMs = uint32(1 + c.rng.IntN(100))
	e := &expectation{typ: codec.TypeRequest, payload: payload}
	switch c.rng.IntN(6) {
	case 0:
		f.Type, e.typ = codec.TypePublish, codec.TypePublish
	case 1:
		f.Type, e.typ = codec.TypePublish, codec.TypePublish
		f.Flags = codec.FlagNoReply
		return f
	case 2:
		f.Subject, e.code = []byte("app.*"), codec.CodeInvalidPayload
	}
	c.byID[id] = e
	return f
}

func (c *invariantClient) write(conn net.Conn, stream []byte) {
	rng := rand.New(rand.NewPCG(uint64(len(stream)), 5))
	for len(stream) > 0 {
		n := len(stream)
		if rng.IntN(3) > 0 {
			n = min(n, 1+rng.IntN(2000))
		}
		if _, err := conn.Write(stream[:n]); err != nil {
			return // the checker sees what was not answered
		}
		stream = stream[n:]
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
	} else {
		if e = c.byID[f.CorrelationID]; e == nil {
			c.t.Errorf("%s: an answer to nothing: id %d, %v %q", c.name, f.CorrelationID, f.Type, f.Payload)
			return
		}
		delete(c.byID, f.CorrelationID)
	}
	if f.Type == codec.TypeResponseError {
		c.checkError(e, f)
		return
	}
	want, wantType := e.payload, codec.TypeResponseOK
	switch e.typ {
	case codec.TypePing:
		want, wantType = "", codec.TypePong
	case codec.TypeTaskCancel:
		want = `{"ok":true}`
	case codec.TypePublish:
		want = ""
	}
	if e.code != 0 || f.Type != wantType || string(f.Payload) != want {
		c.t.Errorf("%s: %v %.60q was answered %v %.60q", c.name, e.typ, e.payload, f.Type, f.Payload)
	}
	c.counts.ok++
}

func (c *invariantClient) checkError(e *expectation, f codec.Frame) {
	info, err := codec.ParseError(f.Payload)
	if err != nil {
		c.t.Errorf("%s: error object %q: %v", c.name, f.Payload, err)
		return
	}
	if !info.Sent && e.typ != codec.TypePing {
		c.counts.denied = append(c.counts.denied, e.payload)
	}
	code := codec.ErrorCode(info.Code)
	if e.code != 0 && code != e.code || e.typ == codec.TypePing {
		c.t.Errorf("%s: %v %.60q was answered %s", c.name, e.typ, e.payload, f.Payload)
	}
	switch code {
	case codec.CodeTimeout:
		c.counts.timeouts++
	case codec.CodeConnectionClosed:
		c.counts.lost++
		if !info.Sent {
			c.counts.unsent++
		}
	case codec.CodeOverloaded, codec.CodeUnavailable, codec.CodeInvalidPayload, codec.CodeInvalidType, codec.CodeInvalidVersion:
		c.counts.refused++
		if info.Sent {
			c.t.Errorf("%s: refused, but sent: %s", c.name, f.Payload)
		}
	case codec.CodeNoResponders, codec.CodeServiceError:
	default:
		c.t.Errorf("%s: %v %.60q was answered %s", c.name, e.typ, e.payload, f.Payload)
	}
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
