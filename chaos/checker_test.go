package chaos

import (
	"bufio"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// Goal: each broken promise that shows in the end is named, and nothing else is.
func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		kind             kind
		outcome          outcome
		executed, stored int
		want             string // empty: nothing is broken
	}{
		{requestV2, fine, 1, 0, ""},
		{requestV2, failed, 0, 0, ""},
		{requestV2, failed, 1, 0, ""},
		{requestV2, unknown, 1, 0, ""},
		{requestV2, unsent, 0, 0, ""},
		{publishV2, fine, 0, 0, ""}, // NATS may lose it
		{durableV2, fine, 0, 1, ""},
		{durableV2, failed, 0, 1, ""},
		{durableV2, refused, 0, 0, ""},
		{pingV1, fine, 0, 0, ""},
		{requestV2, waits, 0, 0, "never answered"},
		{requestV2, fine, 0, 0, "never executed"},
		{submitV1, fine, 0, 0, "never executed"},
		{submitV1, unsent, 1, 0, "sent:false"},
		{durableV2, unsent, 0, 1, "sent:false"},
		{durableV2, refused, 0, 1, "no stream has stored it"},
		{publishV2, torn, 1, 0, "never complete"},
		{requestV2, unknown, 2, 0, "executed 2 times"},
		{durableV2, fine, 0, 0, "acknowledged and is not stored"},
		{durableV2, unknown, 0, 2, "stored 2 times"},
	} {
		broken := strings.Join(verdict(&record{kind: test.kind, outcome: test.outcome}, test.executed, test.stored), "; ")
		if test.want == "" && broken != "" || !strings.Contains(broken, test.want) {
			t.Errorf("%v %v, executed %d, stored %d: %q, want %q", test.kind, test.outcome, test.executed, test.stored, broken, test.want)
		}
	}
}

// lyingGateway answers each frame as lie says, and closes the connection when that is false.
func lyingGateway(t *testing.T, lie func(conn net.Conn, f *codec.Frame) bool) *world {
	t.Helper()
	w := &world{history: newHistory(), gateway: &gateway{socket: filepath.Join(t.TempDir(), "s")}, pause: time.Millisecond}
	listener, err := net.Listen("unix", w.gateway.socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					frame, err := readFrame(bufferedConn{conn, in}, nil)
					if err != nil {
						return
					}
					if f, _, err := codec.Decode(frame); err != nil || !lie(conn, &f) {
						return
					}
				}
			})
		}
	})
	return w
}

type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c bufferedConn) Read(b []byte) (int, error) { return c.in.Read(b) }

// truth answers f as an echo does.
func truth(conn net.Conn, f *codec.Frame) bool {
	answer := *f
	answer.Type, answer.Subject, answer.Headers, answer.TimeoutMs = codec.TypeResponseOK, nil, nil, 0
	switch {
	case f.Type == codec.TypePing:
		answer.Type = codec.TypePong
	case len(f.Headers) > 0:
		answer.Payload = []byte(`{"stream":"` + streamName + `","seq":1}`)
	case f.Type == codec.TypePublish:
		answer.Payload = nil
	}
	_, err := conn.Write(codec.AppendFrame(nil, &answer))
	return err == nil
}

// Goal: each lie that shows in a conversation is named, and the truth is not called a lie. Method: the suite's own
// clients talk to a gateway that lies.
func TestClientsFindLies(t *testing.T) {
	for _, test := range []struct {
		name string
		lie  func(conn net.Conn, f *codec.Frame) bool
		want string // empty: it is none
	}{
		{"the truth", truth, ""},
		{"two answers", func(conn net.Conn, f *codec.Frame) bool {
			first := truth(conn, f)
			return truth(conn, f) && first
		}, "answer to nothing"},
		{"another one's answer", func(conn net.Conn, f *codec.Frame) bool {
			f.Payload = append([]byte(nil), f.Payload...)
			for i := range f.Payload {
				f.Payload[i] ^= 1
			}
			return truth(conn, f)
		}, "not its own"},
		{"an id that nobody gave", func(conn net.Conn, f *codec.Frame) bool {
			if f.Version == codec.Version2 {
				f.CorrelationID += 1000
			}
			return truth(conn, f)
		}, "answer to nothing"},
		{"the end of the connection", func(net.Conn, *codec.Frame) bool { return false }, "ended without a reason"},
		{"an error that has no reason", func(conn net.Conn, f *codec.Frame) bool {
			answer := codec.Frame{Version: f.Version, Type: codec.TypeResponseError, CorrelationID: f.CorrelationID}
			answer.Payload = codec.AppendError(nil, codec.CodeInternal, "a bug", false)
			_, err := conn.Write(codec.AppendFrame(nil, &answer))
			return err == nil
		}, "no reason for"},
		{"an error of JetStream that is no outcome", func(conn net.Conn, f *codec.Frame) bool {
			if len(f.Headers) == 0 || f.Type != codec.TypePublish {
				return truth(conn, f)
			}
			answer := codec.Frame{Version: f.Version, Type: codec.TypeResponseError, CorrelationID: f.CorrelationID}
			answer.Payload = codec.AppendServiceError(nil, []byte("10158"), []byte("duplicate message id is in process"))
			_, err := conn.Write(codec.AppendFrame(nil, &answer))
			return err == nil
		}, "does not say that the message is not stored"},
		{"no protocol", func(conn net.Conn, _ *codec.Frame) bool {
			_, err := conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			return err == nil
		}, "no frame"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := lyingGateway(t, test.lie)
			c := client{w: w, rng: rand.New(rand.NewPCG(1, 1))}
			for range 20 {
				if len(w.history.broken()) == 0 {
					c.converse(nil)
				}
			}
			broken := strings.Join(w.history.broken(), "\n")
			if test.want == "" && broken != "" || !strings.Contains(broken, test.want) {
				t.Errorf("got %q, want %q", broken, test.want)
			}
		})
	}
}
