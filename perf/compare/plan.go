package compare

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kinds of requests.
const (
	KindRequest         = "request"          // a request to an echo behind NATS
	KindConnect         = "connect"          // the same with a connection of its own, as scripts do it
	KindPing            = "ping"             // answered by whoever holds the socket
	KindPublish         = "publish"          // a message to NATS, without an answer
	KindPublishAnswered = "publish-answered" // the same, and the gateway says that it is on its way
	KindJetStream       = "jetstream"        // a message to a stream in memory, answered when it is stored
)

// Names of the sides.
const (
	SideGateway = "gateway"
	SideBase    = "base"    // another gateway's binary: Settings.Base
	SideDirect  = "direct"  // programs that use nats.go
	SideHAProxy = "haproxy" // the same, through HAProxy on a Unix socket
	SideSidecar = "sidecar" // perf/peers/sidecar
	SideRing    = "ring"    // perf/peers/ring
	SideEcho    = "echo"    // perf/peers/echo
)

// does says which sides can do what.
var does = map[string][]string{
	KindRequest:         {SideGateway, SideBase, SideDirect, SideHAProxy, SideSidecar, SideRing},
	KindConnect:         {SideGateway, SideBase, SideDirect, SideHAProxy, SideSidecar, SideRing},
	KindPing:            {SideGateway, SideBase, SideEcho},
	KindPublish:         {SideGateway, SideBase, SideDirect},
	KindPublishAnswered: {SideGateway, SideBase, SideDirect},
	KindJetStream:       {SideGateway, SideBase, SideDirect},
}

// Cell is one thing to compare.
type Cell struct {
	Kind        string `json:"kind"`
	Connections int    `json:"connections"`
	Window      int    `json:"window"`  // requests in flight on each; of KindPublish: messages in one write
	Payload     int    `json:"payload"` // bytes; 0 for KindPing
}

// String names the cell in tables.
func (c Cell) String() string {
	if c.Payload == 0 {
		return fmt.Sprintf("%s %d x %d", c.Kind, c.Connections, c.Window)
	}
	return fmt.Sprintf("%s %d x %d, %d B", c.Kind, c.Connections, c.Window, c.Payload)
}

// publishes says that messages go to NATS for which nobody answers there.
func (c Cell) publishes() bool { return c.Kind == KindPublish || c.Kind == KindPublishAnswered }

// Settings say what is compared and how often.
type Settings struct {
	Cells    []Cell        `json:"cells"`
	Sides    []string      `json:"sides"` // those that take part
	Repeats  int           `json:"repeats"`
	Duration time.Duration `json:"duration_ns"` // of a run
	Warmup   time.Duration `json:"warmup_ns"`   // of the run before the first one of each side in each cell; 0: none
	Loops    int           `json:"loops"`       // of the gateway; 0: its default
	TLS      bool          `json:"tls"`         // between everybody and the NATS server
	Base     string        `json:"base"`        // a binary of the gateway to compare with; empty: none
}

// publishWindow makes writes of 256 B messages as long as those of nats.go: 32 KiB.
const publishWindow = 128

// AllSides are all but SideBase.
var AllSides = []string{SideGateway, SideDirect, SideHAProxy, SideSidecar, SideRing, SideEcho}

// Default takes seven minutes, so that the whole suite takes less than ten.
func Default() Settings {
	return Settings{
		Sides: AllSides, Repeats: 3, Duration: 1200 * time.Millisecond, Warmup: 300 * time.Millisecond,
		Cells: slices.Concat(
			cells([]string{KindRequest}, []int{1, 16, 64, 256, 1024}, []int{1}, []int{256}),
			cells([]string{KindRequest}, []int{16}, []int{16}, []int{256}),
			cells([]string{KindRequest}, []int{16}, []int{1}, []int{64, 1 << 10, 64 << 10}),
			cells([]string{KindConnect}, []int{16}, []int{1}, []int{256}),
			cells([]string{KindPing}, []int{1, 16, 64, 256, 1024}, []int{1}, nil),
			cells([]string{KindPing}, []int{16}, []int{16}, nil),
			cells([]string{KindPublish, KindPublishAnswered}, []int{1, 16}, []int{publishWindow}, []int{256}),
			cells([]string{KindPublish, KindPublishAnswered}, []int{16}, []int{16}, []int{256}),
			cells([]string{KindJetStream}, []int{16}, []int{16}, []int{256}),
		),
	}
}

// Quick takes less than a minute. It shows that all works; its figures are worth little.
func Quick() Settings {
	return Settings{
		Sides: AllSides, Repeats: 2, Duration: 300 * time.Millisecond,
		Cells: slices.Concat(
			cells([]string{KindRequest}, []int{1, 16, 64}, []int{1}, []int{256}),
			cells([]string{KindPing}, []int{16, 64}, []int{1}, nil),
			cells([]string{KindPublish, KindPublishAnswered}, []int{16}, []int{publishWindow}, []int{256}),
		),
	}
}

