package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/upstream"
)

// credentials are one way to authenticate.
type credentials struct {
	name    string
	server  func(*server.Options)                  // accepts them
	gateway func(c *upstream.Config)               // has them; URLs is set
	client  nats.Option                            // has them, too
	secrets []string                               // must not be logged
	spoil   func(t *testing.T, c *upstream.Config) // makes them wrong
}

// withUserInfo puts user information into the URLs of c.
func withUserInfo(c *upstream.Config, info string) {
	for i, url := range c.URLs {
		c.URLs[i] = "nats://" + info + "@" + url[strings.LastIndexAny(url, "@/")+1:]
	}
}

func writeSecret(t testing.TB, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newUser returns a user's key pair, its public key and its seed.
func newUser(t testing.TB) (pair nkeys.KeyPair, public string, seed []byte) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = pair.Seed(); err != nil {
		t.Fatal(err)
	}
	return pair, public, seed
}

func allCredentials(t *testing.T) []credentials {
	t.Helper()
	pair, public, seed := newUser(t)
	_, _, wrongSeed := newUser(t)
	seedFile := writeSecret(t, seed)
	operator, token, creds := newOperator(t, nil)
	_, wrongToken, wrongCreds := newOperator(t, nil)
	credsFile := writeSecret(t, creds)
	_, credsSeed, _ := strings.Cut(string(creds), "BEGIN USER NKEY SEED-----\n")
	credsSeed, _, _ = strings.Cut(credsSeed, "\n")
	return []credentials{
		{
			name:    "user and password",
			server:  func(o *server.Options) { o.Username, o.Password = "gateway", "pass%word-Xq7" },
			gateway: func(c *upstream.Config) { withUserInfo(c, "gateway:pass%25word-Xq7") },
			client:  nats.UserInfo("gateway", "pass%word-Xq7"),
			secrets: []string{"pass%word-Xq7", "pass%25word-Xq7", "mistaken-Zz8"},
			spoil:   func(_ *testing.T, c *upstream.Config) { withUserInfo(c, "gateway:mistaken-Zz8") },
		},
		{
			name:    "token",
			server:  func(o *server.Options) { o.Authorization = "tokenXq7" },
			gateway: func(c *upstream.Config) { withUserInfo(c, "tokenXq7") },
			client:  nats.Token("tokenXq7"),
			secrets: []string{"tokenXq7", "mistaken-Zz8"},
			spoil:   func(_ *testing.T, c *upstream.Config) { withUserInfo(c, "mistaken-Zz8") },
		},
		{
			name:    "nkey",
			server:  func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} },
			gateway: func(c *upstream.Config) { c.NKeyFile = seedFile },
			client:  nats.Nkey(public, pair.Sign),
			secrets: []string{string(seed), string(wrongSeed)},
			spoil:   func(t *testing.T, c *upstream.Config) { c.NKeyFile = writeSecret(t, wrongSeed) },
		},
		{
			name:    "creds",
			server:  operator,
			gateway: func(c *upstream.Config) { c.CredsFile = credsFile },
			client:  nats.UserCredentials(credsFile),
			secrets: []string{token, wrongToken, credsSeed},
			spoil:   func(t *testing.T, c *upstream.Config) { c.CredsFile = writeSecret(t, wrongCreds) },
		},
	}
}

// newOperator returns an operator with an account and a user in it: options for a server that trusts
// it, the user's JWT, and its creds file. change may limit the user.
func newOperator(t testing.TB, change func(*jwt.UserClaims)) (options func(*server.Options), token string, creds []byte) {
	t.Helper()
	options, issue := newIssuer(t)
	token, creds = issue(change)
	return options, token, creds
}

