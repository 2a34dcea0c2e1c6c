package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// gateway is the real program. Faults end and start it; everybody may ask it things.
type gateway struct {
	binary  string
	args    []string
	socket  string
	probe   string // URL
	logPath string
	config  string // path of its file

	// ends is counted up before a fault ends the gateway, and again when it has ended, so that it is odd in between. A
	// connection that ends was ended by a fault if this is odd when it was made, or has changed since.
	ends atomic.Int64

	takeovers atomic.Int64 // that were completed

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	told   bool          // cmd was told to end
}

// drainTimeout is the gateway's.
const drainTimeout = 3 * time.Second

// buildGateway builds the program as it is in this checkout.
func buildGateway(t testing.TB, folder string, race bool) string {
	t.Helper()
	binary := filepath.Join(folder, "ipc-gateway")
	args := []string{"build", "-o", binary}
	if race {
		args = append(args, "-race")
	}
	output, err := exec.Command("go", append(args, "github.com/aigroup/ipc-gateway/cmd/ipc-gateway")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return binary
}

func newGateway(t testing.TB, binary, folder string, urls []string) *gateway {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	g := &gateway{
		binary: binary, socket: filepath.Join(folder, "gw.sock"), probe: "http://" + address, logPath: filepath.Join(folder, "gateway.log"),
		config: filepath.Join(folder, "config.yaml"),
	}
	if err := os.WriteFile(g.config, []byte(settingsUsual), 0o600); err != nil {
		t.Fatal(err)
	}
	g.args = []string{
		"serve", "--config", g.config, "--socket", g.socket, "--probe-addr", address, "--loops", "2", "--subject", subjectSubmit, "--timeout", "2s",
		"--nats-url", strings.Join(urls, ","), "--nats-ping-interval", "500ms", "--nats-reconnect-wait", "50ms", "--nats-reconnect-jitter", "50ms",
		"--max-client-buffer", "4MiB", "--drain-timeout", drainTimeout.String(),
	}
	t.Cleanup(func() { g.end(syscall.SIGKILL) })
	return g
}

// start starts a new process, and returns when it serves.
func (g *gateway) start() error {
	cmd, exited, err := g.spawn()
	if err != nil {
		return err
	}
	g.adopt(cmd, exited)
	return eventually(func() error {
		if !g.alive() {
			return nil // watch tells
		}
		_, err := g.get("/health")
		return err
	})
}

// spawn starts a process. What it says goes to the log. exited is closed when it has ended.
func (g *gateway) spawn(more ...string) (cmd *exec.Cmd, exited chan struct{}, err error) {
	log, err := os.OpenFile(g.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd = exec.Command(g.binary, append(g.args, more...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1")
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	exited = make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return cmd, exited, nil
}

// adopt makes a process the gateway.
func (g *gateway) adopt(cmd *exec.Cmd, exited chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd, g.exited, g.told = cmd, exited, false
}

// tell notes whether the process may end from now on, and returns it.
func (g *gateway) tell(mayEnd bool) (cmd *exec.Cmd, exited chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = mayEnd
	return g.cmd, g.exited
}

// takeover starts a process that takes over from the one that runs, and reports whether it did. No connection ends by that;
// it may fail for one of takeoverReasons, and then the old one goes on. meanwhile, if it is not nil, does something to the new one.
func (g *gateway) takeover(meanwhile func(pid int) error) (done bool, err error) {
	_, oldExited := g.tell(true)
	log, _ := os.ReadFile(g.logPath)
	next, nextExited, err := g.spawn("--takeover")
	if err != nil {
		return false, err
	}
	if meanwhile != nil {
		if err := meanwhile(next.Process.Pid); err != nil && !isClosed(nextExited) {
			return false, err
		}
	}
	select {
	case <-oldExited:
		g.adopt(next, nextExited)
		g.takeovers.Add(1)
		return true, nil
	case <-nextExited:
		g.tell(false)
		if isClosed(oldExited) {
			return false, errors.New("both processes of a takeover have ended")
		}
		return false, g.knownReason(len(log))
	case <-time.After(patience):
		_ = next.Process.Kill()
		return false, fmt.Errorf("the takeover goes on after %v", patience)
	}
}

// takeoverReasons is what a process that does not take over may say: NATS is away. It has taken nothing then.
var takeoverReasons = []string{"nothing was taken over, the other gateway serves on: not ready after "}

// knownReason returns an error unless the log has a known reason from offset on.
func (g *gateway) knownReason(offset int) error {
	log, _ := os.ReadFile(g.logPath)
	said := string(log[min(offset, len(log)):])
	for _, reason := range takeoverReasons {
		if strings.Contains(said, reason) {
			return nil
		}
	}
	return fmt.Errorf("the process that was to take over has ended, for no known reason: %s", said[max(0, len(said)-2000):])
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// breakTakeover kills the process that takes over after some time. Either the old one goes on, or it had finished, and there is
// none any more.
func (g *gateway) breakTakeover(after time.Duration) (survived bool, err error) {
	_, oldExited := g.tell(true)
	next, nextExited, err := g.spawn("--takeover")
	if err != nil {
		return false, err
	}
	time.Sleep(after)
	g.ends.Add(1)
	_ = next.Process.Kill()
	<-nextExited
	select {
	case <-oldExited:
		err = g.start()
	case <-time.After(drainTimeout + 2*time.Second): // it would have ended by now if it was to
		g.tell(false)
		survived = true
	}
	g.ends.Add(1)
	return survived, err
}

func (g *gateway) pid() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cmd.Process.Pid
}

// alive reports whether the process has not ended, or was told to.
func (g *gateway) alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.exited:
		return g.told
	default:
		return true
	}
}

// end ends the process by a signal, and waits for it.
func (g *gateway) end(s syscall.Signal) {
	cmd, exited := g.tell(true)
	if cmd == nil {
		return // it was never started
	}
	g.ends.Add(1)
	_ = cmd.Process.Signal(s)
	<-exited
	g.ends.Add(1)
}

// settingsUsual is what the gateway's file says, unless a fault changes it. A frame may take longer than a freeze of
// the gateway.
const settingsUsual = "jetstream_ack_wait: 500ms\nframe_timeout: 4s\nbreaker_open_time: 1s\n"

// reload makes the gateway read other settings, and returns when it has said whether it takes them, as it should.
func (g *gateway) reload(settings string, taken bool) error {
	if err := os.WriteFile(g.config, []byte(settings), 0o600); err != nil {
		return err
	}
	before := g.logged(logReloaded) + g.logged(logNotReloaded)
	want := g.logged(logReloaded)
	if taken {
		want++
	}
	if err := syscall.Kill(g.pid(), syscall.SIGHUP); err != nil {
		return err
	}
	err := eventually(func() error {
		if g.logged(logReloaded)+g.logged(logNotReloaded) == before {
			return errors.New("the gateway says nothing about its new settings")
		}
		return nil
	})
	if err == nil && g.logged(logReloaded) != want {
		err = fmt.Errorf("the settings %q are taken: %v; want %v", settings, !taken, taken)
	}
	return err
}

const (
	logReloaded    = `msg="configuration reloaded"`
	logNotReloaded = `msg="the configuration could not be reloaded"`
)

// logged counts what the gateway has said.
func (g *gateway) logged(text string) int {
	log, _ := os.ReadFile(g.logPath)
	return strings.Count(string(log), text)
}

// get returns the body of a path of the probe, if that says 200. Each has a connection of its own: none is left behind.
func (g *gateway) get(path string) (string, error) {
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	response, err := probe.Get(g.probe + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// metrics returns the sum over the labels of each metric.
func (g *gateway) metrics() (map[string]float64, error) {
	text, err := g.get("/metrics")
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		name, _, _ := strings.Cut(line[:max(at, 0)], "{")
		value, err := strconv.ParseFloat(strings.TrimSpace(line[max(at, 0):]), 64)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
		sums[name] += value
	}
	return sums, nil
}

// usage is what a process has.
type usage struct {
	goroutines, descriptors int
	rssBytes                int
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %.1f MiB resident", u.goroutines, u.descriptors, float64(u.rssBytes)/(1<<20))
}

// idle returns what the process has if it has nothing to do, and else an error that says what is left.
func (g *gateway) idle() (usage, error) {
	m, err := g.metrics()
	if err != nil {
		return usage{}, err
	}
	for _, name := range []string{
		"ipc_connections", "ipc_inflight_requests", "ipc_client_buffered_bytes", "ipc_nats_buffered_bytes", "ipc_jetstream_held_bytes",
		"ipc_internal_errors_total",
	} {
		if m[name] != 0 {
			return usage{}, fmt.Errorf("%s is %v", name, m[name])
		}
	}
	for _, pool := range []string{"slot", "buffer"} {
		acquired, released := m["ipc_"+pool+"_pool_acquired_total"], m["ipc_"+pool+"_pool_released_total"]
		if acquired != released {
			return usage{}, fmt.Errorf("%v %ss acquired and %v released", acquired, pool, released)
		}
	}
	if m["ipc_nats_links_up"] != m["ipc_loops"] {
		return usage{}, fmt.Errorf("%v of %v links are up", m["ipc_nats_links_up"], m["ipc_loops"])
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid()))
	if err != nil {
		return usage{}, err
	}
	rss, err := residentBytes(g.pid())
	return usage{goroutines: int(m["go_goroutines"]), descriptors: len(descriptors), rssBytes: rss}, err
}

func residentBytes(pid int) (int, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		var kib int
		if _, err := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

// logTail returns the last lines of the log.
func (g *gateway) logTail(lines int) string {
	log, _ := os.ReadFile(g.logPath)
	all := strings.SplitAfter(string(log), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
