package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/aigroup/ipc-gateway/codec"
)

// PeerRule says what the clients of one user or group may do, all of them together.
type PeerRule struct {
	// ID is the uid that the rule is for, or with Group the gid.
	ID    uint32
	Group bool
	// Refuse turns these clients away. It goes with no other field.
	Refuse bool
	// Connections bounds the open connections; 0: only the gateway's own bound counts.
	Connections int
	// RequestsPerSecond bounds the frames that go to NATS, 0.001 to 1,000,000; 0: no bound.
	RequestsPerSecond float64
	// Burst is how many of them may come at once after a pause; 0: as many as in a second, at least 1.
	Burst int
	// Inflight bounds the requests that wait for NATS; 0: only the gateway's own bounds count.
	Inflight int
	// Publish lists the subjects, wildcards allowed, that may be published to. Nil: all but the reserved ones;
	// empty: none.
	Publish []string
	// Subscribe lists the subjects that may be subscribed to, in the same way.
	Subscribe []string
}

const (
	rateMin, rateMax = 0.001, 1e6
	burstMax         = 1_000_000
	connectionsMax   = 1 << 20
)

// Who names those that the rule is for, as "uid:1000".
func (r *PeerRule) Who() string {
	if r.Group {
		return fmt.Sprintf("gid:%d", r.ID)
	}
	return fmt.Sprintf("uid:%d", r.ID)
}

// Validate returns every problem of r, joined, each with the name and the value of the field.
func (r *PeerRule) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	bounded := func(name string, v, high int) {
		if v < 0 || v > high {
			bad("%s is %d: want 1 to %d", name, v, high)
		}
	}
	if r.ID == unknownID {
		bad("%s is the id of nobody", r.Who())
	}
	limited := r.Connections != 0 || r.RequestsPerSecond != 0 || r.Burst != 0 || r.Inflight != 0 || r.Publish != nil || r.Subscribe != nil
	if r.Refuse && limited {
		bad("refuse goes with no limits and no subjects: who is refused has nothing to be limited")
	}
	bounded("connections", r.Connections, connectionsMax)
	if v := r.RequestsPerSecond; v != 0 && !(v >= rateMin && v <= rateMax) {
		bad("requests_per_second is %v: want %v to %.0f", v, rateMin, rateMax)
	}
	bounded("burst", r.Burst, burstMax)
	if r.Burst != 0 && r.RequestsPerSecond == 0 {
		bad("burst is %d without requests_per_second: want both", r.Burst)
	}
	bounded("inflight", r.Inflight, maxInflightMax)
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"publish", r.Publish}, {"subscribe", r.Subscribe}} {
		for _, pattern := range list.patterns {
			if err := codec.ValidatePattern([]byte(pattern)); err != nil {
				bad("%s: subject %q: %s", list.name, pattern, plain(err))
			}
		}
	}
	return errors.Join(problems...)
}

// validatePeers returns every problem of the settings that say who may do what.
func (c *Config) validatePeers() (problems []error) {
	seen := map[string]bool{}
	for i := range c.Peers {
		r := &c.Peers[i]
		if err := r.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("peers: %s: %w", r.Who(), err))
		}
		if seen[r.Who()] {
			problems = append(problems, fmt.Errorf("peers: %s has two rules", r.Who()))
		}
		seen[r.Who()] = true
	}
	return problems
}

// ownID is the uid that the gateway runs as.
func ownID() uint32 { return uint32(os.Geteuid()) }
