package upstream

import (
	"strings"
	"testing"
	"time"
)

func TestValidateNamesEveryProblemAndNoSecret(t *testing.T) {
	c := Config{
		URLs:           []string{"ws://host:1", "nats://user:hunter2@", "nats://hunter2@host:x y", ""},
		CredsFile:      "/nowhere/creds",
		NKeyFile:       "/nowhere/nkey",
		CertFile:       "/nowhere/cert",
		InboxPrefix:    "a b",
		ConnectTimeout: -1, PingInterval: 2 * time.Hour, ReconnectWait: time.Second,
	}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`scheme "ws" is not supported`, `nats://user:***@" names no host`, "cannot be parsed", "empty entry",
		"exclude each other", "go together", "nats creds: open /nowhere/creds", `inbox prefix "a b"`,
		"connect timeout is -1ns", "ping interval is 2h0m0s", "max pings out is 0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error tells the password:\n%v", err)
	}
	d := Default()
	if err := d.Validate(); err != nil {
		t.Errorf("the default is not valid: %v", err)
	}
	for _, good := range []string{"nats://127.0.0.1", "localhost:4222", "tls://a.b:1", "nats://u:p@[::1]:4222", "nats://token@h"} {
		if err := checkURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"nats://h:1":                "nats://h:1",
		"nats://u:p@h:1":            "nats://u:***@h:1",
		"nats://token@h":            "nats://***@h",
		"u:p@w@h":                   "u:***@h",
		"tls://u:p:q@h:4222/,":      "tls://u:***@h:4222/,",
		"nats://:secret@h":          "nats://:***@h",
		"nats://a@b:c@d@host:4222/": "nats://a@b:***@host:4222/",

		// No URLs. The first three are what is left of a password with a comma in it.
		"nats://user:p":            "nats://user:***",
		"user:se":                  "user:***",
		"nats://u:sec":             "nats://u:***",
		"nats://u:p w@h:1":         "nats://u:***",
		"nats://token@h:port:1":    "nats://***@h:***",
		"nats://u:p%zz@h":          "nats://u:***",
		"nats://tok\x7fen@h":       "nats://***@h",
		"nats://user:se:12":        "nats://user:***",
		"nats://u:p@[::1":          "nats://u:***",
		"nats://h:70000000000000x": "nats://h:***",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", in, got, want)
		}
	}
}

// Goal: a password with a comma, which makes two URLs of one, is not told in parts, and its owner learns how to write it.
func TestCommaInPassword(t *testing.T) {
	c := Default()
	for _, url := range []string{"nats://user:hun,ter2@h", "nats://user:hun,ter2@h:4222,nats://other", "user:hun,ter2@h"} {
		c.URLs = strings.Split(url, ",")
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), "write a comma in a password as %2C") {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hun") || strings.Contains(err.Error(), "ter2")) {
			t.Errorf("%s: the error tells a part of the password: %v", url, err)
		}
	}
	c.URLs = []string{"nats://user:hun%2Cter2@h"}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// Goal: the pauses between rounds of attempts double up to a bound, for ever, and are spread.
func TestReconnectDelay(t *testing.T) {
	c := Config{ReconnectWait: 100 * time.Millisecond, ReconnectJitter: 50 * time.Millisecond}
	for rounds, doublings := range map[int]int{0: 0, 1: 0, 2: 1, 3: 2, 4: 3, 5: 3, 1 << 40: 3} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := c.reconnectDelay(rounds)
			if low, high := c.ReconnectWait<<doublings, (c.ReconnectWait+c.ReconnectJitter)<<doublings; d < low || d > high {
				t.Errorf("after %d rounds: %v, want %v to %v", rounds, d, low, high)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d rounds: only %d different pauses", rounds, len(seen))
		}
	}
}
