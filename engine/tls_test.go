package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/upstream"
)

// withTLS makes a server speak TLS with cert, and with clients that have a certificate of clients,
// if that is not nil.
func withTLS(cert tls.Certificate, clients *authority) func(*server.Options) {
	return func(o *server.Options) {
		o.TLS = true
		o.TLSTimeout = 5
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
		if clients != nil {
			o.TLSVerify = true
			o.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
			o.TLSConfig.ClientCAs = clients.pool()
		}
	}
}

// Goal: each way to set TLS up carries small and large messages, many at a time, unchanged.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	certFile, keyFile := ca.client()
	here := ca.server(nil, "127.0.0.1")
	first := func(o *server.Options) { o.TLSHandshakeFirst = true }
	for _, test := range []struct {
		name    string
		server  func(*server.Options)
		gateway func(*upstream.Config)
	}{
		{"the server wants it", withTLS(here, nil), func(*upstream.Config) {}},
		{"tls:// in the URL", withTLS(here, nil), func(c *upstream.Config) {
			c.URLs[0] = strings.Replace(c.URLs[0], "nats://", "tls://", 1)
		}},
		{"a host name", withTLS(ca.server([]string{"localhost"}), nil), func(c *upstream.Config) {
			c.URLs[0] = strings.Replace(c.URLs[0], "127.0.0.1", "localhost", 1)
		}},
		{"client certificate", withTLS(here, ca), func(c *upstream.Config) { c.CertFile, c.KeyFile = certFile, keyFile }},
		{"handshake first", func(o *server.Options) { withTLS(here, nil)(o); first(o) }, func(c *upstream.Config) { c.TLSFirst = true }},
		{"handshake first, client certificate, user", func(o *server.Options) {
			withTLS(here, ca)(o)
			first(o)
			o.Username, o.Password = "app", "secret"
		}, func(c *upstream.Config) {
			c.TLSFirst, c.CertFile, c.KeyFile = true, certFile, keyFile
			withUserInfo(c, "app:secret")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := runNATS(t, test.server)
			nc := responderWith(t, s, nats.Secure(&tls.Config{InsecureSkipVerify: true}), nats.ClientCert(certFile, keyFile), nats.UserInfo("app", "secret"),
				func(o *nats.Options) error {
					o.TLSHandshakeFirst = strings.HasPrefix(test.name, "handshake first")
					return nil
				})
			answerWith(t, nc, DefaultSubject, echo)
			cfg := testConfig(t, fmt.Sprint("nats://", s.Addr()))
			cfg.NATS.CAFile = ca.file
			test.gateway(&cfg.NATS)
			g := runGateway(t, cfg)
			waitReady(t, g)
			p := dial(t, g)
			p.send(v1(codec.TypeTaskSubmit, "small"))
			p.expectOK(1, 0, "small")
			big := strings.Repeat("0123456789abcdef", 1<<16)
			p.send(v1(codec.TypeTaskSubmit, big))
			p.expectOK(1, 0, big)
			// More than all the buffers on the way hold, both ways at once.
			const many = 8
			go func() {
				for i := range many {
					p.send(v1(codec.TypeTaskSubmit, fmt.Sprintf("%03d", i)+big[:1<<20-3]))
				}
			}()
			for i := range many {
				p.expectOK(1, 0, fmt.Sprintf("%03d", i)+big[:1<<20-3])
			}
		})
	}
}

