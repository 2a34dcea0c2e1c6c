package engine

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// bareLoop returns a loop that is not run: only its breakers and slots may be used.
func bareLoop(cfg *Config) *loop {
	return &loop{
		log: slog.New(slog.DiscardHandler), policy: &policy{Config: *cfg},
		slots: pool.NewTable[request](4096), breakers: newBreakerTable(),
	}
}

// ask is what publish does for the breaker: it returns the request, or how long to wait.
func (l *loop) ask(subject []byte) (h pool.Handle, wait int64) {
	if e := l.breakers.find(hashSubject(subject)); e != nil {
		if wait = l.breakerWait(e); wait != 0 {
			return 0, wait
		}
	}
	h, r := l.slots.Acquire()
	l.watchOutcome(r, subject, ModeRequest)
	return h, 0
}

// breakerModel says what the breaker of one subject should do, in the simplest words.
type breakerModel struct {
	state     BreakerState
	failures  int
	successes int
	until     int64
	loss      int
	era       int // openings so far: requests of an earlier one do not count
	probes    map[pool.Handle]bool
}

// modelRequest is a request in flight.
type modelRequest struct {
	subject int
	era     int
	counted bool
}

// breakerWorld drives a loop's breakers and their models with the same events.
type breakerWorld struct {
	t        *testing.T
	l        *loop
	rng      *rand.Rand
	losses   int
	subjects [][]byte
	models   []breakerModel
	dead     []bool
	inflight map[pool.Handle]modelRequest
	order    []pool.Handle // of inflight, by index
	closings int
}

func (w *breakerWorld) ask(subject int) {
	m := &w.models[subject]
	m.turn(w.l.now)
	want := int64(0)
	switch {
	case m.state == BreakerOpen:
		want = m.until - w.l.now
	case m.state == BreakerHalfOpen && len(m.probes) >= w.l.policy.BreakerProbes && w.l.now < m.until:
		want = min(m.until-w.l.now, int64(w.l.policy.BreakerOpenTime)/10)
	}
	h, wait := w.l.ask(w.subjects[subject])
	if wait != want {
		w.t.Fatalf("subject %d: wait %d, want %d; %+v", subject, wait, want, m)
	}
	if wait != 0 {
		return
	}
	if m.state == BreakerHalfOpen {
		m.probes[h] = true
		m.until = w.l.now + int64(w.l.policy.BreakerOpenTime)
	}
	w.inflight[h] = modelRequest{subject, m.era, w.l.policy.BreakerThreshold != 0}
	w.order = append(w.order, h)
	slices.SortFunc(w.order, func(a, b pool.Handle) int { return int(a.Index()) - int(b.Index()) })
}

// turn makes an open breaker half-open when its time has come.
func (m *breakerModel) turn(now int64) {
	if m.state == BreakerOpen && now >= m.until {
		m.state, m.probes = BreakerHalfOpen, map[pool.Handle]bool{}
	}
}

func (w *breakerWorld) open(m *breakerModel) {
	m.state, m.successes, m.probes = BreakerOpen, 0, nil
	m.until = w.l.now + int64(w.l.policy.BreakerOpenTime)
	m.era++
}

// end gives a request its outcome; lost says that it is the loss of the connection.
func (w *breakerWorld) end(h pool.Handle, v verdict, lost bool) {
	r := w.inflight[h]
	delete(w.inflight, h)
	w.order = slices.DeleteFunc(w.order, func(other pool.Handle) bool { return other == h })
	w.endInLoop(h, v, lost)
	m := &w.models[r.subject]
	m.turn(w.l.now)
	probe := m.probes[h]
	delete(m.probes, h)
	if !r.counted || r.era != m.era || v == saysNothing {
		return
	}
	switch {
	case v == success && m.state == BreakerClosed:
		m.failures = 0
	case v == success && probe:
		if m.successes++; m.successes >= w.l.policy.BreakerSuccesses {
			*m = breakerModel{era: m.era}
			w.closings++
		}
	case v == failure && probe:
		m.failures++
		w.open(m)
	case v == failure && m.state == BreakerClosed:
		if lost && m.loss == w.losses && m.failures > 0 {
			return
		}
		if lost {
			m.loss = w.losses
		}
		if m.failures++; m.failures >= w.l.policy.BreakerThreshold {
			w.open(m)
		}
	}
}

