package engine

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is a TCP proxy before a NATS server. It can cut its connections, and it can stop taking bytes
// from the gateway.
type proxy struct {
	listener net.Listener
	tell     func(said []byte) []byte // what the gateway is told of what the server said
	gate     chan struct{}            // holds a token while bytes of the gateway are taken
	cuts     int                      // by cutUntil

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	return newProxyThat(t, target, func(said []byte) []byte { return said })
}

func newProxyThat(t testing.TB, target string, tell func(said []byte) []byte) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, tell: tell, gate: make(chan struct{}, 1)}
	p.release()
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
			down, err := net.Dial("tcp", target)
			if err != nil {
				_ = up.Close()
				continue
			}
			_ = up.(*net.TCPConn).SetReadBuffer(16 << 10) // held back, it soon takes nothing
			p.mu.Lock()
			p.conns = append(p.conns, up, down)
			p.mu.Unlock()
			go p.copy(down, up)
			go p.copyBack(up, down)
		}
	}()
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// hold stops taking bytes from the gateway until release.
func (p *proxy) hold()    { <-p.gate }
func (p *proxy) release() { p.gate <- struct{}{} }

// copy takes what the gateway sends, in small pieces, while the gate is open.
func (p *proxy) copy(down, up net.Conn) {
	defer down.Close()
	defer up.Close()
	b := make([]byte, 4096)
	for {
		<-p.gate
		p.gate <- struct{}{}
		n, err := up.Read(b)
		if err != nil {
			return
		}
		if _, err := down.Write(b[:n]); err != nil {
			return
		}
	}
}

// copyBack tells the gateway what the server says.
func (p *proxy) copyBack(up, down net.Conn) {
	defer down.Close()
	defer up.Close()
	b := make([]byte, 4096)
	for {
		n, err := down.Read(b)
		if err != nil {
			return
		}
		if _, err := up.Write(p.tell(b[:n])); err != nil {
			return
		}
	}
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// cutUntil cuts at random moments. The pauses are the faults' schedule, not a wait for anything.
func (p *proxy) cutUntil(stop <-chan struct{}, rng *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+rng.IntN(120)) * time.Millisecond):
			p.cut()
			p.cuts++
		}
	}
}
