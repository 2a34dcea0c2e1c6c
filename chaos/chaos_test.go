package chaos

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	flagTime  = flag.Duration("chaos.time", 0, "how long TestChaos runs; 0: a few seconds, with few clients")
	flagSeed  = flag.Uint64("chaos.seed", 0, "seed of the first round; 0: a random one")
	flagRound = flag.Duration("chaos.round", 20*time.Second, "how long faults go on until everything is checked")
	flagOnly  = flag.String("chaos.only", "", "only faults whose name this regular expression finds")
	flagRace  = flag.Bool("chaos.race", false, "build the gateway with the race detector")
)

// TestMain also is the nats-servers: this binary, run with the name of a role.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "natsd" {
		natsdRole()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// world is everything that runs.
type world struct {
	history     *history
	servers     []*natsd
	proxies     []*proxy
	gateway     *gateway
	responder   *responder
	store       *store
	clients     int
	pause       time.Duration // of a client between two batches, on average
	baseline    usage
	connections atomic.Uint64
	faults      []fault
	injected    map[string]int // faults, by name
}

// Goal: whatever breaks, no promise in doc.go is broken. Method: there.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("its work is done by programs that it builds; -chaos.race has the gateway's under the race detector")
	}
	length, clients, pause := *flagTime, 16, 5*time.Millisecond
	if length == 0 {
		length, clients, pause = 5*time.Second, 6, 20*time.Millisecond
	}
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	w := newWorld(t, clients, pause)
	w.faults = chosenFaults(t, *flagOnly)
	began := time.Now()
	w.calmRound(seed)
	for ends := time.Now().Add(length); len(w.history.broken()) == 0 && time.Until(ends) > time.Second; seed++ {
		w.round(t, seed, min(*flagRound, time.Until(ends)))
	}
	t.Logf("%v with faults, last seed %d, baseline %v\n%d faults, %d connections, %v%v", time.Since(began).Round(time.Second), seed-1, w.baseline,
		w.faultCount(), w.connections.Load(), &w.history.tally, w.faultTable())
	w.wantTakeovers()
	problems := w.history.broken()
	for _, problem := range problems[:min(len(problems), 20)] {
		t.Error(problem)
	}
	if more := len(problems) - 20; more > 0 {
		t.Errorf("and %d more", more)
	}
}

func newWorld(t *testing.T, clients int, pause time.Duration) *world {
	t.Helper()
	// A Unix socket's path has no room for t.TempDir.
	folder, err := os.MkdirTemp("", "chaos")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	binary := buildGateway(t, folder, *flagRace)
	w := &world{history: newHistory(), clients: clients, pause: pause, injected: map[string]int{}}
	w.startServers(t)
	var urls []string
	for _, s := range w.servers {
		p := newProxy(t, strings.TrimPrefix(s.url(), "nats://"))
		w.proxies = append(w.proxies, p)
		urls = append(urls, p.url())
	}
	w.responder = startResponder(t, w.history, w.servers)
	w.store = openStore(t, w.servers)
	w.gateway = newGateway(t, binary, folder, urls)
	if err := w.gateway.start(); err != nil {
		t.Fatalf("the gateway does not start: %v\n%s", err, w.gateway.logTail(20))
	}
	return w
}

func (w *world) startServers(t *testing.T) {
	var routes []int
	for range 3 {
		routes = append(routes, freePort(t))
	}
	for i := range 3 {
		s := &natsd{options: natsdOptions{Name: fmt.Sprint("nats-", i), Port: freePort(t), ClusterPort: routes[i], Routes: routes, StoreDir: t.TempDir()}}
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			thaw(s.cmd.Process.Pid)
			_ = s.stdin.Close()
			_ = s.cmd.Wait()
		})
		w.servers = append(w.servers, s)
	}
}

// calmRound is the warm-up: a second without faults, after which the baseline is taken.
func (w *world) calmRound(seed uint64) {
	if err := w.recovered(); err != nil {
		w.history.problem(nil, "it does not work before the first fault: %v", err)
		return
	}
	stop := w.startClients(seed)
	time.Sleep(time.Second) // the load's length, not a wait
	stop()
	if w.checkHistory() {
		err := eventually(func() (err error) {
			w.baseline, err = w.gateway.idle()
			return err
		})
		if err != nil {
			w.history.problem(nil, "not idle after the warm-up: %v", err)
		}
	}
}

// round breaks things for some time, lets them come to rest, and checks everything.
func (w *world) round(t *testing.T, seed uint64, length time.Duration) {
	t.Helper()
	s := &schedule{w: w, rng: rand.New(rand.NewPCG(seed, 0))}
	stopClients := w.startClients(seed)
	stopFaults := make(chan struct{})
	var faulty sync.WaitGroup
	faulty.Go(func() { s.run(stopFaults) })
	w.watch(length)
	close(stopFaults)
	faulty.Wait()
	if err := w.recovered(); err != nil {
		w.history.problem(nil, "the faults are over, and it does not work again: %v", err)
	}
	stopClients()
	if w.checkHistory() && len(w.history.broken()) == 0 {
		w.checkBaseline()
	}
	t.Logf("round of %v with seed %d: %d faults", length.Round(time.Second), seed, len(s.lines)/2)
	if len(w.history.broken()) > 0 {
		t.Logf("again: go test ./chaos -run TestChaos -chaos.seed=%d -chaos.time=%v -chaos.only=%q -chaos.race=%v\nthe schedule:\n%v\nthe end of the gateway's log:\n%s",
			seed, *flagRound, *flagOnly, *flagRace, s, w.gateway.logTail(40))
	}
}