// Goal: a TLS connection that cannot come about is named with the true reason, told once, and tried
// for ever: when what was wrong is put right, in the files or at the server, the gateway works.
func TestTLSRefused(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	certFile, keyFile := ca.client()
	strangeCert, strangeKey := stranger.client()
	here := ca.server(nil, "127.0.0.1")
	overwrite := func(t *testing.T, to, from string) {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name    string
		reason  string
		server  func(*server.Options)
		gateway func(*upstream.Config)
		repair  func(t *testing.T, c *upstream.Config) // in the files; nil: by a server that is right
		right   func(*server.Options)
	}{
		{
			name: "another authority", reason: "certificate signed by unknown authority", server: withTLS(here, nil),
			gateway: func(c *upstream.Config) { c.CAFile = writeSecret(t, nil); overwrite(t, c.CAFile, stranger.file) },
			repair:  func(t *testing.T, c *upstream.Config) { overwrite(t, c.CAFile, ca.file) },
		},
		{
			name: "no authority", reason: "certificate signed by unknown authority", server: withTLS(here, nil),
			gateway: func(c *upstream.Config) { c.CAFile = "" }, right: func(*server.Options) {},
		},
		{
			name: "an authority file without a certificate", reason: "holds no PEM certificate", server: withTLS(here, nil),
			gateway: func(c *upstream.Config) { c.CAFile = writeSecret(t, []byte("nothing")) },
			repair:  func(t *testing.T, c *upstream.Config) { overwrite(t, c.CAFile, ca.file) },
		},
		{
			name: "another name", reason: "certificate is valid for 127.0.0.2, not 127.0.0.1",
			server: withTLS(ca.server([]string{"elsewhere.example"}, "127.0.0.2"), nil), gateway: func(*upstream.Config) {},
			right: withTLS(here, nil),
		},
		{
			name: "no client certificate", reason: "certificate required", server: withTLS(here, ca),
			gateway: func(*upstream.Config) {}, right: withTLS(here, nil),
		},
		{
			name: "a stranger's client certificate", reason: "tls: ", server: withTLS(here, ca),
			gateway: func(c *upstream.Config) {
				c.CertFile, c.KeyFile = writeSecret(t, nil), writeSecret(t, nil)
				overwrite(t, c.CertFile, strangeCert)
				overwrite(t, c.KeyFile, strangeKey)
			},
			repair: func(t *testing.T, c *upstream.Config) {
				overwrite(t, c.CertFile, certFile)
				overwrite(t, c.KeyFile, keyFile)
			},
		},
		{
			name: "no client certificate, handshake first", reason: "certificate required",
			server:  func(o *server.Options) { withTLS(here, ca)(o); o.TLSHandshakeFirst = true },
			gateway: func(c *upstream.Config) { c.TLSFirst = true },
			right:   func(o *server.Options) { withTLS(here, nil)(o); o.TLSHandshakeFirst = true },
		},
		{
			name: "handshake first with a server that speaks first", reason: "TLS handshake: ", server: withTLS(here, nil),
			gateway: func(c *upstream.Config) { c.TLSFirst = true },
			right:   func(o *server.Options) { withTLS(here, nil)(o); o.TLSHandshakeFirst = true },
		},
		{
			name: "a server that wants the handshake first", reason: "waiting for the server's INFO: i/o timeout",
			server:  func(o *server.Options) { withTLS(here, nil)(o); o.TLSHandshakeFirst = true },
			gateway: func(c *upstream.Config) { c.ConnectTimeout = 50 * time.Millisecond },
			right:   withTLS(here, nil),
		},
		{
			name: "a server without TLS", reason: "TLS", server: func(*server.Options) {},
			gateway: func(*upstream.Config) {}, right: withTLS(here, nil),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := runNATS(t, test.server)
			cfg := testConfig(t, s.ClientURL())
			cfg.NATS.URLs = []string{fmt.Sprint("nats://", s.Addr())}
			cfg.NATS.CAFile = ca.file
			test.gateway(&cfg.NATS)
			log := captureLog(t, &cfg)
			g := runGateway(t, cfg)
			expectUnready(t, g, test.reason)
			expectAttempts(t, s, 6)
			expectUnready(t, g, test.reason)
			if n := log.count("level=WARN"); n > 2 {
				t.Errorf("%d warnings", n)
			}
			if test.repair != nil {
				test.repair(t, &cfg.NATS)
			} else {
				port := s.Addr().(*net.TCPAddr).Port
				s.Shutdown()
				s.WaitForShutdown()
				runNATS(t, func(o *server.Options) { o.Port = port; test.right(o) })
			}
			waitReady(t, g)
		})
	}
}

