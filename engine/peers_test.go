package engine

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aigroup/ipc-gateway/codec"
)

// ping checks that the gateway serves p.
func (p *peer) ping() {
	p.t.Helper()
	p.send(v1(codec.TypePing, ""))
	if f := p.receive(); f.Type != codec.TypePong {
		p.t.Fatalf("got %v %s, want PONG", f.Type, f.Payload)
	}
}

// ruleForUs is a rule for the user that the tests run as.
func ruleForUs(change func(r *PeerRule)) []PeerRule {
	r := PeerRule{ID: uint32(os.Geteuid())}
	change(&r)
	return []PeerRule{r}
}

// Goal: a client of another user is told who it is and what to do, ends with EOF and no reset, is
// counted each time, and logged once.
func TestStrangerIsToldAndRefused(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	openToAll(t, &cfg)
	log := captureLog(t, &cfg)
	g := runGateway(t, cfg)
	for range 5 {
		p := dialAs(t, g, user{uid: 1001, gid: 1001})
		p.expectRefusal("uid 1001 is not allowed: name it with --allow-uid")
	}
	dialAs(t, g, user{uid: 1002, gid: 1001}).expectRefusal("uid 1002")
	dial(t, g).ping()
	if s := g.Stats(); s.ConnectionsUnauthorized != 6 || s.ConnectionsTotal != 1 || s.ConnectionsRefused != 0 {
		t.Errorf("%d unauthorized, %d accepted, %d over the limit", s.ConnectionsUnauthorized, s.ConnectionsTotal, s.ConnectionsRefused)
	}
	for _, who := range []string{"peer.uid=1001", "peer.uid=1002"} {
		if n := log.count("WARN", "client is refused", "is not allowed", who); n != 1 {
			t.Errorf("%d messages about %s, want 1", n, who)
		}
	}
	if n := log.count("DEBUG", "client connected", "peer.uid=0", "peer.pid=", "rule=others"); n != 1 {
		t.Errorf("%d messages about the client that was accepted, want 1", n)
	}
}

// expectRefusal checks that p is told that it may not connect, with text in the message, and closed.
func (p *peer) expectRefusal(text string) {
	p.t.Helper()
	p.expectVerdict(text)
	p.expectEOF()
}

