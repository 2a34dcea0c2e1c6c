package chaos

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is the network between the gateway and one nats-server.
type proxy struct {
	listener net.Listener
	target   string

	delay  atomic.Int64 // nanoseconds that each piece takes
	refuse atomic.Bool  // connections end as soon as they are made
	flow   sync.RWMutex // held for writing while nothing passes

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go func() {
		for {
			up, err := listener.Accept()
			if err != nil {
				return
			}
			go p.connect(up)
		}
	}()
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

// connect owns up, a connection of the gateway.
func (p *proxy) connect(up net.Conn) {
	defer p.forget(up)
	if p.refuse.Load() {
		return
	}
	down, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.forget(down)
	p.mu.Lock()
	p.conns[up], p.conns[down] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(up, down) })
	both.Go(func() { p.copy(down, up) })
	both.Wait()
}

func (p *proxy) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
}

// copy passes bytes on until one side is closed, and then closes both.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if err != nil {
			return
		}
		p.flow.RLock()
		p.flow.RUnlock() //nolint:staticcheck // SA2001: it waits for whoever holds it, and needs nothing for itself
		time.Sleep(time.Duration(p.delay.Load()))
		if _, err := to.Write(piece[:n]); err != nil {
			return
		}
	}
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		_ = conn.Close()
	}
}
