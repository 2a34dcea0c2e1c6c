package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fault is one thing that goes wrong, and that puts itself right before its function returns. An error of the
// function is a failure of the run: what was broken could not be put right.
type fault struct {
	name   string
	on     place
	weight int
	run    func(w *world, rng *rand.Rand) (detail string, err error)
}

// chosenFaults returns the faults whose name pattern finds.
func chosenFaults(t testing.TB, pattern string) (chosen []fault) {
	t.Helper()
	only, err := regexp.Compile(pattern)
	if err != nil {
		t.Fatalf("-chaos.only: %v", err)
	}
	for _, f := range faults {
		if only.MatchString(f.name) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		t.Fatalf("-chaos.only: no fault has %q in its name", pattern)
	}
	return chosen
}

// place is what a fault breaks. There is one fault at a time at each place, and any number at different ones.
type place int

const (
	onGateway place = iota
	onServers
	onNetwork
	onResponder
	places
)

var faults = []fault{
	{"kill -9 the gateway", onGateway, 3, killGateway},
	{"stop the gateway", onGateway, 2, stopGateway},
	{"freeze the gateway", onGateway, 3, freezeGateway},
	{"reload", onGateway, 3, reload},
	{"take over the gateway", onGateway, 4, takeOver},
	{"kill -9 a takeover", onGateway, 1, killTakeover},
	{"freeze a takeover", onGateway, 2, freezeTakeover},
	{"kill -9 a nats-server", onServers, 4, killServer},
	{"kill -9 all nats-servers", onServers, 1, killServers},
	{"freeze a nats-server", onServers, 4, freezeServer},
	{"retire a nats-server", onServers, 3, retireServer},
	{"move the stream's leader", onServers, 3, moveLeader},
	{"cut the network", onNetwork, 5, cutNetwork},
	{"delay the network", onNetwork, 4, delayNetwork},
	{"silence the network", onNetwork, 3, silenceNetwork},
	{"take the network away", onNetwork, 3, refuseNetwork},
	{"slow responder", onResponder, 4, slowResponder},
	{"no responder", onResponder, 3, noResponder},
}

// pause waits between lowMs and highMs. All sleeps of faults are its: they are the schedule, not a wait for anything.
func pause(rng *rand.Rand, lowMs, highMs int) time.Duration {
	d := time.Duration(lowMs+rng.IntN(highMs-lowMs)) * time.Millisecond
	time.Sleep(d)
	return d
}

func killGateway(w *world, rng *rand.Rand) (string, error) {
	w.gateway.end(syscall.SIGKILL)
	away := pause(rng, 1, 300)
	return fmt.Sprintf("away for %v", away), w.gateway.start()
}

func stopGateway(w *world, rng *rand.Rand) (string, error) {
	began := time.Now()
	w.gateway.end(syscall.SIGTERM)
	took := time.Since(began).Round(time.Millisecond)
	return fmt.Sprintf("it took %v", took), w.gateway.start()
}

func freezeGateway(w *world, rng *rand.Rand) (string, error) {
	pid := w.gateway.pid()
	if err := freeze(pid); err != nil {
		return "", err
	}
	defer thaw(pid)
	return fmt.Sprintf("for %v", pause(rng, 20, 1500)), nil
}

func takeOver(w *world, _ *rand.Rand) (string, error) {
	began := time.Now()
	done, err := w.gateway.takeover(nil)
	return fmt.Sprintf("done: %v, in %v", done, time.Since(began).Round(time.Millisecond)), err
}

// freezeTakeover freezes the process that takes over at some moment, for longer than the other one's patience or not.
func freezeTakeover(w *world, rng *rand.Rand) (string, error) {
	after, length := time.Duration(rng.IntN(200))*time.Millisecond, time.Duration(50+rng.IntN(2500))*time.Millisecond
	done, err := w.gateway.takeover(func(pid int) error {
		time.Sleep(after) // the schedule
		err := freeze(pid)
		time.Sleep(length)
		thaw(pid)
		return err
	})
	return fmt.Sprintf("after %v for %v, done: %v", after, length, done), err
}

func killTakeover(w *world, rng *rand.Rand) (string, error) {
	after := time.Duration(rng.IntN(400)) * time.Millisecond
	survived, err := w.gateway.breakTakeover(after)
	return fmt.Sprintf("after %v; the old one goes on: %v", after, survived), err
}

// reload gives the gateway low limits, or settings that it has to refuse, and then the old ones again.
func reload(w *world, rng *rand.Rand) (string, error) {
	text, taken := fmt.Sprintf("max_inflight_per_connection: %d\nmax_upstream_buffer: %dKiB\npause_max: %dms\n",
		1+rng.IntN(30), 64+rng.IntN(1000), rng.IntN(2)*rng.IntN(1000)), true
	if rng.IntN(3) == 0 {
		text, taken = "max_inflight_per_connection: none\n", false
	}
	if err := w.gateway.reload(text, taken); err != nil {
		return text, err
	}
	during := pause(rng, 10, 1000)
	return fmt.Sprintf("%q for %v", text, during), w.gateway.reload(settingsUsual, true)
}

func killServer(w *world, rng *rand.Rand) (string, error) {
	i, s := w.anyServer(rng)
	s.end(syscall.SIGKILL)
	return fmt.Sprintf("number %d, away for %v", i, pause(rng, 1, 1500)), s.start()
}

