package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// loaded is what "ipc-bench throughput" says of a load, as far as the goals need it.
type loaded struct {
	Sent      int64   `json:"sent"`
	Right     int64   `json:"right"`
	PerSecond float64 `json:"per_second"`
	LateP99   float64 `json:"sent_late_p99_us"`
	CPUShare  float64 `json:"client_cpu_share"`
	Busy      bool    `json:"client_is_bottleneck"`
	Server    struct {
		CPUUs    float64 `json:"cpu_us"`
		RSSBytes float64 `json:"rss_bytes"`
	} `json:"server"`
}

// load puts clients on the gateway with these flags of ipc-bench, on these CPUs; none: on any. Every answer is checked: a wrong
// one fails.
func (o *own) load(ctx context.Context, cpus []int, args ...string) (*loaded, error) {
	args = append(args, "--socket", o.socket(SideGateway), "--json")
	var clients *process
	err := onCPUs(cpus, func() (err error) {
		clients, err = start(ctx, "ipc-bench", o.path("ipc-bench"), args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer clients.stop()
	var last string
	for {
		line, err := clients.stdout.ReadString('\n')
		if err != nil {
			break
		}
		last = line
	}
	if err := clients.finish(); err != nil {
		return nil, o.blame(err)
	}
	l := &loaded{}
	if err := json.Unmarshal([]byte(last), l); err != nil {
		return nil, fmt.Errorf("ipc-bench %s says %q: %w", strings.Join(args, " "), last, err)
	}
	return l, nil
}

// onCPUs calls what starts a process, so that it starts on these CPUs: none, on any.
//
// REQUIRES: on a locked thread.
func onCPUs(cpus []int, do func() error) error {
	if len(cpus) == 0 {
		return do()
	}
	var before, wanted unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	for _, cpu := range cpus {
		wanted.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &wanted); err != nil {
		return fmt.Errorf("CPUs %v: %w", cpus, err)
	}
	failed := do()
	if err := unix.SchedSetaffinity(0, &before); err != nil {
		return err
	}
	return failed
}

// ownCPUs are those that this process may use.
func ownCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// filesBesides is what the gateway, and this process, have open beside the connections.
const filesBesides = 200

// allowFiles lets this process, and those that it starts, have so many connections. It returns how many it may be.
func allowFiles(connections int) (int, error) {
	wanted := uint64(connections + filesBesides)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Cur >= wanted && limit.Max >= wanted {
		return connections, nil
	}
	raised := unix.Rlimit{Cur: max(wanted, limit.Cur), Max: max(wanted, limit.Max)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
		return connections, nil
	}
	// Only root may go beyond the hard limit.
	raised = unix.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return 0, err
	}
	return max(int(limit.Max)-filesBesides, 0), nil
}

// idlers are connections that do nothing.
type idlers []net.Conn

// connect opens so many connections, each of which has had an answer to a PING: the gateway serves it.
func (o *own) connect(ctx context.Context, count int) (idlers, error) {
	ping := codec.AppendHeaderV1(nil, codec.TypePing, 0)
	pong := make([]byte, len(ping))
	var all idlers
	for number := range count {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", o.socket(SideGateway))
		if err != nil {
			all.close()
			return nil, fmt.Errorf("connection %d: %w", number, err)
		}
		all = append(all, conn)
		if _, err = conn.Write(ping); err == nil {
			_, err = io.ReadFull(conn, pong)
		}
		if err == nil && codec.Type(pong[5]) != codec.TypePong {
			err = fmt.Errorf("the gateway answers %v to PING", codec.Type(pong[5]))
		}
		if err != nil {
			all.close()
			return nil, o.blame(fmt.Errorf("connection %d: %w", number, err))
		}
	}
	return all, nil
}

func (all idlers) close() {
	for _, conn := range all {
		_ = conn.Close()
	}
}
