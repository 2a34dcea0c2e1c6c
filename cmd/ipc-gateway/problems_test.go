package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// Everything that is wrong is named in one run: misplaced arguments, unreadable values, values out
// of range, missing files, each with where it comes from.
func TestEveryProblemIsNamed(t *testing.T) {
	config := configFileWith(t, `
max_inflight: many
max_client_buffer: 1
lops: 3
routes:
  query: {subject: a..b, mode: often}
  submit: none
  other: {}
log_format: [text, json]
`)
	code, stdout, stderr := run(t, map[string]string{
		"IPC_SOCKET_MODE": "0888", "IPC_LOOPS": "0", "CGW_IPC_TIMEOUT_MS": "30s", "IPC_NATS_MAX_PINGS_OUT": "1000",
	},
		"serve", "--bogus", "1", "--config", config, "--max-connections", "-5", "stray", "--nats-creds=/no/such.creds", "--cpus", "x",
		"--probe-addr", "8080", "--nats-url", "http://me:secret@h,nats://u:secret@", "--log-level", "loud", "--socket", strings.Repeat("p", 108), "--drain-timeout")
	if code != exitUsage || stdout != "" {
		t.Errorf("exit code %d, standard output %q, want %d and nothing", code, stdout, exitUsage)
	}
	wantAll(t, stderr,
		"command line: unknown flag --bogus",
		"command line: unexpected argument stray",
		"flag --drain-timeout: its value is missing",
		"flag --max-connections: max connections is -5",
		`flag --cpus: "x" is not a list of CPUs`,
		"flag --nats-creds: nats creds: open /no/such.creds",
		`flag --probe-addr: "8080" is not an address`,
		`flag --log-level: "loud"`,
		"flag --socket: socket path",
		`flag --nats-url: nats url "http://me:***@h"`,
		`flag --nats-url: nats url "nats://u:***@"`,
		`variable IPC_SOCKET_MODE: "0888"`,
		"variable IPC_LOOPS: loops is 0",
		`variable CGW_IPC_TIMEOUT_MS: "30s" is not a whole number of milliseconds`,
		"variable IPC_NATS_MAX_PINGS_OUT: nats max pings out is 1000",
		"key max_inflight in "+config+`:2: "many"`,
		"key max_client_buffer in "+config+":3: max client buffer bytes is 1",
		"key lops in "+config+":4: there is no such setting",
		"key routes.query.subject in "+config+":6: route query",
		"key routes.query.mode in "+config+`:6: mode "often"`,
		"key routes.submit in "+config+":7: want keys and values",
		"key routes.other in "+config+":8: there is no such setting",
		"key log_format in "+config+`:9: "text,json"`,
	)
	if lines := strings.Count(stderr, "\n  "); lines != 23 {
		t.Errorf("%d problems, want each of the 23 once", lines)
	}
	if strings.Contains(stderr, "secret") {
		t.Error("a password is shown")
	}
}