func killServers(w *world, rng *rand.Rand) (string, error) {
	for _, s := range w.servers {
		s.end(syscall.SIGKILL)
	}
	away := pause(rng, 1, 1000)
	var errs []error
	for _, s := range w.servers {
		errs = append(errs, s.start())
	}
	return fmt.Sprintf("away for %v", away), errors.Join(errs...)
}

func retireServer(w *world, rng *rand.Rand) (string, error) {
	i, s := w.anyServer(rng)
	s.end(syscall.SIGUSR2)
	return fmt.Sprintf("number %d", i), s.start()
}

func freezeServer(w *world, rng *rand.Rand) (string, error) {
	i, s := w.anyServer(rng)
	if err := freeze(s.cmd.Process.Pid); err != nil {
		return "", err
	}
	defer thaw(s.cmd.Process.Pid)
	return fmt.Sprintf("number %d, for %v", i, pause(rng, 50, 3000)), nil
}

// moveLeader may find no leader to move, which is as good.
func moveLeader(w *world, _ *rand.Rand) (string, error) {
	return fmt.Sprintf("error: %v", w.store.stepDown()), nil
}

func cutNetwork(w *world, rng *rand.Rand) (string, error) {
	some := w.someProxies(rng)
	for range 1 + rng.IntN(3) {
		some.each((*proxy).cut)
		pause(rng, 1, 200)
	}
	return some.String(), nil
}

func delayNetwork(w *world, rng *rand.Rand) (string, error) {
	some, delay := w.someProxies(rng), time.Duration(1+rng.IntN(100))*time.Millisecond
	some.each(func(p *proxy) { p.delay.Store(int64(delay)) })
	defer some.each(func(p *proxy) { p.delay.Store(0) })
	return fmt.Sprintf("%v by %v, for %v", some, delay, pause(rng, 100, 1500)), nil
}

// silenceNetwork lets nothing pass for a while, longer than NATS waits for a PONG or not.
func silenceNetwork(w *world, rng *rand.Rand) (string, error) {
	some := w.someProxies(rng)
	some.each(func(p *proxy) { p.flow.Lock() })
	defer some.each(func(p *proxy) { p.flow.Unlock() })
	return fmt.Sprintf("%v for %v", some, pause(rng, 50, 3000)), nil
}

func refuseNetwork(w *world, rng *rand.Rand) (string, error) {
	some := w.someProxies(rng)
	some.each(func(p *proxy) {
		p.refuse.Store(true)
		p.cut()
	})
	defer some.each(func(p *proxy) { p.refuse.Store(false) })
	return fmt.Sprintf("%v for %v", some, pause(rng, 50, 1500)), nil
}

func slowResponder(w *world, rng *rand.Rand) (string, error) {
	delay := time.Duration(10+rng.IntN(2500)) * time.Millisecond
	w.responder.delay.Store(int64(delay))
	defer w.responder.delay.Store(0)
	return fmt.Sprintf("by %v, for %v", delay, pause(rng, 100, 1500)), nil
}

func noResponder(w *world, rng *rand.Rand) (string, error) {
	w.responder.leave()
	away := pause(rng, 10, 1000)
	return fmt.Sprintf("for %v", away), w.responder.join()
}

func (w *world) anyServer(rng *rand.Rand) (int, *natsd) {
	i := rng.IntN(len(w.servers))
	return i, w.servers[i]
}

// proxies are some of the proxies, by number.
type proxies map[int]*proxy

// someProxies returns all, or one.
func (w *world) someProxies(rng *rand.Rand) proxies {
	some, only := proxies{}, rng.IntN(2*len(w.proxies))
	for i, p := range w.proxies {
		if only == i || only >= len(w.proxies) {
			some[i] = p
		}
	}
	return some
}

func (p proxies) each(f func(*proxy)) {
	for _, one := range p {
		f(one)
	}
}

func (p proxies) String() string {
	if len(p) == 1 {
		for i := range p {
			return fmt.Sprintf("before nats-server %d", i)
		}
	}
	return "before all nats-servers"
}

// schedule is the faults of a round, made from a seed. It says what happened when.
type schedule struct {
	w   *world
	rng *rand.Rand

	at      [places]sync.Mutex // held while there is a fault at that place
	running sync.WaitGroup

	mu    sync.Mutex
	lines []string
}

// run breaks things until stop is closed, and returns when all are put right.
func (s *schedule) run(stop <-chan struct{}) {
	defer s.running.Wait()
	for {
		f, rng := s.next()
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(100+s.rng.IntN(600)) * time.Millisecond):
		}
		if !s.at[f.on].TryLock() {
			continue // that place is broken already
		}
		s.running.Go(func() {
			defer s.at[f.on].Unlock()
			s.inject(f, rng)
		})
	}
}

// next chooses a fault by weight, with random numbers of its own.
func (s *schedule) next() (*fault, *rand.Rand) {
	total := 0
	for i := range s.w.faults {
		total += s.w.faults[i].weight
	}
	n := s.rng.IntN(total)
	rng := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
	for i := range s.w.faults {
		if n -= s.w.faults[i].weight; n < 0 {
			return &s.w.faults[i], rng
		}
	}
	panic("the weights do not sum up")
}

func (s *schedule) inject(f *fault, rng *rand.Rand) {
	began := s.w.history.now()
	s.note("%v: %s begins", began, f.name)
	detail, err := f.run(s.w, rng)
	if err != nil {
		s.w.history.problem(nil, "after the fault %q: %v", f.name, err)
	}
	s.note("%v: %s, since %v: %s", s.w.history.now(), f.name, began, detail)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w.injected[f.name]++
}

func (s *schedule) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *schedule) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}
