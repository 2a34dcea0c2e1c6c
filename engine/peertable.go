package engine

import (
	"fmt"
	"math"
	"slices"
)

// peerTable finds the rule for a peer. It is compiled from a Config, and never changes.
type peerTable struct {
	rules    []*peerRule // all, in the order of the configuration
	users    map[uint32]*peerRule
	groups   []*peerRule // in the same order: the first one that matches counts
	allowUID []uint32
	allowGID []uint32
	anyone   bool
	others   *peerRule // for those who are allowed and have no rule
	nobody   *peerRule // for those who are not allowed
}

// peerRule is a PeerRule in the form that the data path wants. Each session has one.
type peerRule struct {
	table   *peerTable
	name    string // as "uid:1000", "others"
	gid     uint32 // of a rule in peerTable.groups
	refused bool   // these clients are turned away
	state   *peerState

	connectionsMax int64 // 0: no bound
	inflightMax    int64 // 0: no bound
	rateInterval   int64 // nanoseconds; 0: no bound
	rateTolerance  int64

	publish   *subjectSet // nil: all but what is reserved
	subscribe *subjectSet
	routes    [TypeCount]bool // by label: the route's subject may be published to

	// What those are told that go over a bound: composed here, so that refusing allocates nothing.
	overConnections, overInflight, overRate string
}

const (
	othersName = "others"
	nobodyName = "nobody"
)

func newPeerTable(cfg *Config, states peerStates) *peerTable {
	t := &peerTable{
		users:    map[uint32]*peerRule{},
		allowUID: append([]uint32{0, ownID()}, cfg.AllowUIDs...),
		allowGID: cfg.AllowGIDs,
		anyone:   cfg.AllowAnyone,
	}
	t.others = &peerRule{table: t, name: othersName, state: states.of(othersName)}
	t.nobody = &peerRule{table: t, name: nobodyName, state: states.of(nobodyName), refused: true}
	for label := range t.others.routes {
		t.others.routes[label] = true
	}
	for i := range cfg.Peers {
		r := newPeerRule(cfg, &cfg.Peers[i], t, states)
		t.rules = append(t.rules, r)
		if cfg.Peers[i].Group {
			t.groups = append(t.groups, r)
		} else {
			t.users[cfg.Peers[i].ID] = r
		}
	}
	return t
}

func newPeerRule(cfg *Config, from *PeerRule, t *peerTable, states peerStates) *peerRule {
	r := &peerRule{
		table: t, name: from.Who(), gid: from.ID, refused: from.Refuse, state: states.of(from.Who()),
		connectionsMax: int64(from.Connections), inflightMax: int64(from.Inflight),
		publish: newSubjectSet(from.Publish, cfg), subscribe: newSubjectSet(from.Subscribe, cfg),
	}
	r.overConnections = fmt.Sprintf("%s has %d connections, and may have no more", r.name, from.Connections)
	r.overInflight = fmt.Sprintf("%s has %d requests in flight, and may have no more", r.name, from.Inflight)
	if rate := from.RequestsPerSecond; rate != 0 {
		burst := from.Burst
		if burst == 0 {
			burst = max(int(rate), 1)
		}
		r.rateInterval = int64(math.Ceil(1e9 / rate)) // rather a little less than one too many
		r.rateTolerance = int64(burst-1) * r.rateInterval
		r.overRate = fmt.Sprintf("%s may send %v requests a second, %d at once", r.name, rate, burst)
	}
	for label, route := range map[uint8]Route{labelSubmit: cfg.Routes.Submit, labelQuery: cfg.Routes.Query, labelCancel: cfg.Routes.Cancel} {
		subject := []byte(route.Subject)
		r.routes[label] = r.publish == nil || r.publish.covers(subject, newReservedSubjects(nil).classOf(subject))
	}
	return r
}

// newSubjectSet compiles a list of a PeerRule.
func newSubjectSet(patterns []string, cfg *Config) *subjectSet {
	if patterns == nil {
		return nil
	}
	set := &subjectSet{}
	for _, pattern := range patterns {
		set.add([]byte(pattern), spelledBy(pattern, cfg.NATS.InboxPrefix))
	}
	return set
}

// ruleFor returns the rule for the client that is connected to fd: that of its uid, else the first one of
// a group that it is in, else that of everybody who is allowed, else that of nobody.
func (t *peerTable) ruleFor(p peerCredentials, fd int) *peerRule {
	if p.uid == unknownID {
		return t.nobody
	}
	if r := t.users[p.uid]; r != nil {
		return r
	}
	var groups []uint32
	if len(t.groups) > 0 || len(t.allowGID) > 0 {
		groups = append(supplementaryGroupsOf(fd), p.gid)
	}
	for _, r := range t.groups {
		if slices.Contains(groups, r.gid) {
			return r
		}
	}
	allowedGroup := func(gid uint32) bool { return slices.Contains(t.allowGID, gid) }
	if t.anyone || slices.Contains(t.allowUID, p.uid) || slices.ContainsFunc(groups, allowedGroup) {
		return t.others
	}
	return t.nobody
}

// whyRefused says why these clients are turned away, and what to do about it.
func (r *peerRule) whyRefused(p peerCredentials) string {
	if r.name == nobodyName {
		return fmt.Sprintf("uid %d is not allowed: name it with --allow-uid, or a group of it with --allow-gid, or give it a rule in peers", p.uid)
	}
	return fmt.Sprintf("uid %d is refused by the rule for %s in peers", p.uid, r.name)
}

// stats returns what was counted of the clients of each rule, in the order of the configuration, and of
// those without one.
func (t *peerTable) stats() (peers []PeerStats, others PeerCounts) {
	for _, r := range t.rules {
		peers = append(peers, PeerStats{r.name, r.state.counts()})
	}
	return peers, t.others.state.counts()
}
