package main

import (
	"fmt"
	"strings"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// settings returns every setting that counts now.
func (s *service) settings() []control.Setting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options.effective()
}

// follows names the setting that a setting has its value from while it has none of its own.
var follows = map[string]string{
	"loops":                 "cpus",
	"routes.submit.subject": "subject", "routes.query.subject": "subject", "routes.cancel.subject": "subject",
	"routes.submit.timeout": "timeout", "routes.query.timeout": "timeout", "routes.cancel.timeout": "timeout",
}

// effective lists the settings with their values and where each comes from. Passwords are masked.
func (o *options) effective() []control.Setting {
	table := o.settings()
	sources := map[string]string{} // by name
	for _, v := range o.given {
		sources[table[v.index].name()] = v.source
	}
	list := make([]control.Setting, 0, len(table)+len(o.engine.Peers))
	for i := range table {
		name := table[i].name()
		source := sources[name]
		if source == "" {
			source = sources[follows[name]]
		}
		if source == "" {
			source = "default"
		}
		list = append(list, control.Setting{Name: name, Value: o.shown(&table[i]), Source: source})
	}
	for i := range o.engine.Peers {
		r := &o.engine.Peers[i]
		list = append(list, control.Setting{Name: peersKey + "." + r.Who(), Value: showRule(r), Source: "key peers in " + o.configFile})
	}
	return list
}

// shown returns the value of a setting as people may see it.
func (o *options) shown(s *setting) string {
	switch s.flag {
	case "nats-url":
		return redacted(o.engine.NATS.URLs)
	case "control-socket":
		return o.controlPath()
	case "probe-addr":
		if o.probeAddr == "" {
			return "off"
		}
	}
	return s.value.show()
}

// showRule tells a rule for peers in the words of the file.
func showRule(r *engine.PeerRule) string {
	var parts []string
	add := func(key string, value any, set bool) {
		if set {
			parts = append(parts, fmt.Sprintf("%s: %v", key, value))
		}
	}
	add("refuse", true, r.Refuse)
	add("connections", r.Connections, r.Connections != 0)
	add("requests_per_second", r.RequestsPerSecond, r.RequestsPerSecond != 0)
	add("burst", r.Burst, r.Burst != 0)
	add("inflight", r.Inflight, r.Inflight != 0)
	add("publish", r.Publish, r.Publish != nil)
	add("subscribe", r.Subscribe, r.Subscribe != nil)
	return strings.Join(parts, ", ")
}
