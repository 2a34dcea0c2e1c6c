package engine

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// cluster is three nats-servers, each a process of its own, that know of each other.
type cluster struct {
	t       testing.TB
	options [3]natsdOptions
	members [3]*process
}

func startCluster(t testing.TB) *cluster {
	return startClusterOf(t, func(testing.TB) string { return "" })
}

// startClusterOf starts a cluster of members that have JetStream if storeDir names a folder for each.
func startClusterOf(t testing.TB, storeDir func(testing.TB) string) *cluster {
	c := &cluster{t: t}
	var routes []int
	for range c.members {
		routes = append(routes, freePort(t))
	}
	for i := range c.members {
		c.options[i] = natsdOptions{Name: fmt.Sprintf("n%d", i), Port: freePort(t), StoreDir: storeDir(t), ClusterPort: routes[i], Routes: routes}
		c.members[i] = startNATSD(t, c.options[i])
	}
	for _, url := range c.urls() {
		c.awaitWhole(url)
	}
	return c
}

// awaitWhole returns once the server at url tells its clients of all three.
func (c *cluster) awaitWhole(url string) {
	eventually(c.t, "the cluster is whole", func() bool {
		nc, err := nats.Connect(url, nats.DontRandomize())
		if err != nil {
			return false
		}
		defer nc.Close()
		return len(nc.Servers()) == len(c.members)
	})
}