// newIssuer is newOperator for as many users as issue is called for.
func newIssuer(t testing.TB) (options func(*server.Options), issue func(change func(*jwt.UserClaims)) (token string, creds []byte)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	operator, err := nkeys.CreateOperator()
	must(err)
	operatorKey, err := operator.PublicKey()
	must(err)
	operatorClaims := jwt.NewOperatorClaims(operatorKey)
	_, err = operatorClaims.Encode(operator)
	must(err)

	account, err := nkeys.CreateAccount()
	must(err)
	accountKey, err := account.PublicKey()
	must(err)
	accountToken, err := jwt.NewAccountClaims(accountKey).Encode(operator)
	must(err)
	resolver := &server.MemAccResolver{}
	must(resolver.Store(accountKey, accountToken))

	issue = func(change func(*jwt.UserClaims)) (token string, creds []byte) {
		_, userKey, seed := newUser(t)
		userClaims := jwt.NewUserClaims(userKey)
		if change != nil {
			change(userClaims)
		}
		token, err := userClaims.Encode(account)
		must(err)
		creds, err = jwt.FormatUserConfig(token, seed)
		must(err)
		return token, creds
	}
	return func(o *server.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{operatorClaims}
		o.AccountResolver = resolver
	}, issue
}

// responderWith is responder for a server that wants to know who it is.
func responderWith(t testing.TB, s *server.Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), options...)
	if err != nil {
		t.Fatalf("responder: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// expectUnsaid checks that no secret is in the log.
func expectUnsaid(t testing.TB, log *capturedLog, secrets []string) {
	t.Helper()
	for _, secret := range secrets {
		if secret == "" || strings.Contains(log.String(), secret) {
			t.Errorf("the log holds the secret %q", secret)
		}
	}
}

// Goal: each way to authenticate works, and its secrets are in no message at any level.
func TestAuthentication(t *testing.T) {
	for _, c := range allCredentials(t) {
		t.Run(c.name, func(t *testing.T) {
			s := runNATS(t, c.server)
			answerWith(t, responderWith(t, s, c.client), DefaultSubject, echo)
			cfg := testConfig(t, s.ClientURL())
			c.gateway(&cfg.NATS)
			log := captureLog(t, &cfg)
			g := runGateway(t, cfg)
			waitReady(t, g)
			p := dial(t, g)
			p.send(v1(codec.TypeTaskSubmit, "x"))
			p.expectOK(1, 0, "x")
			_ = g.Close()
			expectUnsaid(t, log, c.secrets)
		})
	}
}

// Goal: credentials that are refused are named as the reason, told once, and tried for ever. When
// the server takes them, at last or again, the gateway works. Nothing of it says a secret.
func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	for _, c := range allCredentials(t) {
		t.Run(c.name, func(t *testing.T) {
			s := runNATS(t, c.server)
			right := testConfig(t, s.ClientURL())
			wrong := testConfig(t, s.ClientURL())
			c.gateway(&right.NATS)
			c.spoil(t, &wrong.NATS)
			rightLog, wrongLog := captureLog(t, &right), captureLog(t, &wrong)
			served, refused := runGateway(t, right), runGateway(t, wrong)
			waitReady(t, served)
			expectUnready(t, refused, "Authorization Violation")
			p := dial(t, refused)
			p.send(v1(codec.TypeTaskSubmit, "x"))
			p.expectError(1, 0, codec.CodeUnavailable, false)
			expectAttempts(t, s, 8)
			expectUnready(t, refused, "Authorization Violation")

			// The server comes back with other credentials: those that were right are wrong now.
			port := s.Addr().String()[strings.LastIndexByte(s.Addr().String(), ':')+1:]
			restart := func(change func(*server.Options)) *server.Server {
				s.Shutdown()
				s.WaitForShutdown()
				return runNATS(t, func(o *server.Options) {
					_, _ = fmt.Sscan(port, &o.Port)
					change(o)
				})
			}
			s = restart(func(o *server.Options) { o.Username, o.Password = "somebody", "else" })
			refusal := "Authorization Violation"
			if c.name == "nkey" {
				refusal = "nkeys not supported by the server" // it did not ask for a signature
			}
			expectUnready(t, served, refusal)
			expectAttempts(t, s, 8)
			expectUnready(t, served, refusal)
			s = restart(c.server)
			waitReady(t, served)
			answerWith(t, responderWith(t, s, c.client), DefaultSubject, echo)
			p = dial(t, served)
			p.send(v1(codec.TypeTaskSubmit, "again"))
			p.expectOK(1, 0, "again")

			_, _ = served.Close(), refused.Close()
			for _, log := range []*capturedLog{rightLog, wrongLog} {
				expectUnsaid(t, log, c.secrets)
				// Lost, refused (by the server, in words of its own), and once more by nats.go.
				if n := log.count("level=WARN"); n > 6 {
					t.Errorf("%d warnings", n)
				}
			}
		})
	}
}

// expectAttempts waits until s has had n connections.
func expectAttempts(t testing.TB, s *server.Server, n uint64) {
	t.Helper()
	eventually(t, "the link has tried again and again", func() bool {
		v, err := s.Varz(nil)
		return err == nil && v.TotalConnections >= n
	})
}

// Goal: a creds file that goes away while the gateway runs is named, without what was in it.
func TestCredsFileThatGoesAway(t *testing.T) {
	operator, token, creds := newOperator(t, nil)
	path := writeSecret(t, creds)
	s := runNATS(t, operator)
	cfg := testConfig(t, s.ClientURL())
	cfg.NATS.CredsFile = path
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	waitReady(t, g)
	if err := os.Rename(path, path+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := s.DisconnectClientByID(onlyClient(t, s)); err != nil {
		t.Fatal(err)
	}
	expectUnready(t, g, "NATS credentials", path)
	if err := os.WriteFile(path, []byte("no creds, but "+token), 0o600); err != nil {
		t.Fatal(err)
	}
	expectAttempts(t, s, 5)
	if g.Ready() == nil {
		t.Error("ready without credentials")
	}
	if err := os.Rename(path+".gone", path); err != nil {
		t.Fatal(err)
	}
	waitReady(t, g)
	_ = g.Close()
	expectUnsaid(t, log, []string{token})
}

// onlyClient returns the id of the one connection that s has.
func onlyClient(t testing.TB, s *server.Server) uint64 {
	t.Helper()
	z, err := s.Connz(nil)
	if err != nil || len(z.Conns) != 1 {
		t.Fatalf("connections: %+v, %v", z, err)
	}
	return z.Conns[0].Cid
}

// Goal: an account that does not let us subscribe to our inbox is named as the reason; without the
// inbox no reply would come. A prefix that it allows makes the gateway work.
func TestInboxPermissionDenied(t *testing.T) {
	operator, _, creds := newOperator(t, func(u *jwt.UserClaims) {
		u.Sub.Deny.Add("_INBOX.>")
	})
	path := writeSecret(t, creds)
	s := runNATS(t, operator)
	answerWith(t, responderWith(t, s, nats.UserCredentials(path)), DefaultSubject, echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.NATS.CredsFile = path
	log := captureLog(t, &cfg)
	denied := runGateway(t, cfg)
	expectUnready(t, denied, "inbox", "Permissions Violation", "_INBOX.")
	p := dial(t, denied)
	for range 3 {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		p.expectError(1, 0, codec.CodeUnavailable, false)
	}
	if n := log.count("level=WARN"); n > 2 {
		t.Errorf("%d warnings", n)
	}

	cfg = testConfig(t, s.ClientURL())
	cfg.NATS.CredsFile = path
	cfg.NATS.InboxPrefix = "app.inbox"
	g := runGateway(t, cfg)
	waitReady(t, g)
	p = dial(t, g)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectOK(1, 0, "x")
}

// Goal: a server that has no place for us says so.
func TestTooManyConnections(t *testing.T) {
	s := runNATS(t, func(o *server.Options) { o.MaxConn = 1 })
	nc := responder(t, s.ClientURL())
	g := runGateway(t, testConfig(t, s.ClientURL()))
	expectUnready(t, g, "maximum connections exceeded")
	expectAttempts(t, s, 5)
	expectUnready(t, g, "maximum connections exceeded")
	nc.Close()
	waitReady(t, g)
}