// Goal: whatever a setting was given, problems tell no password of a URL in it, and are in the words of people: nothing of the
// names of our packages.
func TestProblemsTellNoSecrets(t *testing.T) {
	config := configFileWith(t, `
loops: nats://u:s3cret@h
pause_max: "nats://s3cret@h"
socket_mode: "nats://u:s3/cret s3cret@h:4222"
log_level: tls://u:s3c@ret@h
cpus: [nats://u:s3cret@h]
allow_uid: nats://u:s3cret@h
nats_creds: nats://u:s3cret@h
peers:
  - {uid: nats://u:s3cret@h}
  - {uid: 1, inflight: nats://u:s3cret@h}
  - {uid: 2, publish: ["a b"]}
routes:
  submit: {subject: a b, mode: nats://u:s3cret@h}
  query: {subject: ""}
  cancel: {subject: a.*}
  publish: {jetstream: [a b]}
`)
	for _, url := range []string{"nats://user:s3cret,s3cret@h", "nats://u:s3cret,ret", "u:s3cret,x@h", "ws://u:s3cret@h,nats://tok,s3cret@", "nats://u:s3 cret@h"} {
		code, _, stderr := run(t, map[string]string{"IPC_TIMEOUT": "nats://u:s3cret@h"}, "serve", "--config", config, "--nats-url", url, "nats://u:s3cret@h")
		if code != exitUsage {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		wantAll(t, stderr, `"nats://u:***@h" is not a whole number`, `"nats://***@h" is not a duration`, `mode "nats://u:***@h"`,
			`route submit: subject "a b": subject has a space`, `route query: subject "": subject is empty`, `route cancel: subject "a.*": subject has a wildcard`,
			`route publish: jetstream: subject "a b": not a subject pattern`, `publish: subject "a b": not a subject pattern`)
		told := strings.ReplaceAll(stderr, config, "FILE") // the folder has the test's name and any number
		for _, never := range []string{"s3", "cret@", "ret@", "codec:", "engine:", "upstream:", "audit:", "trace:"} {
			if strings.Contains(told, never) {
				t.Errorf("%s: %q is told:\n%s", url, never, stderr)
			}
		}
	}
}

// Goal: CPUs that the process may not use are wrong settings, and those that it may are named.
func TestProblemsNameUsableCPUs(t *testing.T) {
	a := &app{lookupEnv: lookup(map[string]string{"IPC_CPUS": "1-3,9"}), cpus: []int{0, 1, 3}}
	_, problems := a.configure(nil)
	if len(problems) != 1 || problems[0] != "variable IPC_CPUS: this process may not use CPU 2,9: want some of 0,1,3" {
		t.Errorf("problems: %q", problems)
	}
	a.lookupEnv = lookup(map[string]string{"IPC_CPUS": "1,3"})
	if _, problems := a.configure(nil); len(problems) != 0 {
		t.Errorf("problems: %q", problems)
	}
}

// Contradictions between settings that are each fine have no single source to blame.
func TestProblemsBetweenSettings(t *testing.T) {
	code, _, stderr := run(t, nil, "serve", "--loops", "2", "--cpus", "3")
	if code != exitUsage || !strings.Contains(stderr, "\n  cpus names 1 CPUs for 2 loops") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestConfigFileProblems(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no YAML":        {"nats_url: nats://u:secret@h\n loops: [\n", "is not YAML"},
		"two documents":  {"loops: 1\n---\nloops: 2\n", "want one document"},
		"a list":         {"- loops\n", "want keys and values"},
		"twice":          {"loops: 1\nloops: 2\n", "already defined"},
		"config in file": {"config: other.yaml\n", "key config"},
		"nested list":    {"cpus: [[1], [2]]\n", "want a single value"},
		"mapping":        {"loops: {of: 3}\n", "want a single value"},
		"alias":          {"loops: &n 3\nmax_connections: *n\n", "want a single value"},
		"merge":          {"<<: {loops: 3}\n", "there is no such setting"},
	} {
		code, _, stderr := run(t, nil, "serve", "--config", configFileWith(t, c.text))
		if code != exitUsage || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, want %q: %s", name, code, c.want, stderr)
		}
	}
	missing := filepath.Join(t.TempDir(), "none.yaml")
	code, _, stderr := run(t, map[string]string{"IPC_CONFIG": missing}, "serve")
	if code != exitUsage || !strings.Contains(stderr, "variable IPC_CONFIG: open "+missing) {
		t.Errorf("missing file: exit code %d: %s", code, stderr)
	}
}

// Files without settings, and keys without values, are fine: they are templates.
func TestConfigFileEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "loops:\nroutes:\n  query:\n"} {
		o := configured(t, map[string]string{"config": configFileWith(t, text)}, nil)
		if want := defaultOptions().engine.Loops; o.engine.Loops != want {
			t.Errorf("%q: %d loops, want %d", text, o.engine.Loops, want)
		}
	}
}

func TestProbeSwitchedOff(t *testing.T) {
	for _, flags := range []map[string]string{{"probe-addr": ""}, {"probe-addr": "off"}, {"config": configFileWith(t, "probe_addr: off\n")}, {"config": configFileWith(t, "probe_addr: ''\n")}} {
		if o := configured(t, flags, nil); o.probeAddr != "" {
			t.Errorf("%v: got %q, want none", flags, o.probeAddr)
		}
	}
	if o := configured(t, nil, map[string]string{"IPC_PROBE_ADDR": ""}); o.probeAddr == "" {
		t.Error("an empty variable counts as not set")
	}
}

// Other commands are called wrongly with exit code 2 as well, and do not guess.
func TestClientUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"nothing"}, {"ping", "--bogus"}, {"ping", "-n", "x"}, {"ping", "--size", "-1"},
		{"send"}, {"send", "a", "b"}, {"send", "--type", "stream", "x"}, {"send", "--wire", "3", "x"},
		{"send", "--wire", "1", "-H", "A: b", "x"}, {"send", "--wire", "1", "--type", "publish", "x"},
		{"send", "--type", "request", "x"}, {"send", "--no-reply", "x"}, {"send", "--count", "0", "x"},
		{"send", "--timeout", "1us", "x"}, {"send", "-H", "no colon", "x"},
	} {
		code, stdout, stderr := run(t, nil, args...)
		if code != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%q: exit code %d, output %q, errors %q", args, code, stdout, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"ping", "--help"}, {"send", "--help"}, {"capabilities", "--help"}, {"version", "--help"}} {
		code, stdout, stderr := run(t, nil, args...)
		if code != 0 || !strings.HasPrefix(stdout, "Usage: ipc-gateway") || stderr != "" {
			t.Errorf("%q: exit code %d, output %q, errors %q", args, code, stdout, stderr)
		}
	}
}

// Commands without a gateway fail with exit code 1 and say what to do.
func TestNoGateway(t *testing.T) {
	env := map[string]string{"IPC_SOCKET_PATH": filepath.Join(t.TempDir(), "none.sock")}
	for _, args := range [][]string{{"ping"}, {"send", "x"}, {"capabilities"}} {
		code, stdout, stderr := run(t, env, args...)
		if code != exitFailure || stdout != "" || !strings.Contains(stderr, "start a gateway") {
			t.Errorf("%q: exit code %d, output %q, errors %q", args, code, stdout, stderr)
		}
	}
}