func (c *cluster) urls() (urls []string) {
	for _, o := range c.options {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return urls
}

// restart starts member i again, and returns when it is one of the cluster.
func (c *cluster) restart(i int) {
	c.members[i].end()
	c.members[i] = startNATSD(c.t, c.options[i])
	c.awaitWhole(c.members[i].line)
}

// worker answers the requests on app.work and DefaultSubject with their payload, and notes it. It is
// connected to every member of the cluster at once, in a queue group: each request runs once.
type worker struct {
	mu       sync.Mutex
	executed map[string]bool
	joined   map[*nats.Conn][]*nats.Subscription
}

func startWorker(t testing.TB, c *cluster) *worker {
	w := &worker{executed: map[string]bool{}, joined: map[*nats.Conn][]*nats.Subscription{}}
	for _, url := range c.urls() {
		nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreDiscoveredServers(),
			nats.LameDuckModeHandler(w.leave), nats.ReconnectHandler(func(nc *nats.Conn) { w.join(nc) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		w.join(nc)
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// join takes requests from a server. leave takes no more, and finishes those that came: a worker that
// leaves when it is cut may lose a request or a reply, which is nobody's doing here.
func (w *worker) join(nc *nats.Conn) {
	w.mu.Lock()
	already := len(w.joined[nc]) > 0 // nats.go subscribes again by itself
	w.mu.Unlock()
	if already {
		return
	}
	for _, subject := range []string{"app.work", DefaultSubject} {
		sub, err := nc.QueueSubscribe(subject, "workers", w.work)
		if err != nil {
			continue // the server is gone again
		}
		w.mu.Lock()
		w.joined[nc] = append(w.joined[nc], sub)
		w.mu.Unlock()
	}
}

func (w *worker) leave(nc *nats.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, sub := range w.joined[nc] {
		_ = sub.Drain()
	}
	w.joined[nc] = nil
}

func (w *worker) work(m *nats.Msg) {
	w.mu.Lock()
	w.executed[string(m.Data)] = true
	w.mu.Unlock()
	_ = m.Respond(m.Data)
}

func (w *worker) ran(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.executed[name]
}

// load is what clients of both versions ask for, over and over, each waiting for its answers.
type load struct {
	stop    atomic.Bool
	clients sync.WaitGroup
	asked   atomic.Int64

	mu     sync.Mutex
	unsent []string // answered with sent: false
	failed []string // answered with any error, for people
}

const (
	loadClients = 4 // of each version
	loadBurst   = 8 // requests that are sent at once

	// loadTimeout is for requests that a worker loses when it is cut.
	loadTimeout = 3 * time.Second
)

func startLoad(t testing.TB, g *Gateway) *load {
	l := &load{}
	for client := range 2 * loadClients {
		p := dial(t, g)
		_ = p.SetDeadline(time.Now().Add(3 * testTimeout))
		l.clients.Go(func() {
			for round := 0; !l.stop.Load(); round++ {
				if err := l.round(p, client, round); err != nil {
					t.Errorf("client %d, round %d: %v", client, round, err)
					return
				}
			}
		})
	}
	return l
}

// round sends a burst and takes its answers: one for each request, with its payload or an error.
func (l *load) round(p *peer, client, round int) error {
	name := func(id uint64) string { return fmt.Sprintf("%d.%d.%d", client, round, id) }
	var burst []byte
	for id := range uint64(loadBurst) {
		f := v2(codec.TypeRequest, id, "app.work", name(id))
		f.TimeoutMs = uint32(loadTimeout.Milliseconds())
		if client%2 == 0 {
			f = v1(codec.TypeTaskSubmit, name(id))
		}
		burst = codec.AppendFrame(burst, &f)
	}
	l.asked.Add(loadBurst)
	if _, err := p.Write(burst); err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for turn := range uint64(loadBurst) {
		f, err := p.tryReceive()
		if err != nil {
			return err
		}
		id := f.CorrelationID
		if client%2 == 0 {
			id = turn
		}
		if seen[id] {
			return fmt.Errorf("%d is answered twice", id)
		}
		seen[id] = true
		if f.Type == codec.TypeResponseOK {
			if string(f.Payload) != name(id) {
				return fmt.Errorf("%s is answered with %q", name(id), f.Payload)
			}
			continue
		}
		if err := l.fail(name(id), f.Payload); err != nil {
			return err
		}
	}
	if len(l.failures()) > 0 {
		time.Sleep(time.Millisecond) // UNAVAILABLE comes at once: not a load of a million errors
	}
	return nil
}

func (l *load) fail(name string, payload []byte) error {
	info, err := codec.ParseError(payload)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, name+" "+info.Name+" sent:"+strconv.FormatBool(info.Sent)+" "+info.Message)
	if !info.Sent {
		l.unsent = append(l.unsent, name)
	}
	return nil
}

func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// backAfter returns how long it is until each of probes, which are clients of every loop, has had an
// answer.
func backAfter(t testing.TB, probes []*peer) time.Duration {
	t.Helper()
	began := time.Now()
	for _, p := range probes {
		eventually(t, "a request succeeds after the cut", func() bool {
			f := v2(codec.TypeRequest, 1, "app.work", "probe")
			f.TimeoutMs = 100 // it may reach a worker that is being cut
			p.send(f)
			return p.receive().Type == codec.TypeResponseOK
		})
	}
	return time.Since(began)
}

func (l *load) end() {
	l.stop.Store(true)
	l.clients.Wait()
}

// Goal: each server of a cluster is restarted in turn, under load of clients of both versions. Each
// request is answered once; what is answered with sent: false was not executed; a request succeeds
// within a second of each cut. With notice, no request fails. Method: three nats-servers in processes
// of their own, told by signals; the same defaults as in production.
func TestRollingRestart(t *testing.T) {
	for _, test := range []struct {
		name   string
		notice bool
		end    func(*process)
	}{
		{"with notice", true, (*process).retire},
		{"terminated", false, (*process).end},
		{"killed", false, (*process).kill},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := startCluster(t)
			w := startWorker(t, c)
			cfg := testConfig(t, "")
			cfg.NATS.ReconnectWait, cfg.NATS.ReconnectJitter = DefaultConfig().NATS.ReconnectWait, DefaultConfig().NATS.ReconnectJitter
			cfg.NATS.URLs = c.urls()
			cfg.Loops = 2
			cfg.Routes.Submit.Timeout = loadTimeout
			g := runGateway(t, cfg)
			waitReady(t, g)
			probes := []*peer{dial(t, g), dial(t, g)}
			for _, p := range probes {
				_ = p.SetDeadline(time.Now().Add(3 * testTimeout))
				p.awaitResponder()
			}
			l := startLoad(t, g)
			defer l.end()
			for i, member := range c.members {
				test.end(member)
				took := backAfter(t, probes)
				if took > time.Second {
					t.Errorf("server %d: service is back after %v", i, took)
				}
				c.restart(i)
				asked := l.asked.Load()
				eventually(t, "the load goes on", func() bool { return l.asked.Load() > asked+1000 })
				t.Logf("server %d is back; service was back %v after its end", i, took)
			}
			l.end()
			failed := l.failures()
			for _, name := range l.unsent {
				if w.ran(name) {
					t.Errorf("%s was answered with sent: false and executed", name)
				}
			}
			if test.notice && len(failed) > 0 {
				t.Errorf("%d requests failed, the first: %s", len(failed), failed[0])
			}
			s := g.Stats()
			t.Logf("%d requests, %d failed, %d of them with sent: false; %d moves, %d reconnects, %d late replies",
				l.asked.Load(), len(failed), len(l.unsent), s.LameDuckMoves, s.LinkReconnects, s.LateReplies)
			if test.notice && (s.LinkReconnects != 0 || s.LameDuckMoves == 0) {
				t.Errorf("%d reconnects and %d moves", s.LinkReconnects, s.LameDuckMoves)
			}
		})
	}
}