// Goal: a TLS connection that is lost with requests in flight is a lost connection like any other.
func TestTLSLinkLoss(t *testing.T) {
	ca := newAuthority(t)
	secure := withTLS(ca.server(nil, "127.0.0.1"), nil)
	s := runNATS(t, secure)
	port := s.Addr().(*net.TCPAddr).Port
	cfg := testConfig(t, s.ClientURL())
	cfg.NATS.CAFile = ca.file
	g := runGateway(t, cfg)
	p := dial(t, g)
	for range 3 {
		waitReady(t, g)
		nc := responderWith(t, s, nats.RootCAs(ca.file))
		asked := make(chan *nats.Msg, 100)
		answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
		answerWith(t, nc, "app.echo", echo)
		p.send(v2(codec.TypeRequest, 100, "app.echo", "before"))
		p.expectOK(2, 100, "before")
		const inflight = 20
		for id := range uint64(inflight) {
			p.send(v2(codec.TypeRequest, id, "app.slow", strings.Repeat("x", 50_000)))
		}
		for range inflight {
			<-asked
		}
		s.Shutdown()
		s.WaitForShutdown()
		seen := map[uint64]bool{}
		for range inflight {
			f := p.receive()
			info, err := codec.ParseError(f.Payload)
			if err != nil || info.Code != int(codec.CodeConnectionClosed) || !info.Sent || seen[f.CorrelationID] {
				t.Fatalf("answer to %d: %s", f.CorrelationID, f.Payload)
			}
			seen[f.CorrelationID] = true
		}
		p.expectNothingMore()
		p.send(v1(codec.TypeTaskSubmit, "x"))
		p.expectError(1, 0, codec.CodeUnavailable, false)
		nc.Close()
		s = runNATS(t, func(o *server.Options) { o.Port = port; secure(o) })
	}
	waitReady(t, g)
}

// Goal: a TLS connection to a server that has stopped reading ends with its link: nothing goes on
// trying to write to it. Method: a server that does the handshake, and then keeps the connection
// open and reads no more.
func TestTLSConnectionToAStuckServerEnds(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.server(nil, "127.0.0.1")}}
	stuck := make(chan struct{})
	bad := runBadServer(t, func(c *badConn) {
		_ = c.SetReadBuffer(4096)
		c.say(strings.Replace(plainInfo, "{", `{"tls_required":true,`, 1))
		secured := tls.Server(c.TCPConn, tlsConfig)
		inside := &badConn{c.TCPConn, bufio.NewReader(secured)}
		inside.await("PING")
		_, _ = secured.Write([]byte("PONG\r\n"))
		<-stuck
	})
	t.Cleanup(func() { close(stuck) }) // runs before the server's own
	cfg := testConfig(t, bad.url())
	cfg.NATS.CAFile = ca.file
	cfg.NATS.PingInterval = 300 * time.Millisecond
	cfg.NATS.ReconnectWait = time.Minute
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	const requests = 24 // of 1 MiB: more than all the buffers on the way hold
	for id := range uint64(requests) {
		p.send(v2(codec.TypeRequest, id, "app.x", strings.Repeat("x", 1<<20)))
	}
	unsent := 0
	for range requests {
		f := p.receive()
		info, err := codec.ParseError(f.Payload)
		switch {
		case err == nil && info.Code == int(codec.CodeUnavailable): // this one came after the loss
		case err == nil && info.Code == int(codec.CodeConnectionClosed):
			if !info.Sent {
				unsent++
			}
		default:
			t.Fatalf("answer to %d: %s", f.CorrelationID, f.Payload)
		}
	}
	if unsent == 0 {
		t.Fatal("everything was sent: the server was not stuck")
	}
	if err := g.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	eventually(t, "nothing copies to the server any more", func() bool {
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		return !strings.Contains(stacks.String(), "upstream.bridge")
	})
}
