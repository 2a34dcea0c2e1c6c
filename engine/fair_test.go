package engine

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// fairSim is a loop whose clients and service are simulated, step by step, by the clock of the simulation.
type fairSim struct {
	t       *testing.T
	l       *loop
	service func(now int64) (answeredAt int64)
	waiting simReplies
	clients []*simClient
}

type simClient struct {
	session  *session
	window   int // requests that it keeps in flight
	inflight int
	answered int
	took     []int64 // nanoseconds
}

type simReply struct {
	at, startedAt int64
	client        *simClient
}

type simReplies []simReply

func (r simReplies) Len() int           { return len(r) }
func (r simReplies) Less(i, j int) bool { return r[i].at < r[j].at }
func (r simReplies) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *simReplies) Push(x any)        { *r = append(*r, x.(simReply)) }
func (r *simReplies) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

func newFairSim(t *testing.T, service func(now int64) int64) *fairSim {
	t.Helper()
	g, err := New(testConfig(t, "nats://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	l := g.loops[0]
	if l.watch, err = newWatchSet(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.watch.close)
	l.now = 1
	return &fairSim{t: t, l: l, service: service}
}

func (sim *fairSim) join(window int) *simClient {
	c := &simClient{session: &session{loop: sim.l}, window: window}
	sim.clients = append(sim.clients, c)
	return c
}

// run lets time pass, in passes of 10 us in which each client has a turn.
func (sim *fairSim) run(d time.Duration) {
	l := sim.l
	for end := l.now + int64(d); l.now < end; l.now += 10_000 {
		l.turnTick()
		for len(sim.waiting) > 0 && sim.waiting[0].at <= l.now {
			r := heap.Pop(&sim.waiting).(simReply)
			c := r.client
			c.inflight--
			c.answered++
			c.took = append(c.took, l.now-r.startedAt)
			l.noteReply(c.session, &request{session: c.session, startedAt: r.startedAt})
		}
		l.resumed = l.resumed[:0]
		for _, c := range sim.clients {
			c.session.paused &^= pausedUntilServed
			for turn := framesPerTurn; turn > 0 && c.inflight < c.window && c.session.paused == 0; turn-- {
				if !l.mayHave(c.session, 100) {
					break
				}
				c.inflight++
				heap.Push(&sim.waiting, simReply{at: sim.service(l.now), startedAt: l.now, client: c})
			}
		}
	}
}

// reset forgets what was measured, and returns the 99th percentile and the number of requests of clients until then.
func reset(clients []*simClient) (p99 time.Duration, answered int) {
	var took []int64
	for _, c := range clients {
		took = append(took, c.took...)
		answered += c.answered
		c.took, c.answered = nil, 0
	}
	slices.Sort(took)
	return time.Duration(took[len(took)*99/100]), answered
}

// queueing is a service that answers one request after the other.
func queueing(each time.Duration) func(int64) int64 {
	free := int64(0)
	return func(now int64) int64 {
		free = max(free, now) + int64(each)
		return free
	}
}

// Goal: beside a client that would have a thousand requests in a queue that all share, the others hardly fare worse, and it
// gets its share; once it is alone, it gets all. Without limits the others' requests would take 70 times as long.
func TestGreedyClientDoesNotSlowOthers(t *testing.T) {
	sim := newFairSim(t, queueing(20*time.Microsecond))
	var good []*simClient
	for range 15 {
		good = append(good, sim.join(1))
	}
	sim.run(2 * time.Second)
	p99Alone, answeredAlone := reset(good)
	greedy := sim.join(1024)
	for round, longerMax := range []float64{
		1.6, // it has to be seen how much it harms, and how long it is to be limited
		1.3, 1.3, 1.3,
	} {
		sim.run(2 * time.Second)
		p99, answered := reset(good)
		_, greedyAnswered := reset([]*simClient{greedy})
		t.Logf("alone: p99 %v, %d answered; beside a greedy client: %v, %d, and it %d", p99Alone, answeredAlone, p99, answered, greedyAnswered)
		// Alone all requests take exactly the same time here, so that any disturbance shows in the percentile.
		if longer := float64(p99) / float64(p99Alone); longer > longerMax || float64(answeredAlone) > 1.3*float64(answered) {
			t.Errorf("round %d: the others suffer", round)
		}
		if greedyAnswered < answered/len(good) {
			t.Errorf("round %d: it gets less than the others", round)
		}
	}
	sim.clients = []*simClient{greedy}
	sim.run(100 * time.Millisecond)
	reset([]*simClient{greedy})
	sim.run(time.Second)
	if greedy.answered < 45_000 {
		t.Errorf("alone it gets %d in a second", greedy.answered)
	}
}

// Goal: where a client with many requests in flight does nobody harm, it is not limited: the service is slow, but not
// slower for it. With answers that take very different times this cannot be told for sure, and costs it little.
func TestBusyClientOfASlowServiceIsNotLimited(t *testing.T) {
	random := rand.New(rand.NewPCG(testSeed(t), 0))
	for name, test := range map[string]struct {
		takes func() int64
		mean  time.Duration
		least float64 // of what it would get without limits
	}{
		"always the same": {func() int64 { return int64(20 * time.Millisecond) }, 20 * time.Millisecond, 0.99},
		"a little spread": {func() int64 { return int64((15 + random.Float64()*10) * float64(time.Millisecond)) }, 20 * time.Millisecond, 0.95},
		"exponential":     {func() int64 { return int64(random.ExpFloat64() * float64(20*time.Millisecond)) }, 20 * time.Millisecond, 0.6},
	} {
		t.Run(name, func(t *testing.T) {
			sim := newFairSim(t, func(now int64) int64 { return now + test.takes() })
			for range 15 {
				sim.join(1)
			}
			busy := sim.join(256)
			sim.run(5 * time.Second)
			t.Logf("%d answers, paused %d times", busy.answered, sim.l.counters.pauses[7].Load())
			if got, want := busy.answered, int(256*5*time.Second/test.mean); float64(got) < test.least*float64(want) {
				t.Errorf("%d answers in 5 s, want %.2f of %d", got, test.least, want)
			}
		})
	}
}

// Goal: clients that all do a lot, and the same, have all that the service can do.
func TestEqualClientsAreNotLimited(t *testing.T) {
	sim := newFairSim(t, queueing(5*time.Microsecond))
	for range 16 {
		sim.join(16)
	}
	sim.run(2 * time.Second)
	if _, answered := reset(sim.clients); answered < 399_000 {
		t.Errorf("%d requests were answered in the time of 400,000", answered)
	}
}

// Goal: what is usual is known of each subject apart, also where there are no circuit breakers.
func TestUsualTimesAreOfASubject(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), "app.*", echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.BreakerThreshold = 0
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	var subjects []string
	var places []uint64
	for i := 0; len(subjects) < 3; i++ {
		subject := fmt.Sprintf("app.%d", i)
		if place := hashSubject([]byte(subject)) % subjectsKept; place != 0 && !slices.Contains(places, place) {
			subjects, places = append(subjects, subject), append(places, place)
		}
	}
	eventually(t, "something is usual", func() bool { // a client is not looked at in its first round
		for i, subject := range subjects {
			p.send(v2(codec.TypeRequest, uint64(i), subject, "x"))
			p.expectOK(2, uint64(i), "x")
		}
		known, err := gather(t.Context(), g, func(l *loop) (known []uint64) {
			for place, took := range l.fair.usual {
				if took != 0 {
					known = append(known, uint64(place))
				}
			}
			return known
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(known) == 0 {
			return false
		}
		if slices.Sort(places); len(known) > len(places) || slices.Contains(known, 0) {
			t.Fatalf("something is usual of %v, want of %v", known, places)
		}
		return slices.Equal(known, places)
	})
}

// Goal: under a flood that is limited, every answer still comes, in order.
func TestFloodIsAnswered(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	g := runGateway(t, cfg)
	waitReady(t, g)
	stop := make(chan struct{})
	done := make(chan struct{})
	good := dial(t, g)
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			payload := fmt.Sprint(i)
			good.send(v1(codec.TypeTaskSubmit, payload))
			if f, err := good.tryReceive(); err != nil || string(f.Payload) != payload {
				t.Errorf("beside the flood: %v %q", err, f.Payload)
				return
			}
		}
	}()
	flood := dial(t, g)
	const n = 20_000
	flood.sendAside(repeat(n, func(i int) codec.Frame { return v1(codec.TypeTaskSubmit, fmt.Sprint(i)) })...)
	for i := range n {
		flood.expectOK(1, 0, fmt.Sprint(i))
	}
	close(stop)
	<-done
	eventually(t, "nobody is paused", func() bool { return g.Stats().PausedConnections == 0 })
}
