package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// recorder writes down what a parser finds, with copies of what it borrows.
type recorder struct{ events []string }

func (r *recorder) onMessage(m *Message) {
	r.events = append(r.events, fmt.Sprintf("msg %q status %d %q headers %q payload %q raw %d",
		m.Subject, m.Status, m.Description, m.Headers, m.Payload, len(m.Raw)))
}

func (r *recorder) onControl(raw []byte) {
	r.events = append(r.events, fmt.Sprintf("control %q", raw))
}

func parseWhole(stream []byte) ([]string, error) {
	var p parser
	var r recorder
	err := p.parse(stream, &r)
	return r.events, err
}

func parseChunks(stream []byte, rng *rand.Rand) ([]string, error) {
	var p parser
	var r recorder
	for len(stream) > 0 {
		n := min(1+rng.IntN(1+rng.IntN(40)), len(stream))
		// A copy that is overwritten afterwards: the parser must not keep borrowed bytes.
		chunk := bytes.Clone(stream[:n])
		err := p.parse(chunk, &r)
		for i := range chunk {
			chunk[i] = '#'
		}
		if err != nil {
			return r.events, err
		}
		stream = stream[n:]
	}
	return r.events, nil
}

var conversation = strings.Join([]string{
	"INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n",
	"PONG\r\n",
	"MSG _INBOX.a.00000000001 1 5\r\nhello\r\n",
	"MSG _INBOX.a.00000000001 1 0\r\n\r\n",
	"MSG foo.bar 12 reply.to 3\r\na\r\n\r\n",
	"+OK\r\n",
	"HMSG _INBOX.a.00000000002 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
	"HMSG _INBOX.a.00000000002 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
	"HMSG _INBOX.a.00000000002 1 reply 35 40\r\nNATS/1.0\r\nA: b\r\nLonger-Name: 12\r\n\r\nhello\r\n",
	"HMSG x 1 32 32\r\nNATS/1.0 408 Request Timeout\r\n\r\n\r\n",
	"HMSG x 1 9 11\r\ngarbage\r\nok\r\n",
	"HMSG x 1 8 10\r\nNATS/1.0ok\r\n",
	"HMSG x 1 0 2\r\nok\r\n",
	"PING\r\n",
	"-ERR 'Authorization Violation'\r\n",
}, "")

func TestParserReadsAConversation(t *testing.T) {
	got, err := parseWhole([]byte(conversation))
	if err != nil {
		t.Fatalf("parse: %v after %q", err, got)
	}
	want := []string{
		`control "INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n"`,
		`control "PONG\r\n"`,
		`msg "_INBOX.a.00000000001" status 0 "" headers "" payload "hello" raw 37`,
		`msg "_INBOX.a.00000000001" status 0 "" headers "" payload "" raw 32`,
		`msg "foo.bar" status 0 "" headers "" payload "a\r\n" raw 32`,
		`control "+OK\r\n"`,
		`msg "_INBOX.a.00000000002" status 503 "" headers "" payload "" raw 53`,
		`msg "_INBOX.a.00000000002" status 0 "" headers "" payload "hello" raw 54`,
		`msg "_INBOX.a.00000000002" status 0 "" headers "A: b\r\nLonger-Name: 12\r\n" payload "hello" raw 83`,
		`msg "x" status 408 "Request Timeout" headers "" payload "" raw 50`,
		`msg "x" status 0 "" headers "" payload "ok" raw 28`,
		`msg "x" status 0 "" headers "" payload "ok" raw 27`,
		`msg "x" status 0 "" headers "" payload "ok" raw 18`,
		`control "PING\r\n"`,
		`control "-ERR 'Authorization Violation'\r\n"`,
	}
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("event %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestParserRefusesWhatNoServerSends(t *testing.T) {
	for _, stream := range []string{
		"HTTP/1.1 400 Bad Request\r\n",
		"MSG\r\n", "MSG a\r\n", "MSG a 1\r\n", "MSG a 1 x\r\n", "MSG a 1 -1\r\n", "MSG a 1 b c d 1\r\n",
		"MSG a 1 9999999999999999999999\r\n", "MSG a 1 99999999\r\n",
		"MSG a 1 2\r\nabcd\r\n", "MSG a 1 2\r\nab\n\r",
		"HMSG a 1 5\r\nhello\r\n", "HMSG a 1 6 5\r\nhello\r\n",
		"info {}\r\n", "\r\n", "\x00\n",
	} {
		if got, err := parseWhole([]byte(stream)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: error %v, events %q; want %v", stream, err, got, ErrProtocol)
		}
	}
	if _, err := parseWhole(bytes.Repeat([]byte("INFO "), lineBytesMax)); !errors.Is(err, ErrProtocol) {
		t.Errorf("a line without end: error %v, want %v", err, ErrProtocol)
	}
}

// FuzzParser holds any chunking against the whole stream: the events and the verdict are the same.
func FuzzParser(f *testing.F) {
	f.Add([]byte(conversation), uint64(1))
	f.Add([]byte("HMSG x 1 32 32\r\nNATS/1.0 408 Request Timeout\r\n\r\n\r\nMSG a 1 1\r\nx\r\n"), uint64(2))
	f.Add([]byte("HMSG x 1 11 11\r\nNATS/1.0 \r\n\r\n"), uint64(3))
	f.Add([]byte("HMSG x 1 9 11\r\ngarbage\r\nok\r\nHMSG x 1 3 3\r\nNAT\r\nMSG a 1 1\r\nx\r\n"), uint64(4))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole, wholeErr := parseWhole(bytes.Clone(stream))
		chunked, chunkedErr := parseChunks(stream, rand.New(rand.NewPCG(seed, 0)))
		if fmt.Sprint(whole) != fmt.Sprint(chunked) || (wholeErr == nil) != (chunkedErr == nil) {
			t.Errorf("whole: %q, %v\nchunked: %q, %v", whole, wholeErr, chunked, chunkedErr)
		}
	})
}

func TestHeaderIsFoundWithoutRegardToCase(t *testing.T) {
	m := Message{Headers: []byte("A: 1\r\nnats-service-error-CODE:  42 \r\nNats-Service-Error: no\r\nEmpty:\r\nSpace: \r\n")}
	for name, want := range map[string]string{"a": "1", "Nats-Service-Error-Code": "42", "Nats-Service-Error": "no", "empty": "", "space": ""} {
		if got, found := m.Header(name); string(got) != want || !found {
			t.Errorf("Header(%q) = %q, %v; want %q", name, got, found, want)
		}
	}
	for _, name := range []string{"B", "Nats", "Nats-Service-Error-Code-2"} {
		if got, found := m.Header(name); found {
			t.Errorf("Header(%q) = %q, want it not found", name, got)
		}
	}
}

func TestTokensSurviveTheWayThereAndBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		token := rng.Uint64() >> rng.IntN(64)
		text := appendToken(nil, token)
		if got, ok := parseToken(text); !ok || got != token || len(text) != tokenBytes {
			t.Fatalf("parseToken(%q) = %x, %v; want %x", text, got, ok, token)
		}
	}
	for _, foreign := range []string{"", "0", "000000000000", "zzzzzzzzzzz", "0000000000.", "0000000000\x80"} {
		if token, ok := parseToken([]byte(foreign)); ok {
			t.Errorf("parseToken(%q) = %x, want it refused", foreign, token)
		}
	}
}