// watch returns after length, or earlier when a promise is broken or the gateway has ended without being told to.
func (w *world) watch(length time.Duration) {
	for until := time.Now().Add(length); time.Now().Before(until) && len(w.history.broken()) == 0 && w.gateway.alive(); {
		time.Sleep(20 * time.Millisecond)
	}
	if !w.gateway.alive() {
		w.history.problem(nil, "the gateway ended by itself")
	}
}

// startClients starts clients of both kinds. The function that it returns stops them, and returns when all are gone.
func (w *world) startClients(seed uint64) (stop func()) {
	stopped := make(chan struct{})
	var all sync.WaitGroup
	for i := range w.clients {
		c := client{w: w, rng: rand.New(rand.NewPCG(seed, uint64(1+i)))}
		all.Go(func() { c.run(stopped) })
	}
	for i, kind := range hostiles {
		h := hostile{w: w, rng: rand.New(rand.NewPCG(seed, uint64(1000+i))), stop: stopped}
		all.Go(func() { h.run(kind.live) })
	}
	return func() {
		close(stopped)
		all.Wait()
	}
}

// recovered returns when the gateway is ready, and a request of each kind succeeds.
func (w *world) recovered() error {
	return eventually(func() error {
		if !w.gateway.alive() {
			return nil // watch tells
		}
		if _, err := w.gateway.get("/ready"); err != nil {
			return err
		}
		for k := range kinds {
			if err := w.succeeds(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// succeeds asks once, on a connection of its own.
func (w *world) succeeds(k kind) error {
	v := w.dial(nil)
	if v == nil {
		return fmt.Errorf("nobody serves the socket")
	}
	v.window <- struct{}{}
	_, err := v.conn.Write(v.ask(nil, k, 1000))
	r := v.only()
	if err == nil {
		v.asked = true
		v.read(closes)
	}
	_ = v.conn.Close()
	v.settle()
	if r.outcome != fine {
		return fmt.Errorf("%v", r)
	}
	return nil
}

// only returns the one request that waits.
func (v *conversation) only() *record {
	for _, r := range v.byID {
		return r
	}
	return v.ordered[0]
}

// checkHistory lets everything come to rest, compares, and begins a new history. It reports whether the stream could
// be read.
func (w *world) checkHistory() bool {
	if err := w.responder.settle(); err != nil {
		w.history.problem(nil, "%v", err)
	}
	stored, err := w.store.contents()
	if err != nil {
		w.history.problem(nil, "the stream cannot be read: %v", err)
		return false
	}
	w.history.check(stored)
	w.history.forget()
	return true
}

// Bounds of what may be left, above the baseline. The heap of an idle Go program stays as large as its last collection
// allowed; with the race detector everything is several times as large.
const (
	goroutinesMore  = 4
	descriptorsMore = 4
	rssMore         = 64 << 20
	rssMoreRace     = 512 << 20
)

// checkBaseline waits until nothing is left of the clients.
func (w *world) checkBaseline() {
	bound := usage{w.baseline.goroutines + goroutinesMore, w.baseline.descriptors + descriptorsMore, w.baseline.rssBytes + rssMore}
	if *flagRace {
		bound.rssBytes = w.baseline.rssBytes + rssMoreRace
	}
	err := eventually(func() error {
		u, err := w.gateway.idle()
		if err == nil && (u.goroutines > bound.goroutines || u.descriptors > bound.descriptors || u.rssBytes > bound.rssBytes) {
			err = fmt.Errorf("%v; allowed are %v", u, bound)
		}
		return err
	})
	if err != nil {
		w.history.problem(nil, "something is left: %v", err)
	}
}

// takeoversLeast is the share of the takeovers that were begun, and not killed, that must be completed: NATS is not away for longer than one
// waits.
const takeoversLeast = 0.5

func (w *world) wantTakeovers() {
	begun := w.injected["take over the gateway"] + w.injected["freeze a takeover"]
	if done := w.gateway.takeovers.Load(); float64(done) < takeoversLeast*float64(begun) {
		w.history.problem(nil, "%d of %d takeovers were completed", done, begun)
	}
}

func (w *world) faultCount() (n int) {
	for _, count := range w.injected {
		n += count
	}
	return n
}

func (w *world) faultTable() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.injected)) {
		fmt.Fprintf(&b, "  %-24s %5d\n", name, w.injected[name])
	}
	return b.String()
}
