package engine

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

// garbler damages a stream: it flips, inserts, repeats, leaves out and cuts off, with stretches in between that stay
// as they are.
type garbler struct {
	honest  atomic.Bool
	mu      sync.Mutex
	rng     *rand.Rand
	intact  int // bytes until the next damage
	damages int
}

func (g *garbler) garble(chunk []byte) []byte {
	if g.honest.Load() {
		return chunk
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []byte
	for len(chunk) > g.intact {
		out = append(out, chunk[:g.intact]...)
		chunk = chunk[g.intact:]
		g.damages++
		g.intact = g.rng.IntN(1 + g.rng.IntN(8000))
		switch some := 1 + g.rng.IntN(20); g.rng.IntN(5) {
		case 0:
			out = append(out, byte(g.rng.Uint32()))
			chunk = chunk[1:]
		case 1:
			for range some {
				out = append(out, byte(g.rng.Uint32()))
			}
		case 2:
			out = append(out, out[max(0, len(out)-some):]...)
		case 3:
			chunk = chunk[min(some, len(chunk)):]
		case 4:
			return out
		}
	}
	g.intact -= len(chunk)
	return append(out, chunk...)
}

// Goal: whatever becomes of what a nats-server says, each request gets exactly one answer, PINGs go on, and once the
// server is honest again, so is the service, with nothing left behind. Method: a proxy before a real nats-server damages at
// random what comes from there. What answers say then may be wrong; that they come, and to whom, may not.
func TestGarbledNATS(t *testing.T) {
	seed := testSeed(t)
	s := runNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = true, t.TempDir() })
	makeStream(t, jetStreamOf(t, s.ClientURL()), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Storage: jetstream.MemoryStorage})
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.>", echo)
	at, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	damage := &garbler{rng: rand.New(rand.NewPCG(seed, 0))}
	cable := newProxyThat(t, at.Host, damage.garble)
	cfg := testConfig(t, "nats://"+cable.address())
	captureLog(t, &cfg)
	cfg.Loops, cfg.AckWait = 2, 100*time.Millisecond
	cfg.Routes.Submit.Timeout = 300 * time.Millisecond
	cfg.BreakerThreshold = 0 // or one would keep the load from NATS
	cfg.NATS.ConnectTimeout, cfg.NATS.PingInterval, cfg.NATS.MaxPingsOut = 300*time.Millisecond, 100*time.Millisecond, 2
	g := runGateway(t, cfg)

	stop := make(chan struct{})
	var clients sync.WaitGroup
	var answered, fine atomic.Int64
	for c := range 6 {
		p := dial(t, g)
		rng := rand.New(rand.NewPCG(seed, uint64(c)+1))
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ok, err := garbledRound(p, rng)
				if err != nil {
					t.Errorf("client %d: %v", c, err)
					return
				}
				answered.Add(garbledEach)
				fine.Add(ok)
			}
		})
	}
	const long = 3 * time.Second
	time.Sleep(long) // as long as the fault lasts
	damage.honest.Store(true)
	close(stop)
	clients.Wait()

	p := dial(t, g)
	eventually(t, "requests are answered rightly again", func() bool {
		p.send(v1(codec.TypeTaskSubmit, "well"))
		f, err := p.tryReceive()
		return err == nil && f.Type == codec.TypeResponseOK && string(f.Payload) == "well"
	})
	p.send(durablePublish(7, "stored", ""))
	p.expectAck(2, 7)
	p.expectNothingMore()
	st := g.Stats()
	t.Logf("%d answers, %d of them fine, %d damages, %d reconnects, %d late replies, %d copies for JetStream",
		answered.Load(), fine.Load(), damage.damages, st.LinkReconnects, st.LateReplies, st.JetStreamResends)
	if st.Inflight != 0 || st.JetStreamHeldBytes != 0 || st.SlowClientsClosed != 0 {
		t.Errorf("%d in flight, %d bytes held, %d clients closed", st.Inflight, st.JetStreamHeldBytes, st.SlowClientsClosed)
	}
	if damage.damages < 20 || st.LinkReconnects < 5 || fine.Load() == 0 {
		t.Error("the test does not test what it says")
	}
}

const garbledEach = 12

// garbledRound sends some frames of all kinds at once and checks that each is answered once: those of version 2 by their ids,
// those of version 1 by their number and order. ok is how many are well.
func garbledRound(p *peer, rng *rand.Rand) (ok int64, err error) {
	var frames []codec.Frame
	waiting := map[uint64]codec.Type{}
	var inOrder []codec.Type
	for id := range uint64(garbledEach) {
		var f codec.Frame
		payload := fmt.Sprint(id, " ", rng.Uint64())
		switch rng.IntN(5) {
		case 0:
			f = v1(codec.TypeTaskSubmit, payload)
		case 1:
			f = v1(codec.TypePing, payload)
		case 2:
			f = v2(codec.TypeRequest, id, "app.x", payload)
		case 3:
			f = v2(codec.TypePublish, id, "app.x", payload)
		case 4:
			f = durablePublish(id, payload, "")
		}
		if f.Version == codec.Version1 {
			inOrder = append(inOrder, f.Type)
		} else {
			f.TimeoutMs = 300
			waiting[id] = f.Type
		}
		frames = append(frames, f)
	}
	p.send(frames...)
	for range frames {
		f, err := p.tryReceive()
		if err != nil {
			return ok, err
		}
		switch _, asked := waiting[f.CorrelationID]; {
		case f.Version == codec.Version2 && !asked:
			return ok, fmt.Errorf("an answer to nothing: %v, id %d, %.100q", f.Type, f.CorrelationID, f.Payload)
		case f.Version == codec.Version2:
			delete(waiting, f.CorrelationID)
		case len(inOrder) == 0 || (inOrder[0] == codec.TypePing) != (f.Type == codec.TypePong):
			return ok, fmt.Errorf("out of order: %v, %.100q", f.Type, f.Payload)
		default:
			inOrder = inOrder[1:]
		}
		if f.Type != codec.TypeResponseError {
			ok++
		}
	}
	return ok, nil
}
