package main

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// configured collects the settings and fails the test if they have problems.
func configured(t *testing.T, flags, env map[string]string) *options {
	t.Helper()
	a := &app{lookupEnv: lookup(env)}
	o, problems := a.configure(flags)
	if len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}
	return o
}

// configFileWith writes a configuration file and returns its path.
func configFileWith(t *testing.T, text string) string {
	t.Helper()
	path := t.TempDir() + "/gateway.yaml"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// documentation is docs/configuration.md.
func documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every setting has a flag with help, a variable IPC_..., a key, and a line in the document with
// the default that the program really has. Only the routes have no flags, and --config no key.
func TestEverySettingIsEverywhere(t *testing.T) {
	_, help, _ := run(t, nil, "serve", "--help")
	document := documentation(t)
	seen := map[string]bool{}
	for _, s := range defaultOptions().settings() {
		key := s.fileKey()
		if s.flag == "" {
			wantAll(t, document, "`"+key+"`")
			continue
		}
		if !strings.HasPrefix(s.env, "IPC_") || s.help == "" || s.group == "" || seen[s.env] || seen[s.flag] || seen["key "+key] {
			t.Errorf("--%s: variable %q, group %q, help %q, or one of its names is taken", s.flag, s.env, s.group, s.help)
		}
		seen[s.env], seen[s.flag], seen["key "+key] = true, true, true
		wantAll(t, help, "--"+s.flag, "($"+s.env+")")

		shownKey := "`" + key + "`"
		if s.flag == "config" {
			shownKey = ""
		} else if key == "" {
			t.Errorf("--%s has no key", s.flag)
		}
		row := strings.Join(strings.Fields("| `--"+s.flag+"` | `"+s.env+"` | "+shownKey+" |"), " ")
		at := strings.Index(document, row)
		if at < 0 {
			t.Errorf("docs/configuration.md has no line %s", row)
			continue
		}
		line, _, _ := strings.Cut(document[at:], "\n")
		if shown := s.value.show(); shown != "" && s.flag != "loops" && !strings.Contains(line, "`"+shown+"`") {
			t.Errorf("docs/configuration.md: --%s: the default is %s: %s", s.flag, shown, line)
		}
		if s.oldEnv != "" {
			wantAll(t, document, "`"+s.oldEnv+"`")
		}
	}
}

// The example in the document is a file that the program takes.
// Goal: the flags of a call have variables too, and the document lists them.
func TestFlagsOfCallsHaveVariables(t *testing.T) {
	document, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for command, value := range map[string]any{"PING": pingCommand{}, "SEND": sendCommand{}, "SHOW": showCommand{}, "DRAIN": drainCommand{}, "HEALTH": healthCommand{},
		"AUDIT": auditFilters{}, "AUDIT_CAT": auditCatCommand{}, "AUDIT_VERIFY": auditVerifyCommand{}, "AUDIT_REPLAY": auditReplayCommand{}} {
		for field := range reflect.TypeOf(value).Fields() {
			if _, argument := field.Tag.Lookup("arg"); argument || field.Anonymous {
				continue
			}
			if flag := strings.ToLower(field.Name); command == "HEALTH" && (flag == "config" || flag == "probeaddr") {
				continue // those of serve
			}
			variable := field.Tag.Get("env")
			if !strings.HasPrefix(variable, "IPC_"+command+"_") || !strings.Contains(string(document), "`"+variable+"`") {
				t.Errorf("%s.%s: variable %q is not documented", command, field.Name, variable)
			}
		}
	}
}

func TestDocumentedFileWorks(t *testing.T) {
	_, rest, _ := strings.Cut(documentation(t), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/configuration.md has no example")
	}
	creds := configFileWith(t, "not read here")
	example = strings.Replace(example, "/etc/ipc-gateway/gateway.creds", creds, 1)

	o := configured(t, map[string]string{"config": configFileWith(t, example)}, nil)
	c := &o.engine
	if c.SocketMode != 0o660 || !slices.Equal(c.CPUs, []int{2, 3}) || c.Loops != 2 || len(c.NATS.URLs) != 2 || c.NATS.CredsFile != creds ||
		c.Routes.Query != (engine.Route{Subject: "beamline.router.v1.query", Timeout: 2 * time.Second}) ||
		c.Routes.Cancel.Mode != engine.ModePublish || o.logFormat != "json" {
		t.Errorf("read as %+v", o)
	}
}

func TestDefaults(t *testing.T) {
	o := configured(t, nil, nil)
	if want := engine.DefaultConfig(); !reflect.DeepEqual(o.engine, want) {
		t.Errorf("got %+v, want %+v", o.engine, want)
	}
}

// The same setting from every source: each one wins over those after it, and a variable that is
// set to nothing is no source.
func TestPrecedence(t *testing.T) {
	config := configFileWith(t, "max_connections: 13\n")
	flags := map[string]string{"max-connections": "10", "config": config}
	env := map[string]string{"IPC_MAX_CONNECTIONS": "11", "CGW_IPC_MAX_CONNECTIONS": "12"}
	check := func(source string, want int) {
		t.Helper()
		if got := configured(t, flags, env).engine.MaxConnections; got != want {
			t.Errorf("%s should count: got %d, want %d", source, got, want)
		}
	}
	check("flag", 10)
	delete(flags, "max-connections")
	check("IPC_ variable", 11)
	env["IPC_MAX_CONNECTIONS"] = ""
	check("CGW_ variable, the IPC_ one is empty", 12)
	env["CGW_IPC_MAX_CONNECTIONS"] = ""
	check("file, both variables are empty", 13)
	delete(flags, "config")
	check("default", 4096)
	env["IPC_CONFIG"] = config
	check("file named by IPC_CONFIG", 13)
}

func TestPredecessorsVariables(t *testing.T) {
	o := configured(t, nil, map[string]string{
		"CGW_IPC_SOCKET_PATH": "/tmp/old.sock", "CGW_IPC_NATS_URL": "nats://a:1, nats://b:2",
		"CGW_IPC_ROUTER_SUBJECT": "old.subject", "CGW_IPC_TIMEOUT_MS": "1500", "CGW_IPC_MAX_CONNECTIONS": "7",
	})
	c := &o.engine
	route := engine.Route{Subject: "old.subject", Timeout: 1500 * time.Millisecond}
	if c.SocketPath != "/tmp/old.sock" || !slices.Equal(c.NATS.URLs, []string{"nats://a:1", "nats://b:2"}) ||
		!reflect.DeepEqual(c.Routes, engine.Routes{Submit: route, Query: route, Cancel: route}) || c.Timeout != route.Timeout || c.MaxConnections != 7 {
		t.Errorf("read as %+v", c)
	}
}

// The common subject of the file gives way to a route's, that of a flag or variable does not; the
// common timeout always gives way to a route's.
func TestRoutes(t *testing.T) {
	config := configFileWith(t, `
subject: common
timeout: 3s
routes:
  query: {subject: own, timeout: 1s, mode: publish}
`)
	for name, c := range map[string]struct {
		flags, env      map[string]string
		submit, query   string
		common, ofQuery time.Duration
	}{
		"file only":    {nil, nil, "common", "own", 3 * time.Second, time.Second},
		"flags":        {map[string]string{"subject": "flag", "timeout": "9s"}, nil, "flag", "flag", 9 * time.Second, time.Second},
		"variable":     {nil, map[string]string{"IPC_SUBJECT": "env", "IPC_TIMEOUT": "9s"}, "env", "env", 9 * time.Second, time.Second},
		"old variable": {nil, map[string]string{"CGW_IPC_ROUTER_SUBJECT": "old"}, "old", "old", 3 * time.Second, time.Second},
	} {
		flags := map[string]string{"config": config}
		for k, v := range c.flags {
			flags[k] = v
		}
		o := configured(t, flags, c.env)
		want := engine.Routes{
			Submit: engine.Route{Subject: c.submit, Timeout: c.common},
			Query:  engine.Route{Subject: c.query, Timeout: c.ofQuery, Mode: engine.ModePublish},
			Cancel: engine.Route{Subject: c.submit, Timeout: c.common},
		}
		if !reflect.DeepEqual(o.engine.Routes, want) || o.engine.Timeout != c.common {
			t.Errorf("%s: got %+v and timeout %v, want %+v and %v", name, o.engine.Routes, o.engine.Timeout, want, c.common)
		}
	}
}

// Goal: "show config" tells for the common subject and for each route what really counts, and who said so.
func TestEffectiveSubjects(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		flags map[string]string
		want  []string // of subject and the routes submit, query, cancel
	}{
		"nothing":      {"", nil, []string{"beamline.router.v1.decide default", "beamline.router.v1.decide default", "beamline.router.v1.decide default", "beamline.router.v1.decide default"}},
		"a route":      {"routes: {submit: {subject: own}}", nil, []string{"beamline.router.v1.decide default", "own key", "beamline.router.v1.decide default", "beamline.router.v1.decide default"}},
		"a common one": {"subject: common\nroutes: {query: {subject: own}}", nil, []string{"common key", "common key", "own key", "common key"}},
		"a flag":       {"routes: {cancel: {subject: own}}", map[string]string{"subject": "all"}, []string{"all flag", "all flag", "all flag", "all flag"}},
	} {
		flags := map[string]string{"config": configFileWith(t, c.file)}
		maps.Copy(flags, c.flags)
		var got []string
		for _, s := range configured(t, flags, nil).effective() {
			if s.Name == "subject" || strings.HasPrefix(s.Name, "routes.") && strings.HasSuffix(s.Name, ".subject") {
				source, _, _ := strings.Cut(s.Source, " ")
				got = append(got, s.Value+" "+source)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestLoopsFollowCPUs(t *testing.T) {
	if o := configured(t, map[string]string{"cpus": "2-4"}, nil); o.engine.Loops != 3 {
		t.Errorf("got %d loops, want one for each of the 3 CPUs", o.engine.Loops)
	}
	// Which of the two sources is the weaker one does not matter: a number of loops is a number of loops.
	a := &app{lookupEnv: lookup(map[string]string{"IPC_LOOPS": "2"})}
	if _, problems := a.configure(map[string]string{"cpus": "2-4"}); len(problems) != 1 || !strings.Contains(problems[0], "3 CPUs for 2 loops") {
		t.Errorf("got %q, want the contradiction", problems)
	}
}
