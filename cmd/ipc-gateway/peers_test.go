package main

import (
	"fmt"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aigroup/ipc-gateway/engine"
)

func TestPeersOfTheFile(t *testing.T) {
	o := configured(t, map[string]string{"config": configFileWith(t, `
peers:
  - uid: root
    connections: 100
    requests_per_second: 0.5
    burst: 500
    inflight: 200
    publish: [app.>, "a,b", beamline.router.v1.decide]
    subscribe: events.>
  - {gid: 1000, publish: [], subscribe: }
  - gid: daemon
  - uid: 1000
    refuse: true
  - uid: 1001
    refuse: false
`)}, nil)
	want := []engine.PeerRule{
		{
			ID: 0, Connections: 100, RequestsPerSecond: 0.5, Burst: 500, Inflight: 200,
			Publish: []string{"app.>", "a,b", "beamline.router.v1.decide"}, Subscribe: []string{"events.>"},
		},
		{ID: 1000, Group: true, Publish: []string{}},
		{ID: 1, Group: true},
		{ID: 1000, Refuse: true},
		{ID: 1001},
	}
	if !reflect.DeepEqual(o.engine.Peers, want) {
		t.Errorf("got  %+v\nwant %+v", o.engine.Peers, want)
	}
	for _, text := range []string{"peers:\n", "peers: []\n", ""} {
		if o := configured(t, map[string]string{"config": configFileWith(t, text)}, nil); len(o.engine.Peers) != 0 {
			t.Errorf("%q: got %+v", text, o.engine.Peers)
		}
	}
}

// Every problem of every rule is named with its line, those of flags and variables beside them.
func TestPeerProblems(t *testing.T) {
	config := configFileWith(t, `peers:
  - uid: no-such-user
    connections: 0
    inflight: many
  - gid: no-such-group
  - uid: 1
    gid: 1
  - connections: 3
  - uid: 2
    burst: 7
    publish: [ok, a..b, ">.x"]
    requests: 5
  - uid: 3
    connections: -1
    requests_per_second: 0
  - uid: 4
    refuse: true
    inflight: 5
  - uid: 5
    refuse: perhaps
    subscribe: [[nested]]
  - uid: 6
    connections: 1
  - uid: 6
  - uid: 4294967295
  - stray
  - {}
  - uid: 7
    requests_per_second: 1e9
`)
	code, _, stderr := run(t, map[string]string{"IPC_ALLOW_GID": "root,nobody-knows"}, "serve", "--config", config,
		"--allow-uid", "root,ghost", "--allow-uid=spectre")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	at := func(key string, line int) string { return fmt.Sprintf("key %s in %s:%d: ", key, config, line) }
	wants := []string{
		`flag --allow-uid: "ghost" is no user of this machine`,
		`flag --allow-uid: "spectre" is no user of this machine`,
		`variable IPC_ALLOW_GID: "nobody-knows" is no group of this machine`,
		at("peers.uid", 2) + `"no-such-user" is no user`,
		at("peers.connections", 3) + "0 lets nothing through",
		at("peers.inflight", 4) + `"many" is not a whole number`,
		at("peers.gid", 5) + `"no-such-group" is no group`,
		at("peers", 6) + "want either a uid or a gid",
		at("peers", 8) + "want either a uid or a gid",
		at("peers.burst", 10) + "burst is 7 without",
		at("peers.publish", 11) + `publish: subject "a..b"`,
		at("peers.publish", 11) + `publish: subject ">.x"`,
		at("peers.requests", 12) + "there is no such setting",
		at("peers.requests_per_second", 15) + `"0" is not a rate`,
		at("peers", 16) + "refuse goes with no limits",
		at("peers.refuse", 20) + `"perhaps" is neither`,
		at("peers.subscribe", 21) + "want a single value",
		at("peers", 24) + "uid:6 has a rule already, in line 22",
		at("peers.uid", 25) + `"4294967295" is no user`,
		at("peers", 26) + "want a rule with a uid or a gid, found a string",
		at("peers", 27) + "want a rule with a uid or a gid, found nothing",
		at("peers.requests_per_second", 29) + "requests_per_second is 1e+09",
	}
	wantAll(t, stderr, wants...)
	if lines := strings.Count(stderr, "\n  "); lines != len(wants) {
		t.Errorf("%d problems, want each of the %d once", lines, len(wants))
	}
	for text, want := range map[string]string{"peers: 3\n": "want a list of rules", "peers: {uid: 3}\n": "want a list of rules", "peers:\n- uid: 3\n  connections: -1\n": "want 1 to"} {
		if code, _, stderr := run(t, nil, "serve", "--config", configFileWith(t, text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d: %s", text, code, stderr)
		}
	}
}

func TestAllowedUsersAndGroups(t *testing.T) {
	file := configFileWith(t, "allow_uid: [root, 7]\nallow_gid: daemon\n")
	for name, c := range map[string]struct {
		flags, env map[string]string
		uids, gids []uint32
		anyone     bool
	}{
		"nothing":  {},
		"file":     {flags: map[string]string{"config": file}, uids: []uint32{0, 7}, gids: []uint32{1}},
		"flags":    {flags: map[string]string{"allow-uid": "5, daemon", "allow-gid": "6"}, uids: []uint32{5, 1}, gids: []uint32{6}},
		"variable": {env: map[string]string{"IPC_ALLOW_UID": "5", "IPC_ALLOW_GID": "root"}, uids: []uint32{5}, gids: []uint32{0}},
		"any":      {flags: map[string]string{"allow-uid": "any"}, anyone: true},
		"any too":  {flags: map[string]string{"allow-uid": "5,any"}, uids: []uint32{5}, anyone: true},
	} {
		o := configured(t, c.flags, c.env).engine
		if !slices.Equal(o.AllowUIDs, c.uids) || !slices.Equal(o.AllowGIDs, c.gids) || o.AllowAnyone != c.anyone {
			t.Errorf("%s: got %v, %v, %v", name, o.AllowUIDs, o.AllowGIDs, o.AllowAnyone)
		}
	}
	// A value that was read is shown so that it can be read again.
	o := defaultOptions()
	for _, s := range o.settings() {
		if s.flag == "allow-uid" {
			if err := s.value.set("root,any,7"); err != nil || s.value.show() != "0,7,any" {
				t.Errorf("%q, %v", s.value.show(), err)
			}
		}
	}
}

// permissionsDocument is docs/permissions.md.
func permissionsDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each key of a rule has a row in the document, and its example is a file that the program takes.
func TestDocumentedPeersWork(t *testing.T) {
	document := permissionsDocument(t)
	for _, key := range ruleKeys {
		if !strings.Contains(document, "\n| `"+key.name+"` |") {
			t.Errorf("docs/permissions.md has no row for %s", key.name)
		}
	}
	_, rest, _ := strings.Cut(document, "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/permissions.md has no example")
	}
	// Users of the example's machine.
	example = strings.NewReplacer("uid: worker", "uid: daemon", "gid: editors", "gid: bin", "allow_gid: [operators]", "allow_gid: [adm]").Replace(example)
	o := configured(t, map[string]string{"config": configFileWith(t, example)}, nil)
	if len(o.engine.Peers) != 3 || len(o.engine.AllowGIDs) != 1 || o.engine.Peers[0].RequestsPerSecond != 5000 {
		t.Errorf("read as %+v", o.engine)
	}
}

