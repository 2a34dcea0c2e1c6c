package engine

import "sync/atomic"

// peerState is what is counted of the clients of one user or group. It outlives the rule that bounds
// it: a reload does not forget what was counted.
type peerState struct {
	connections atomic.Int64
	inflight    atomic.Int64 // of sessions whose rule bounds it
	tat         atomic.Int64 // see takeRate; nanoseconds since Gateway.started
	refusals    [PeerRefusalCount]atomic.Uint64
}

// PeerRefusalLabels names the reasons for PeerCounts.Refusals, in its order.
var PeerRefusalLabels = [PeerRefusalCount]string{"connections", "rate", "inflight", "subject"}

// PeerRefusalCount is the number of reasons to refuse something to a peer.
const PeerRefusalCount = 4

const (
	refusedConnection = iota
	refusedRate
	refusedInflight
	refusedSubject
)

// takeRate admits one request now, or reports that it comes too early. The state is a single number, the
// theoretical arrival time of the generic cell rate algorithm: requests that come interval apart keep up with
// it, and one may be ahead of it by tolerance. So one exchange is all that the loops share, and the rate is exact
// however few requests a second it allows and whichever loops they come on.
func (s *peerState) takeRate(now, interval, tolerance int64) bool {
	for {
		tat := s.tat.Load()
		if tat-now > tolerance {
			return false
		}
		if s.tat.CompareAndSwap(tat, max(tat, now)+interval) {
			return true
		}
	}
}

// boundRate ends a wait that a slower rate or a larger burst has left: by the rule that has these, tat is never later than this.
func (s *peerState) boundRate(now, interval, tolerance int64) {
	latest := now + tolerance + interval
	for {
		tat := s.tat.Load()
		if tat <= latest || s.tat.CompareAndSwap(tat, latest) {
			return
		}
	}
}

// takeInflight counts one more request in flight, unless there are most of them.
func (s *peerState) takeInflight(most int64) bool {
	for {
		n := s.inflight.Load()
		if n >= most {
			return false
		}
		if s.inflight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// takeConnection counts one more connection, unless there are most of them; 0 is no bound.
// REQUIRES: on the accept loop.
func (s *peerState) takeConnection(most int64) bool {
	if n := s.connections.Add(1); most == 0 || n <= most {
		return true
	}
	s.connections.Add(-1)
	s.refusals[refusedConnection].Add(1)
	return false
}

// PeerCounts is what was counted of the clients of one rule.
type PeerCounts struct {
	Connections uint64                   // open now
	Refusals    [PeerRefusalCount]uint64 // by reason; see PeerRefusalLabels
}

// PeerStats is what was counted of the clients of one rule in Config.Peers.
type PeerStats struct {
	Name string // whose it is, as "uid:1000"
	PeerCounts
}

func (s *peerState) counts() (c PeerCounts) {
	c.Connections = uint64(max(s.connections.Load(), 0))
	for i := range c.Refusals {
		c.Refusals[i] = s.refusals[i].Load()
	}
	return c
}

// peerStates are the states of all rules that there were, by PeerRule.Who. It is used by whoever makes a
// policy, one after another.
type peerStates map[string]*peerState

// of returns the state for who, which it makes if there is none.
func (all peerStates) of(who string) *peerState {
	if all[who] == nil {
		all[who] = &peerState{}
	}
	return all[who]
}