// endInLoop does what the loop does at the end of a request.
func (w *breakerWorld) endInLoop(h pool.Handle, v verdict, lost bool) {
	r := w.l.slots.Get(h)
	outcome := outcomeOK
	switch {
	case v == saysNothing && w.rng.IntN(2) == 0: // the client has gone
		if r.probe != 0 {
			w.l.withdraw(r)
		}
		w.l.slots.Release(h)
		return
	case v == saysNothing: // a timeout that is too short, or an unsent message
		w.l.withdraw(r)
		outcome = outcomeOf(codec.CodeTimeout)
	case lost:
		outcome = outcomeOf(codec.CodeConnectionClosed)
	case v == failure:
		outcome = outcomeOf(codec.CodeTimeout)
	case w.rng.IntN(3) == 0:
		outcome = outcomeOf(codec.CodeNoResponders)
	}
	w.l.judge(r, outcome)
	w.l.slots.Release(h)
}

func (w *breakerWorld) loseLink() {
	w.losses++
	w.l.breakers.losses++
	for _, h := range slices.Clone(w.order) {
		v := failure
		if w.rng.IntN(4) == 0 {
			v = saysNothing
		}
		w.end(h, v, true)
	}
}

// reload changes the numbers, or switches the breakers off.
func (w *breakerWorld) reload() {
	cfg := w.l.policy.Config
	cfg.BreakerThreshold = w.rng.IntN(6)
	cfg.BreakerProbes, cfg.BreakerSuccesses = 1+w.rng.IntN(3), 1+w.rng.IntN(3)
	cfg.BreakerOpenTime = time.Duration(10+w.rng.IntN(100)) * time.Millisecond
	w.l.policy = &policy{Config: cfg}
	w.l.followBreakers()
	if cfg.BreakerThreshold != 0 {
		return
	}
	for i := range w.models {
		w.models[i] = breakerModel{era: w.models[i].era}
	}
	for h, r := range w.inflight {
		r.counted = false
		w.inflight[h] = r
	}
}

func (w *breakerWorld) step() {
	switch roll := w.rng.IntN(1000); {
	case roll < 480:
		if len(w.order) < 500 {
			w.ask(w.rng.IntN(len(w.subjects)))
		}
	case roll < 960:
		if len(w.order) == 0 {
			return
		}
		h := w.order[w.rng.IntN(len(w.order))]
		v := success
		if w.dead[w.inflight[h].subject] {
			v = failure
		}
		if w.rng.IntN(20) == 0 {
			v = verdict(w.rng.IntN(3))
		}
		w.end(h, v, false)
	case roll < 985:
		w.l.now += w.rng.Int64N(int64(20 * time.Millisecond))
		if w.rng.IntN(2) == 0 {
			w.l.turnBreakers()
		}
	case roll < 995:
		subject := w.rng.IntN(len(w.subjects))
		w.dead[subject] = !w.dead[subject]
	case roll < 997:
		w.loseLink()
	default:
		w.reload()
	}
}

// check compares every breaker with its model.
func (w *breakerWorld) check() {
	var states [BreakerStateCount]int64
	for i := range w.models {
		m := &w.models[i]
		m.turn(w.l.now)
		e := w.l.breakers.find(hashSubject(w.subjects[i]))
		if e == nil {
			if m.state != BreakerClosed || m.failures != 0 {
				w.t.Fatalf("subject %d has no breaker, want %+v", i, m)
			}
			continue
		}
		states[e.state]++
		state := e.state
		if state == BreakerOpen && w.l.now >= e.until {
			state = BreakerHalfOpen
		}
		if state != m.state || int(e.failures) != m.failures || int(e.successes) != m.successes || int(e.probes) != len(m.probes) {
			w.t.Fatalf("subject %d: %v, %d failures, %d successes, %d probes; want %+v", i, e.state, e.failures, e.successes, e.probes, m)
		}
		if name := e.String(); name != "" && name != string(w.subjects[i]) {
			w.t.Fatalf("subject %d is called %q", i, e.String())
		}
	}
	for state, want := range states {
		if got := w.l.breakers.states[state].Load(); got != want {
			w.t.Fatalf("%d breakers are counted as %v, want %d", got, BreakerState(state), want)
		}
	}
}

