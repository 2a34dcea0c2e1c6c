package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/aigroup/ipc-gateway/engine"
)

// peersKey is the key of the file that holds the rules for peers.
const peersKey = "peers"

// ruleKey is one key of a rule. The error of set names the value and what is wanted instead; whether the
// value makes sense is for engine.PeerRule.Validate to say.
type ruleKey struct {
	name string
	set  func(r *engine.PeerRule, v fileValue) error
}

var ruleKeys = []ruleKey{
	{"uid", func(r *engine.PeerRule, v fileValue) (err error) {
		r.ID, err = userID(v.text)
		return err
	}},
	{"gid", func(r *engine.PeerRule, v fileValue) (err error) {
		r.Group = true
		r.ID, err = groupID(v.text)
		return err
	}},
	{"refuse", func(r *engine.PeerRule, v fileValue) error { return toggleValue(&r.Refuse).set(v.text) }},
	{"connections", func(r *engine.PeerRule, v fileValue) error { return setLimit(&r.Connections, v.text) }},
	{"requests_per_second", func(r *engine.PeerRule, v fileValue) error {
		rate, err := strconv.ParseFloat(v.text, 64)
		if err != nil || rate == 0 {
			return fmt.Errorf("%q is not a rate: want a number such as 5000 or 0.5", v.text)
		}
		r.RequestsPerSecond = rate
		return nil
	}},
	{"burst", func(r *engine.PeerRule, v fileValue) error { return setLimit(&r.Burst, v.text) }},
	{"inflight", func(r *engine.PeerRule, v fileValue) error { return setLimit(&r.Inflight, v.text) }},
	{"publish", func(r *engine.PeerRule, v fileValue) error {
		r.Publish = v.items
		return nil
	}},
	{"subscribe", func(r *engine.PeerRule, v fileValue) error {
		r.Subscribe = v.items
		return nil
	}},
}

func isRuleKey(name string) bool {
	return slices.ContainsFunc(ruleKeys, func(k ruleKey) bool { return k.name == name })
}

// setLimit reads a limit. No limit at all is said by leaving its key out, so 0 is likely a mistake.
func setLimit(p *int, text string) error {
	n, err := parseNumber(text)
	if err == nil && n == 0 {
		err = errors.New("0 lets nothing through: leave the key out for no limit, or say refuse: true")
	}
	*p = n
	return err
}

// peerRules returns the rules of the file that are right, and the problems of the others, each with its
// line.
func (f *configFile) peerRules() (rules []engine.PeerRule, problems []string) {
	lines := map[string]int{} // by owner
	for i := range f.peers {
		entry := &f.peers[i]
		r, wrong := f.peerRule(entry)
		if first, twice := lines[r.Who()]; twice && len(wrong) == 0 {
			wrong = []string{fmt.Sprintf("%s: %s has a rule already, in line %d", f.ruleSource(entry), r.Who(), first)}
		}
		if len(wrong) == 0 {
			lines[r.Who()] = entry.line
			rules = append(rules, r)
		}
		problems = append(problems, wrong...)
	}
	return rules, problems
}

// peerRule reads one rule.
func (f *configFile) peerRule(entry *fileEntry) (r engine.PeerRule, problems []string) {
	for _, key := range ruleKeys {
		if v, ok := entry.values[key.name]; ok {
			if err := key.set(&r, v); err != nil {
				problems = append(problems, fmt.Sprintf("%s: %v", f.source(peersKey+"."+key.name, v), err))
			}
		}
	}
	_, hasUID := entry.values["uid"]
	_, hasGID := entry.values["gid"]
	if hasUID == hasGID {
		problems = append(problems, f.ruleSource(entry)+": want either a uid or a gid")
	}
	if len(problems) == 0 {
		for _, message := range messages(r.Validate()) {
			problems = append(problems, f.blameKey(message, entry)+": "+message)
		}
	}
	return r, problems
}

// blameKey finds out which key of a rule a message of its Validate is about, by trying each one alone.
// Where only several together are wrong it is the rule.
func (f *configFile) blameKey(message string, entry *fileEntry) string {
	for _, key := range ruleKeys {
		v, ok := entry.values[key.name]
		if !ok {
			continue
		}
		var alone engine.PeerRule
		if key.set(&alone, v) == nil && slices.Contains(messages(alone.Validate()), message) {
			return f.source(peersKey+"."+key.name, v)
		}
	}
	return f.ruleSource(entry)
}

func (f *configFile) ruleSource(entry *fileEntry) string {
	return f.source(peersKey, fileValue{line: entry.line})
}
