package load

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: a server that gives each request the answer to the one before is found out, whatever was learned from its first
// answer, and whatever the payload of an answer may be otherwise.
func TestAnswersToOthers(t *testing.T) {
	wrapped := func(payload []byte) []byte { return slices.Concat([]byte(`{"echo":`), payload, []byte("}")) }
	plain := func(payload []byte) []byte { return payload }
	for name, test := range map[string]struct {
		expect Expect
		bytes  int
		make   func(payload []byte) []byte
	}{
		"learned": {ExpectLearned, 64, plain}, "wrapped": {ExpectLearned, 64, wrapped}, "anything": {ExpectOK, 256, plain},
		"no JSON": {ExpectLearned, 20, plain}, "only a mark": {ExpectOK, 16, plain},
	} {
		t.Run(name, func(t *testing.T) {
			var before []byte
			server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
				answer := *f
				answer.Payload = before
				if number == 0 {
					answer.Payload = []byte("????????????????????????????????????????????????????????????????")
				}
				before = test.make(slices.Clone(f.Payload))
				return echo(dst, &answer, number)
			})
			s := defaults(server.path)
			s.Expect, s.PayloadBytes = test.expect, test.bytes
			r := run(t, s)
			if r.OK() || r.Right != 1 || r.Wrong != s.Count-1 || !strings.Contains(r.FirstError.Error(), "the answer to request 1 is that to request 0 of connection 0") {
				t.Errorf("%d right, %d wrong, %v", r.Right, r.Wrong, r.FirstError)
			}
		})
	}
}

// Goal: what looks like a mark and is none does not make an answer wrong.
func TestAnswersWithoutMark(t *testing.T) {
	for _, text := range []string{"", `{"n":"`, `{"n":"0000000000000000`, `{"n":"0000000000000000"}`, `{"n":"seventeen digits.","x":"aaaa`, "0123456789abcdefaaaa"} {
		server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
			f.Payload = []byte(text)
			return echo(dst, f, number)
		})
		s := defaults(server.path)
		s.Expect = ExpectLearned
		if r := run(t, s); !r.OK() || r.Expect != ExpectOK {
			t.Errorf("%q: %v, %v", text, r.Expect, r.FirstError)
		}
	}
}

// Goal: a schedule that the server cannot keep is late and not lost: how long an answer may take counts from when its request
// was sent, its latency from when it should have been.
func TestLateInTheOpenLoop(t *testing.T) {
	const slow = 2 * time.Millisecond
	server := startServer(t, func(dst []byte, f *codec.Frame, number int) []byte {
		time.Sleep(slow)
		return echo(dst, f, number)
	})
	s := defaults(server.path)
	s.Rate, s.Count, s.Timeout = 1e6, 300, 250*time.Millisecond // all are due at once
	r := run(t, s)
	if !r.OK() || r.Right != s.Count {
		t.Fatalf("%d right, %d failed, %v", r.Right, r.Failed, r.FirstError)
	}
	if longest := time.Duration(r.Latencies.Max()); longest < time.Duration(s.Count)*slow {
		t.Errorf("the last request took %v from when it was due", longest)
	}
}

// Goal: what the gateway says to a connection that it does not want is told: in either version, with a request in flight or
// without, and if it has closed before anything could be written.
func TestRefusedConnections(t *testing.T) {
	refusal := codec.AppendFrame(nil, &codec.Frame{Version: codec.Version1, Type: codec.TypeResponseError,
		Payload: codec.AppendError(nil, codec.CodeOverloaded, "too many connections", true)})
	for name, warmup := range map[string]int64{"idle": 1, "in flight": 8, "at once": 0} {
		for _, version := range []byte{codec.Version1, codec.Version2} {
			t.Run(name, func(t *testing.T) {
				path := refuseAfter(t, 1, refusal)
				s := defaults(path)
				s.Version, s.Connections, s.Warmup, s.Duration, s.Count = version, 3, warmup, 0, 1000
				l, err := Open(s)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				if err = l.WarmUp(); err == nil {
					r := l.Run()
					if err = r.FirstError; r.OK() || r.Wrong != 0 {
						t.Errorf("%d wrong, %d failed, %v", r.Wrong, r.Failed, r.FirstError)
					}
				}
				if err == nil || !strings.Contains(err.Error(), "OVERLOADED: too many connections") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// refuseAfter serves so many connections as an echo, and closes all others with what it says.
func refuseAfter(t *testing.T, connections int, words []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for number := 0; ; number++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if number < connections {
				running.Go(func() { (&server{}).serve(conn, echo) })
				continue
			}
			_, _ = conn.Write(words)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return path
}