// Goal: breakers do what their rules say, whatever happens in which order. Method: random requests, outcomes, clock steps,
// lost connections and reloads, against a model in plain words. IPC_TEST_SEED repeats the choices.
func TestBreakersFollowTheirModel(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BreakerThreshold, cfg.BreakerOpenTime = 3, 50*time.Millisecond
	w := &breakerWorld{
		t: t, l: bareLoop(&cfg), rng: rand.New(rand.NewPCG(testSeed(t), 1)),
		models: make([]breakerModel, 24), dead: make([]bool, 24), inflight: map[pool.Handle]modelRequest{},
	}
	for i := range w.models {
		w.subjects = append(w.subjects, fmt.Appendf(nil, "app.service.%d", i))
	}
	w.l.now = 1
	for range 300_000 {
		w.step()
		w.check()
	}
	c := &w.l.counters
	opened, halfOpened := c.breakerTransitions[BreakerOpen].Load(), c.breakerTransitions[BreakerHalfOpen].Load()
	t.Logf("opened %d times, half-open %d, closed %d", opened, halfOpened, w.closings)
	if got := c.breakerTransitions[BreakerClosed].Load(); got != uint64(w.closings) {
		t.Errorf("%d closings are counted, want %d", got, w.closings)
	}
	if w.closings < 50 || opened < 500 || halfOpened < 500 {
		t.Error("too little happened: the test does not test what it says")
	}
}

// Goal: the table forgets what was longest not touched, never what is open, and takes nothing more when all are open.
// Method: random changes against a list in the order of the last touch.
func TestBreakerTableIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(testSeed(t), 2))
	table := newBreakerTable()
	var order []uint64 // of those that are not open, the oldest first
	open := map[uint64]bool{}
	drop := func(hash uint64) {
		order = slices.DeleteFunc(order, func(other uint64) bool { return other == hash })
	}
	refused, evicted := 0, 0
	for step := range 80_000 {
		hash := rng.Uint64N(breakersMax + breakersMax/8)
		opening, halfOpening := 20, 60 // percent of the looks
		if step/20_000%2 == 1 {        // until all are open
			opening, halfOpening = 100, 0
		}
		e := table.find(hash)
		if (e != nil) != (open[hash] || slices.Contains(order, hash)) {
			t.Fatalf("step %d: found %v", step, e != nil)
		}
		switch {
		case e == nil:
			if e = table.add(hash); e == nil {
				refused++
				if len(open) != breakersMax {
					t.Fatalf("step %d: no room, with %d open", step, len(open))
				}
				continue
			}
			if len(order)+len(open) == breakersMax {
				order = order[1:]
				evicted++
			}
			order = append(order, hash)
		case e.state == BreakerOpen:
			if rng.IntN(100) < halfOpening {
				table.setState(e, BreakerHalfOpen)
				delete(open, hash)
				order = append(order, hash)
			}
		case rng.IntN(100) < opening:
			table.setState(e, BreakerOpen)
			drop(hash)
			open[hash] = true
		case rng.IntN(8) == 0:
			table.remove(e)
			drop(hash)
		default:
			table.touch(e)
			drop(hash)
			order = append(order, hash)
		}
		if table.tracked != len(order)+len(open) || table.states[BreakerOpen].Load() != int64(len(open)) {
			t.Fatalf("step %d: %d tracked, %d open; want %d and %d", step, table.tracked, table.states[BreakerOpen].Load(), len(order)+len(open), len(open))
		}
	}
	if refused == 0 || evicted == 0 {
		t.Errorf("%d refused, %d evicted: the test does not test what it says", refused, evicted)
	}
	for n, i := table.entries[0].newer, 0; n != 0; n, i = table.entries[n].newer, i+1 {
		if table.entries[n].hash != order[i] {
			t.Fatalf("place %d has %d, want %d", i, table.entries[n].hash, order[i])
		}
	}
}

// Goal: long subjects are cut for listings, and still have breakers of their own.
func TestBreakersOfLongSubjects(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BreakerThreshold = 1
	l := bareLoop(&cfg)
	long := slices.Repeat([]byte("long."), 100)
	other := append(slices.Clone(long), 'x')
	h, _ := l.ask(long)
	l.judge(l.slots.Get(h), outcomeOf(codec.CodeTimeout))
	if _, wait := l.ask(long); wait == 0 {
		t.Error("the breaker did not open")
	}
	if _, wait := l.ask(other); wait != 0 {
		t.Error("another subject with the same beginning is refused")
	}
	if e := l.breakers.find(hashSubject(long)); e.String() != string(long[:breakerSubjectBytes]) {
		t.Errorf("called %q", e.String())
	}
}
