package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Goal: who asks for profiles once has them on loopback only, and is told what to do; who asks for anywhere has them there.
func TestPprofSetting(t *testing.T) {
	loopback := []string{"127.0.0.1:0", "127.3.2.1:80", "[::1]:0", "localhost:0"}
	others := []string{"0.0.0.0:8080", ":8080", "10.0.0.1:80", "[::]:80", "example.org:80", "localhost.example.org:80"}
	problemsOf := func(flags map[string]string) []string {
		_, problems := (&app{lookupEnv: lookup(nil)}).configure(flags)
		return problems
	}
	for _, address := range append(loopback, others...) {
		for text, where := range map[string]string{"false": pprofOff, "true": pprofLoopback, "loopback": pprofLoopback, "anywhere": pprofAnywhere} {
			problems := problemsOf(map[string]string{"probe-addr": address, "pprof": text})
			if wrong := where == pprofLoopback && !isLoopback(address); wrong != (len(problems) == 1) {
				t.Errorf("%s at %s: %q", text, address, problems)
			} else if wrong {
				wantAll(t, problems[0], "flag --pprof: ", address, "--probe-addr 127.0.0.1:8080", "--pprof=anywhere")
			}
		}
	}
	for _, address := range others {
		if isLoopback(address) {
			t.Errorf("%s is loopback", address)
		}
	}
	if problems := problemsOf(map[string]string{"probe-addr": "off", "pprof": "anywhere"}); len(problems) != 1 {
		t.Errorf("without a probe: %q", problems)
	}
	if o := configured(t, map[string]string{"config": configFileWith(t, "pprof: true\n")}, nil); o.pprof != pprofLoopback {
		t.Errorf("true in the file is %s", o.pprof)
	}
	if o := configured(t, nil, map[string]string{"IPC_PPROF": "anywhere"}); o.pprof != pprofAnywhere {
		t.Errorf("anywhere as a variable is %s", o.pprof)
	}
	if problems := problemsOf(map[string]string{"pprof": "twice"}); len(problems) != 1 || !strings.Contains(problems[0], `"twice" is unknown`) {
		t.Errorf("a wrong text: %q", problems)
	}
}

// Goal: profiles are off unless asked for, and asking for them where other machines could read them ends the start.
func TestPprofIsOff(t *testing.T) {
	g := serve(t, nil)
	if status, body, err := g.get("/debug/pprof/heap"); status != http.StatusNotFound {
		t.Errorf("%d %s %v", status, body, err)
	}
	p := start(t, nil, "serve", "--socket", filepath.Join(t.TempDir(), "gw.sock"), "--probe-addr", "0.0.0.0:0", "--pprof")
	if code := p.wait(); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	wantAll(t, p.stderr.String(), "flag --pprof", "--pprof=anywhere")
}

// Goal: the goroutines that the gateway starts have labels that say what they are for.
func TestPprofLabelsGoroutines(t *testing.T) {
	c := natsServer(t)
	g := serve(t, nil, "--nats-url", c.ConnectedUrl(), "--loops", "2", "--pprof")
	g.waitReady(http.StatusOK, "")
	_, text, err := g.get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, text,
		`{"loop":"0", "part":"loop"}`, `{"loop":"1", "part":"loop"}`, `{"loop":"0", "part":"nats"}`, `{"loop":"1", "part":"nats"}`,
		`{"part":"accept"}`, `{"part":"ticker"}`, `{"part":"probe"}`)
	for block := range strings.SplitSeq(text, "\n\n") {
		if strings.Contains(block, "nats%2ego") && !strings.Contains(block, `"part":"nats"`) {
			t.Errorf("a goroutine of nats.go without its label:\n%s", block)
		}
	}
}

// Goal: a CPU profile of the real program under load has the loop's label on its samples, as go tool pprof shows it.
func TestPprofLabelsSamples(t *testing.T) {
	g := serve(t, nil, "--nats-url", "nats://127.0.0.1:1", "--loops", "1", "--pprof")
	var load sync.WaitGroup
	stop := make(chan struct{})
	load.Go(func() { pingUntil(t, g, stop) })
	defer load.Wait()
	defer close(stop)

	file := filepath.Join(t.TempDir(), "cpu.pprof")
	waitFor(t, func() error {
		_, profile, err := g.get("/debug/pprof/profile?seconds=1")
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(profile), 0o600); err != nil {
			return err
		}
		tags, err := exec.Command("go", "tool", "pprof", "-tags", file).CombinedOutput()
		if err == nil && (!strings.Contains(string(tags), "loop:") || !strings.Contains(string(tags), "part:")) {
			err = fmt.Errorf("no labels: %s", tags)
		}
		return err
	})
}

// pingUntil keeps g busy without NATS until stop is closed.
func pingUntil(t *testing.T, g *gateway, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if code, _, stderr := runInput(nil, "", "ping", "--socket", g.socket, "--count", "1000", "--interval", "0s"); code != 0 {
			t.Errorf("ping: %s", stderr)
			return
		}
	}
}

// Goal: a loop that is pinned to a CPU has a thread with its name; others share threads, which have the program's.
func TestLoopThreadsAreNamed(t *testing.T) {
	named := func(args ...string) (names []string) {
		g := serve(t, nil, append([]string{"--nats-url", "nats://127.0.0.1:1"}, args...)...)
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", g.cmd.Process.Pid))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no threads: %v", err)
		}
		for _, path := range paths {
			name, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has ended
			}
			if strings.HasPrefix(string(name), "ipc-loop-") {
				names = append(names, strings.TrimSpace(string(name)))
			}
		}
		return names
	}
	if names := named("--cpus", "0"); len(names) != 1 || names[0] != "ipc-loop-0" {
		t.Errorf("pinned: threads %q", names)
	}
	if names := named("--loops", "1"); len(names) != 0 {
		t.Errorf("not pinned: threads %q", names)
	}
}