// Full is every combination. It takes an hour.
func Full() Settings {
	s := Default()
	connections, windows, payloads := []int{1, 16, 64, 256, 1024}, []int{1, 16}, []int{64, 256, 1 << 10, 64 << 10}
	s.Cells = slices.Concat(
		cells([]string{KindRequest}, connections, windows, payloads),
		cells([]string{KindConnect}, connections[:3], windows[:1], payloads[:2]),
		cells([]string{KindPing}, connections, windows, nil),
		cells([]string{KindPublish, KindPublishAnswered}, connections, windows, payloads),
		cells([]string{KindJetStream}, connections[:3], windows, payloads[:3]),
	)
	return s
}

const (
	// serverPendingMax is what the NATS server holds for one connection, its max_pending. Of more it cuts the connection: here the
	// responder's, or the one of whoever stands in the middle.
	serverPendingMax = 64 << 20
	// patienceBytesMax is about what goes through in the 10 s that the clients wait for an answer, in large messages, on a small
	// machine.
	patienceBytesMax = 512 << 20
)

// unfit says why a cell cannot be measured; empty: it can.
func (c Cell) unfit() string {
	inflight := c.Connections * c.Window * c.Payload
	switch {
	case c.Kind == KindRequest && inflight > serverPendingMax:
		return fmt.Sprintf("%d MiB in flight to the one responder, and the NATS server cuts a connection for which it holds over %d", inflight>>20, serverPendingMax>>20)
	case c.Kind == KindPublishAnswered && inflight > patienceBytesMax:
		return fmt.Sprintf("%d MiB wait for an answer, more than goes through in the 10 s that a client waits", inflight>>20)
	}
	return ""
}

// fit takes the cells out that cannot be measured, and tells which and why.
func (s *Settings) fit() (leftOut []string) {
	var kept []Cell
	for _, c := range s.Cells {
		if why := c.unfit(); why != "" {
			leftOut = append(leftOut, fmt.Sprintf("%v: %s", c, why))
			continue
		}
		kept = append(kept, c)
	}
	s.Cells = kept
	return leftOut
}

// cells are all combinations; without payloads they have none.
func cells(kinds []string, connections, windows, payloads []int) []Cell {
	if payloads == nil {
		payloads = []int{0}
	}
	var all []Cell
	for _, kind := range kinds {
		for _, payload := range payloads {
			for _, window := range windows {
				for _, n := range connections {
					all = append(all, Cell{kind, n, window, payload})
				}
			}
		}
	}
	return all
}

// Cells are all combinations of what is given, for Settings.
func Cells(kinds []string, connections, windows, payloads []int) []Cell {
	var all []Cell
	for _, kind := range kinds {
		if kind == KindPing {
			all = append(all, cells([]string{kind}, connections, windows, nil)...)
			continue
		}
		all = append(all, cells([]string{kind}, connections, windows, payloads)...)
	}
	return all
}

// What the clients can do.
const (
	payloadBytesMin = 16 // numbers the program and the request
	payloadBytesMax = 1 << 20
	connectionsMax  = 4096
	windowMax       = 1024
)

// Validate returns every problem of s, joined.
func (s *Settings) Validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	check(s.Repeats >= 1 && s.Repeats <= 1000, "%d repeats: want 1 to 1000", s.Repeats)
	check(s.Duration >= 50*time.Millisecond && s.Duration <= time.Minute, "runs of %v: want 50ms to 1m", s.Duration)
	check(s.Loops >= 0, "%d loops", s.Loops)
	check(len(s.Cells) > 0, "nothing to compare")
	for _, side := range s.Sides {
		check(side == SideBase || slices.Contains(AllSides, side), "side %q is none of %v", side, AllSides)
	}
	for _, c := range s.Cells {
		check(does[c.Kind] != nil, "kind %q", c.Kind)
		check(c.Connections >= 1 && c.Connections <= connectionsMax, "%v: want 1 to %d connections", c, connectionsMax)
		check(c.Window >= 1 && c.Window <= windowMax, "%v: want a window of 1 to %d", c, windowMax)
		check(c.Kind != KindConnect || c.Window == 1, "%v: want a window of 1", c)
		check(c.Kind == KindPing || c.Payload >= payloadBytesMin && c.Payload <= payloadBytesMax, "%v: want a payload of %d to %d bytes", c, payloadBytesMin, payloadBytesMax)
	}
	return errors.Join(problems...)
}

// sidesOf are those that run in c.
func (s *Settings) sidesOf(c Cell) []string {
	var some []string
	for _, side := range does[c.Kind] {
		if side == SideBase && s.Base != "" || slices.Contains(s.Sides, side) {
			some = append(some, side)
		}
	}
	return some
}

// Estimate is how long the runs take, about.
func (s *Settings) Estimate() time.Duration {
	var sum time.Duration
	for _, c := range s.Cells {
		// Starting clients, connecting, ending them.
		around := 350*time.Millisecond + time.Duration(c.Connections)*time.Millisecond/2
		perSide := time.Duration(s.Repeats) * (s.Duration + around)
		if s.Warmup > 0 {
			perSide += s.Warmup + around
		}
		sum += time.Duration(len(s.sidesOf(c))) * perSide
	}
	return sum
}
