package engine

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/aigroup/ipc-gateway/codec"
)

// expectOutage checks what a gateway tells of an outage: for as long as attempts go on, Ready names the
// reason, each of whose words is in one message of the log, and requests are refused at once.
func expectOutage(t testing.TB, g *Gateway, log *capturedLog, attempts func() int64, words ...string) {
	t.Helper()
	expectUnready(t, g, words...)
	before := attempts()
	eventually(t, "there were more attempts", func() bool { return attempts() >= before+4 })
	expectUnready(t, g, words...)
	if n := log.count(append(words, "level=WARN")...); n != 1 {
		t.Errorf("%q was logged %d times, want once", words, n)
	}
	p := dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectError(1, 0, codec.CodeUnavailable, false)
}

// attemptsAt counts the connections that s was ever asked for.
func attemptsAt(s *server.Server) func() int64 {
	return func() int64 {
		v, err := s.Varz(nil)
		if err != nil {
			return 0
		}
		return int64(v.TotalConnections)
	}
}

// Goal: a user whose JWT expires while the gateway is connected is an outage that names the reason; a
// new creds file in the place of the old one ends it.
func TestCredentialsThatExpireWhileConnected(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(2 * time.Second).Unix()
	operator, issue := newIssuer(t)
	_, creds := issue(func(u *jwt.UserClaims) { u.Expires = end })
	s := runNATS(t, operator)
	cfg := testConfig(t, s.ClientURL())
	cfg.NATS.CredsFile = writeSecret(t, creds)
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	expectOutage(t, g, log, attemptsAt(s), "Authorization Violation")
	if log.count("User Authentication Expired") == 0 {
		t.Error("nothing tells why the connection was lost")
	}
	_, fresh := issue(nil)
	if err := os.WriteFile(cfg.NATS.CredsFile, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	waitReady(t, g)
}

// Goal: a password that is changed at the server, which is told to reload, is an outage until it is
// changed back.
func TestPasswordThatIsRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	options := func(password string) *server.Options {
		return &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Username: "app", Password: password}
	}
	s := runNATS(t, func(o *server.Options) { *o = *options("secret") })
	change := func(password string) {
		o := options(password)
		o.Port = s.Addr().(*net.TCPAddr).Port
		if err := s.ReloadOptions(o); err != nil {
			t.Fatal(err)
		}
	}
	cfg := testConfig(t, withUser(s))
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	change("another")
	expectOutage(t, g, log, attemptsAt(s), "Authorization Violation")
	change("secret")
	waitReady(t, g)
}

// Goal: a server that comes back with a certificate that has expired is not used until it has a valid
// one; that it has expired is said once, although the error has the time in it.
func TestCertificateThatHasExpiredAtReconnect(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	valid := withTLS(ca.server(nil, "127.0.0.1"), nil)
	expired := withTLS(ca.serverUntil(time.Now().Add(-time.Minute), nil, "127.0.0.1"), nil)
	s := runNATS(t, valid)
	cfg := testConfig(t, s.ClientURL())
	cfg.NATS.CAFile = ca.file
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	restart := func(change func(*server.Options)) {
		port := s.Addr().(*net.TCPAddr).Port
		s.Shutdown()
		s.WaitForShutdown()
		s = runNATS(t, func(o *server.Options) { o.Port = port; change(o) })
	}
	restart(expired)
	expectOutage(t, g, log, attemptsAt(s), "certificate has expired")
	// The text of the error changes with each second.
	until := time.Now().Add(1100 * time.Millisecond)
	eventually(t, "it is another second", func() bool { return time.Now().After(until) })
	expectOutage(t, g, log, attemptsAt(s), "certificate has expired")
	restart(valid)
	waitReady(t, g)
}

// nameServer answers each question for an address with 127.0.0.1, or does not know the name, or is
// silent.
type nameServer struct {
	net.PacketConn
	mode  atomic.Int32
	asked atomic.Int64
}

const (
	nameKnown int32 = iota
	nameUnknown
	nameSilence
)

// runNameServer makes the names of this process its business, until the test ends.
func runNameServer(t *testing.T) *nameServer {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{PacketConn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	var mu sync.Mutex
	var questions []net.Conn // Go goes on waiting for an answer for seconds when the dial has given up
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		question, err := (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
		if err == nil {
			mu.Lock()
			questions = append(questions, question)
			mu.Unlock()
		}
		return question, err
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		<-done
		mu.Lock()
		defer mu.Unlock()
		for _, question := range questions {
			_ = question.Close()
		}
	})
	return s
}

func (s *nameServer) serve() {
	question := make([]byte, 512)
	for {
		n, from, err := s.ReadFrom(question)
		if err != nil {
			return
		}
		s.asked.Add(1)
		if mode := s.mode.Load(); mode != nameSilence {
			_, _ = s.WriteTo(answerTo(question[:n], mode), from)
		}
	}
}

// answerTo makes a response of a DNS question: the header and the question as they are, and an A record.
func answerTo(question []byte, mode int32) []byte {
	at := 12
	for question[at] != 0 {
		at += 1 + int(question[at])
	}
	at += 5 // the root label, type and class
	isA := question[at-3] == 1
	answer := append([]byte(nil), question[:at]...)
	answer[2], answer[3] = 0x81, 0x80 // a response, recursion available, no error
	answer[10], answer[11] = 0, 0     // without the additional record that the question has
	switch {
	case mode == nameUnknown:
		answer[3] |= 3 // NXDOMAIN
	case isA:
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
	}
	return answer
}

// Goal: a name that stops resolving at a reconnect is named as the reason, once, whether the name
// server knows nothing of it or says nothing at all; the gateway asks on, and works when it resolves.
func TestNameThatStopsResolving(t *testing.T) {
	names := runNameServer(t)
	s := runNATS(t, nil)
	port := s.Addr().(*net.TCPAddr).Port
	cfg := testConfig(t, "nats://nats.gateway-test.:"+strconv.Itoa(port))
	cfg.NATS.ConnectTimeout = 50 * time.Millisecond
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	for _, outage := range []struct {
		mode   int32
		reason string
	}{{nameUnknown, "no such host"}, {nameSilence, "timeout"}} {
		names.mode.Store(outage.mode)
		s.Shutdown()
		s.WaitForShutdown()
		expectOutage(t, g, log, names.asked.Load, "looking up nats.gateway-test.", outage.reason)
		s = runNATS(t, func(o *server.Options) { o.Port = port })
		names.mode.Store(nameKnown)
		waitReady(t, g)
	}
	if strings.Contains(log.String(), names.LocalAddr().String()) {
		t.Error("a reason has the name server's address in it, and with it a port of ours that changes each time")
	}
}
