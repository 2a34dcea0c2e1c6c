package engine

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/aigroup/ipc-gateway/codec"
)

// badServer is a listener that deals with each connection as script says.
type badServer struct {
	net.Listener
	connects atomic.Int64
	served   sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func runBadServer(t testing.TB, script func(*badConn)) *badServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &badServer{Listener: ln, open: map[net.Conn]bool{}}
	s.served.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.connects.Add(1)
			s.mu.Lock()
			s.open[conn] = true
			s.mu.Unlock()
			s.served.Go(func() {
				script(&badConn{conn.(*net.TCPConn), bufio.NewReader(conn)})
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(s.stop)
	return s
}

func (s *badServer) url() string { return "nats://" + s.Addr().String() }

// stop closes everything.
func (s *badServer) stop() {
	_ = s.Close()
	s.mu.Lock()
	for conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

// badConn is the server's side of a connection.
type badConn struct {
	*net.TCPConn
	in *bufio.Reader
}

const plainInfo = `INFO {"server_id":"bad","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}` + "\r\n"

func (c *badConn) say(s string) { _, _ = c.Write([]byte(s)) }

// await reads lines up to one that begins with prefix.
func (c *badConn) await(prefix string) {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// untilClosed keeps the connection open until the gateway closes it.
func (c *badConn) untilClosed() {
	buffer := make([]byte, 4096)
	for {
		if _, err := c.in.Read(buffer); err != nil {
			return
		}
	}
}

func (c *badConn) reset() { _ = c.SetLinger(0) }

// greet does a whole handshake, up to the PONG.
func (c *badConn) greet() {
	c.say(plainInfo)
	c.await("PING")
	c.say("PONG\r\n")
}

// Goal: whatever a server says or does, the gateway names a reason, tells it in few messages, tries
// again, but not in a spin, and works once there is a real server. Method: a listener with a script
// for each connection; after some attempts, a nats-server on its port.
func TestServersThatMisbehave(t *testing.T) {
	for _, test := range []struct {
		name   string
		reason string // what Ready says at some time
		script func(*badConn)
	}{
		{"closes at once", "EOF", func(*badConn) {}},
		{"resets at once", "connection reset", (*badConn).reset},
		{"is a web server", "not a NATS server", func(c *badConn) { c.say("HTTP/1.1 400 Bad Request\r\n\r\n") }},
		{"is silent", "timeout", (*badConn).untilClosed},
		{"sends binary without end", "INFO", func(c *badConn) {
			for range 40 {
				c.say(strings.Repeat("\x00\xff\x16\x03", 16<<10))
			}
			c.untilClosed()
		}},
		{"sends half an INFO", "INFO", func(c *badConn) { c.say(plainInfo[:30]) }},
		{"closes after INFO", "closed during the handshake: EOF", func(c *badConn) { c.say(plainInfo) }},
		{"resets after INFO", "closed during the handshake", func(c *badConn) { c.say(plainInfo); c.await("CONNECT"); c.reset() }},
		{"is silent after INFO", "handshake with NATS failed", func(c *badConn) { c.say(plainInfo); c.untilClosed() }},
		{"sends an INFO that is no JSON", "INFO", func(c *badConn) { c.say("INFO {]\r\n"); c.untilClosed() }},
		{"sends garbage behind INFO", "not the NATS protocol", func(c *badConn) { c.say(plainInfo + "GARBAGE\r\n"); c.untilClosed() }},
		{"closes after CONNECT", "closed during the handshake: EOF", func(c *badConn) { c.say(plainInfo); c.await("PING") }},
		{"answers CONNECT with garbage", "not the NATS protocol", func(c *badConn) { c.say(plainInfo); c.await("PING"); c.say("\x16\x03\x01\r\n"); c.untilClosed() }},
		{"sends half a PONG", "closed during the handshake: EOF", func(c *badConn) { c.say(plainInfo); c.await("PING"); c.say("PO") }},
		{"refuses the credentials", "Authorization Violation", func(c *badConn) { c.say(plainInfo); c.await("PING"); c.say("-ERR 'Authorization Violation'\r\n") }},
		{"has too many connections", "maximum connections exceeded", func(c *badConn) { c.say(plainInfo + "-ERR 'maximum connections exceeded'\r\n") }},
		{"closes after PONG", "EOF", (*badConn).greet},
		{"resets after SUB", "reset", func(c *badConn) { c.greet(); c.await("SUB"); c.reset() }},
		{"sends a huge message", "not the NATS protocol", func(c *badConn) { c.greet(); c.await("SUB"); c.say("MSG a 1 999999999\r\n"); c.untilClosed() }},
		{"complains about the protocol", "Unknown Protocol Operation", func(c *badConn) { c.greet(); c.await("SUB"); c.say("-ERR 'Unknown Protocol Operation'\r\n") }},
		{"sends an unknown error", "full moon", func(c *badConn) { c.greet(); c.await("SUB"); c.say("-ERR 'full moon'\r\n"); c.untilClosed() }},
		{"wants TLS and speaks none", "TLS", func(c *badConn) {
			c.say(strings.Replace(plainInfo, "{", `{"tls_required":true,`, 1))
			c.say("GARBAGE\r\n")
			c.untilClosed()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			misbehave(t, test.reason, test.script, 1)
		})
		t.Run(test.name+", two of them", func(t *testing.T) {
			t.Parallel()
			misbehave(t, test.reason, test.script, 2)
		})
	}
}

func misbehave(t *testing.T, reason string, script func(*badConn), servers int) {
	var bad []*badServer
	for range servers {
		bad = append(bad, runBadServer(t, script))
	}
	cfg := testConfig(t, bad[0].url())
	for _, s := range bad[1:] {
		cfg.NATS.URLs = append(cfg.NATS.URLs, s.url())
	}
	cfg.NATS.ReconnectWait = 30 * time.Millisecond
	cfg.NATS.ReconnectJitter = 10 * time.Millisecond
	cfg.NATS.ConnectTimeout = 100 * time.Millisecond
	log := captureLog(t, &cfg)
	began := time.Now()
	g := runGateway(t, cfg)
	named := false
	connects := func() (n int64) {
		for _, s := range bad {
			n += s.connects.Load()
		}
		return n
	}
	eventually(t, "there were some attempts", func() bool {
		if err := g.Ready(); err != nil {
			named = named || strings.Contains(err.Error(), reason)
			if connects() > 2 && strings.Contains(err.Error(), "no connection yet") {
				t.Fatalf("no reason is named: %v", err)
			}
		}
		return connects() >= int64(8*servers) && time.Since(began) > 200*time.Millisecond
	})
	took, attempts := time.Since(began), connects()
	if most := int64(servers) * (3 + int64(took/cfg.NATS.ReconnectWait)); attempts > most {
		t.Errorf("%d attempts to connect in %v, want at most %d", attempts, took, most)
	}
	if !named {
		t.Errorf("Ready never named %q; at last %v", reason, g.Ready())
	}
	flaps := log.count("NATS connected")
	if n := log.count("level=WARN") + log.count("level=ERROR"); n > 4*servers+3*flaps {
		t.Errorf("%d warnings in %d attempts", n, attempts)
	}
	port := bad[0].Addr().(*net.TCPAddr).Port
	for _, s := range bad {
		s.stop()
	}
	s := runNATS(t, func(o *server.Options) { o.Port = port })
	waitReady(t, g)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	p := dial(t, g)
	eventually(t, "a request is answered", func() bool { // ready may still have meant the bad server
		p.send(v1(codec.TypeTaskSubmit, "well"))
		return p.receive().Type == codec.TypeResponseOK
	})
}

// Goal: a gateway that waits with its next attempt can be closed at once. Method: two servers that
// break each connection, so that the third attempt has to wait for a minute, inside nats.go's lock.
func TestCloseWhileAnAttemptWaits(t *testing.T) {
	flap := func(c *badConn) { c.greet(); c.await("SUB") }
	first, second := runBadServer(t, flap), runBadServer(t, flap)
	cfg := testConfig(t, first.url())
	cfg.NATS.URLs = append(cfg.NATS.URLs, second.url())
	cfg.NATS.ReconnectWait = time.Minute
	cfg.NATS.ReconnectJitter = 0
	g := runGateway(t, cfg)
	eventually(t, "both were tried", func() bool { return first.connects.Load() > 0 && second.connects.Load() > 0 })
	eventually(t, "both are lost", func() bool { return g.Stats().LinkReconnects == 1 && g.Ready() != nil })
	began := time.Now()
	if err := g.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	if n := first.connects.Load() + second.connects.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
}