// The rules reach the gateway that runs, and the commands tell what it says.
func TestServePeers(t *testing.T) {
	c := natsServer(t)
	respond(t, c, "app.x", echo)
	respond(t, c, "other", echo)
	config := configFileWith(t, fmt.Sprintf("peers:\n- uid: %d\n  publish: [app.>]\n  requests_per_second: 0.001\n  burst: 2\n", os.Geteuid()))
	g := serve(t, nil, "--config", config, "--nats-url", c.ConnectedUrl())
	g.waitReady(http.StatusOK, "Ready")
	send := []string{"send", "--socket", g.socket, "--type", "request", "--subject"}
	for _, step := range []struct {
		subject string
		code    int
		errs    string
	}{{"app.x", 0, ""}, {"other", exitFailure, "UNAUTHORIZED (10)"}, {"app.x", 0, ""}, {"app.x", exitFailure, "RATE_LIMITED (11)"}} {
		if code, _, errs := runInput(nil, "", append(send, step.subject, "x")...); code != step.code || !strings.Contains(errs, step.errs) {
			t.Errorf("%s: exit code %d: %s", step.subject, code, errs)
		}
	}

	shut := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--config",
		configFileWith(t, fmt.Sprintf("peers: [{uid: %d, refuse: true}]\n", os.Geteuid())))
	for _, args := range [][]string{{"send", "x"}, {"ping"}, {"capabilities"}} {
		code, stdout, errs := runInput(map[string]string{"IPC_SOCKET_PATH": shut.socket}, "", args...)
		if code != exitFailure || stdout != "" || !strings.Contains(errs, "UNAUTHORIZED (10)") || !strings.Contains(errs, "refused by the rule") {
			t.Errorf("%v: exit code %d, output %q: %s", args, code, stdout, errs)
		}
	}
	shut.waitLog("client is refused")
}