// Who may connect, and by which rule: "" is nobody's.
func TestWhoMayConnect(t *testing.T) {
	root := user{}
	ann := user{uid: 1001, gid: 2001, groups: []uint32{7, 3001, 3002}}
	for name, test := range map[string]struct {
		change func(*Config)
		who    user
		want   string
	}{
		"root, always":               {func(*Config) {}, root, "others"},
		"by uid":                     {func(c *Config) { c.AllowUIDs = []uint32{5, 1001} }, ann, "others"},
		"another uid":                {func(c *Config) { c.AllowUIDs = []uint32{2001, 3001} }, ann, ""},
		"by gid":                     {func(c *Config) { c.AllowGIDs = []uint32{5, 2001} }, ann, "others"},
		"by a supplementary gid":     {func(c *Config) { c.AllowGIDs = []uint32{3002} }, ann, "others"},
		"another gid":                {func(c *Config) { c.AllowGIDs = []uint32{1001} }, ann, ""},
		"gid 0 is not root":          {func(*Config) {}, user{uid: 1001, gid: 0, groups: []uint32{0}}, ""},
		"anyone":                     {func(c *Config) { c.AllowAnyone = true }, ann, "others"},
		"a rule allows":              {func(c *Config) { c.Peers = []PeerRule{{ID: 1001}} }, ann, "uid:1001"},
		"a rule for a group allows":  {func(c *Config) { c.Peers = []PeerRule{{ID: 3001, Group: true}} }, ann, "gid:3001"},
		"rules are not mixed up":     {func(c *Config) { c.Peers = []PeerRule{{ID: 1001, Group: true}, {ID: 2001}} }, ann, ""},
		"the user's rule goes first": {func(c *Config) { c.Peers = []PeerRule{{ID: 2001, Group: true}, {ID: 1001}} }, ann, "uid:1001"},
		"then the first group's": {func(c *Config) {
			c.Peers = []PeerRule{{ID: 9, Group: true}, {ID: 3002, Group: true}, {ID: 2001, Group: true}}
		}, ann, "gid:3002"},
		"a rule refuses":          {func(c *Config) { c.AllowAnyone, c.Peers = true, []PeerRule{{ID: 1001, Refuse: true}} }, ann, ""},
		"a rule refuses a group":  {func(c *Config) { c.AllowUIDs, c.Peers = []uint32{1001}, []PeerRule{{ID: 7, Group: true, Refuse: true}} }, ann, ""},
		"but not who has his own": {func(c *Config) { c.Peers = []PeerRule{{ID: 7, Group: true, Refuse: true}, {ID: 1001}} }, ann, "uid:1001"},
		"a rule for root":         {func(c *Config) { c.Peers = []PeerRule{{ID: 0}} }, root, "uid:0"},
		"a rule refuses root":     {func(c *Config) { c.Peers = []PeerRule{{ID: 0, Refuse: true}} }, root, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, "nats://127.0.0.1:1")
			openToAll(t, &cfg)
			test.change(&cfg)
			g := runGateway(t, cfg)
			p := dialAs(t, g, test.who)
			if test.want == "" {
				p.expectRefusal("uid ")
				return
			}
			p.ping()
			s := g.Stats()
			counted := append(s.Peers, PeerStats{"others", s.OtherPeers})
			for _, c := range counted {
				if want := uint64(btoi(c.Name == test.want)); c.Connections != want {
					t.Errorf("%s: %d connections, want %d", c.Name, c.Connections, want)
				}
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// More groups than fit at the first try.
func TestClientInManyGroups(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	openToAll(t, &cfg)
	var groups []uint32
	for gid := range uint32(500) {
		groups = append(groups, 10_000+gid)
	}
	cfg.AllowGIDs = []uint32{10_499}
	g := runGateway(t, cfg)
	dialAs(t, g, user{uid: 1001, gid: 1001, groups: groups}).ping()
	dialAs(t, g, user{uid: 1001, gid: 1001, groups: groups[:499]}).expectRefusal("uid 1001")
}

func TestConnectionsOfAPeerAreLimited(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.Loops = 2
	cfg.Peers = ruleForUs(func(r *PeerRule) { r.Connections = 3 })
	g := runGateway(t, cfg)
	var peers []*peer
	for range 3 {
		p := dial(t, g)
		p.ping()
		peers = append(peers, p)
	}
	for range 4 {
		p := dial(t, g)
		info := p.expectError(1, 0, codec.CodeOverloaded, false)
		if !strings.Contains(info.Message, "3 connections") {
			t.Errorf("message %q", info.Message)
		}
		p.expectEOF()
	}
	s := g.Stats()
	if s.PeerConnectionsRefused != 4 || s.Peers[0].Refusals[refusedConnection] != 4 || s.Peers[0].Connections != 3 || s.Connections != 3 || s.ConnectionsRefused != 0 {
		t.Errorf("counted: %+v", s.Peers[0])
	}
	_ = peers[1].Close()
	eventually(t, "a connection is free again", func() bool { return g.Stats().Peers[0].Connections == 2 })
	dial(t, g).ping()
}

// Every problem of every rule is named, with whose rule it is.
func TestPeerRulesAreValidated(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Peers = []PeerRule{
		{ID: 1, Connections: -1, Inflight: maxInflightMax + 1, RequestsPerSecond: 1e7, Burst: -3},
		{ID: 2, Group: true, Burst: 5, Publish: []string{"a..b", "ok.>", ">.no"}, Subscribe: []string{""}},
		{ID: 3, Refuse: true, Publish: []string{}},
		{ID: 4, RequestsPerSecond: math.NaN()},
		{ID: 1, RequestsPerSecond: -1},
		{ID: unknownID},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no problem")
	}
	messages := strings.Split(err.Error(), "\n")
	for _, want := range []string{
		"connections is -1: want 1 to", "inflight is", "requests_per_second is 1e+07: want 0.001 to 1000000", "burst is -3",
		"burst is 5 without requests_per_second", `publish: subject "a..b": not a subject pattern`, `publish: subject ">.no": not a subject pattern`,
		`subscribe: subject "": not a subject pattern`, "refuse goes with no", "requests_per_second is NaN", "peers: uid:1 has two rules", "requests_per_second is -1", "is the id of nobody",
	} {
		if n := slices.IndexFunc(messages, func(m string) bool { return strings.Contains(m, want) }); n < 0 {
			t.Errorf("not named: %s", want)
		}
	}
	if len(messages) != 13 {
		t.Errorf("%d problems, want 13:\n%v", len(messages), err)
	}
	cfg.Peers = []PeerRule{{ID: 1}, {ID: 1, Group: true, RequestsPerSecond: 0.001, Burst: burstMax, Publish: []string{}, Subscribe: []string{">"}}}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
