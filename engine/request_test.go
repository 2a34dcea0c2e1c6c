package engine

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

func TestRequestsOfBothVersionsAreAnswered(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.headers", func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Echo", m.Header.Get("X-Ask"))
		reply.Data = m.Data
		_ = nc.PublishMsg(reply)
	})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)

	for _, typ := range []codec.Type{codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel} {
		p.send(v1(typ, `{"task":"`+typ.String()+`"}`))
		p.expectOK(1, 0, `{"task":"`+typ.String()+`"}`)
		p.send(v2(typ, 7, "", "two"))
		p.expectOK(2, 7, "two")
	}
	big := strings.Repeat("x", 1<<20)
	p.send(v1(codec.TypeTaskSubmit, big))
	p.expectOK(1, 0, big)

	ask := v2(codec.TypeRequest, 1<<63, "app.headers", "payload")
	ask.Headers = []byte("X-Ask: yes\r\nOther: 1\r\n")
	p.send(ask)
	if f := p.expectOK(2, 1<<63, "payload"); string(f.Headers) != "Echo: yes\r\n" {
		t.Errorf("headers of the reply: %q", f.Headers)
	}
	p.send(v1(codec.TypePing, ""), v2(codec.TypePing, 9, "", "ping"))
	if f := p.receive(); f.Type != codec.TypePong || f.Version != 1 || len(f.Payload) != 0 {
		t.Errorf("PONG of version 1: %+v", f)
	}
	if f := p.receive(); f.Type != codec.TypePong || f.CorrelationID != 9 || string(f.Payload) != "ping" {
		t.Errorf("PONG of version 2: %+v", f)
	}
}

// Goal: each error of the protocol's table that a single request can meet, with its flags.
func TestRefusedFramesAreAnsweredAndTheConnectionStays(t *testing.T) {
	s := runNATS(t, func(o *server.Options) { o.MaxPayload = 1000 })
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.fails", func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Nats-Service-Error-Code", "418")
		reply.Header.Set("Nats-Service-Error", `short and "stout"`)
		_ = nc.PublishMsg(reply)
	})
	answerWith(t, nc, "app.never", func(*nats.Msg) {})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)

	with := func(f codec.Frame, change func(*codec.Frame)) codec.Frame {
		change(&f)
		return f
	}
	malformed := codec.AppendFrame(nil, &codec.Frame{Version: 2, Type: codec.TypeRequest, CorrelationID: 5, Subject: []byte("a.b")})
	malformed[21] = 200 // the subject length, over the frame's end
	for _, test := range []struct {
		name  string
		frame []byte
		frm   codec.Frame
		id    uint64
		code  codec.ErrorCode
		sent  bool
	}{
		{name: "a stream", frm: v1(codec.TypeStreamSubscribe, "x"), code: codec.CodeInvalidType},
		{name: "a gateway's frame", frm: v1(codec.TypeResponseOK, "x"), code: codec.CodeInvalidType},
		{name: "an unknown type", frm: v2(0x77, 3, "", ""), id: 3, code: codec.CodeInvalidType},
		{name: "SUBSCRIBE", frm: v2(codec.TypeSubscribe, 3, "a.*", ""), id: 3, code: codec.CodeInvalidType},
		{name: "CREDIT", frm: v2(codec.TypeCredit, 3, "", "\x00\x00\x00\x01"), id: 3, code: codec.CodeInvalidType},
		{name: "CANCEL", frm: v2(codec.TypeCancel, 3, "", ""), id: 3, code: codec.CodeInvalidType},
		{name: "REQUEST in version 1", frm: v1(codec.TypeRequest, "x"), code: codec.CodeInvalidType},
		{name: "no subject", frm: v2(codec.TypeRequest, 4, "", "x"), id: 4, code: codec.CodeInvalidPayload},
		{name: "a wildcard", frm: v2(codec.TypeRequest, 4, "a.*", "x"), id: 4, code: codec.CodeInvalidPayload},
		{name: "a smuggled line", frm: v2(codec.TypePublish, 4, "a\r\nPUB b 0\r\n", "x"), id: 4, code: codec.CodeInvalidPayload},
		{name: "a header block's end", frm: with(v2(codec.TypeRequest, 4, "a", "x"), func(f *codec.Frame) { f.Headers = []byte("A: b\r\n\r\nPUB") }), id: 4, code: codec.CodeInvalidPayload},
		{name: "headers of a task", frm: with(v2(codec.TypeTaskSubmit, 4, "", "x"), func(f *codec.Frame) { f.Headers = []byte("A") }), id: 4, code: codec.CodeInvalidPayload},
		{name: "an unknown flag", frm: with(v2(codec.TypePing, 4, "", ""), func(f *codec.Frame) { f.Flags = 2 }), id: 4, code: codec.CodeInvalidPayload},
		{name: "NO_REPLY on a request", frm: with(v2(codec.TypeRequest, 4, "a", ""), func(f *codec.Frame) { f.Flags = codec.FlagNoReply }), id: 4, code: codec.CodeInvalidPayload},
		{name: "lengths beyond the frame", frame: malformed, id: 5, code: codec.CodeInvalidPayload},
		{name: "more than max_payload", frm: v1(codec.TypeTaskSubmit, strings.Repeat("x", 1001)), code: codec.CodeFrameTooLarge},
		{name: "headers and payload over max_payload", frm: with(v2(codec.TypeTaskQuery, 6, "", strings.Repeat("x", 990)), func(f *codec.Frame) { f.Headers = []byte("A: b\r\n") }), id: 6, code: codec.CodeFrameTooLarge},
		{name: "nobody listens", frm: v2(codec.TypeRequest, 7, "app.nobody", "x"), id: 7, code: codec.CodeNoResponders, sent: true},
		{name: "no reply in time", frm: with(v2(codec.TypeRequest, 8, "app.never", "x"), func(f *codec.Frame) { f.TimeoutMs = 30 }), id: 8, code: codec.CodeTimeout, sent: true},
		{name: "a service error", frm: v2(codec.TypeRequest, 9, "app.fails", "x"), id: 9, code: codec.CodeServiceError, sent: true},
	} {
		frame := test.frame
		if frame == nil {
			frame = codec.AppendFrame(nil, &test.frm)
		}
		version := frame[4]
		p.sendBytes(frame)
		info := p.expectError(version, test.id, test.code, test.sent)
		switch test.code {
		case codec.CodeTimeout:
			if info.Message != "no reply within 30ms" {
				t.Errorf("%s: message %q", test.name, info.Message)
			}
		case codec.CodeServiceError:
			if info.Message != `short and "stout"` || fmt.Sprint(info.ServiceCode) != "418" {
				t.Errorf("%s: %+v", test.name, info)
			}
		}
		p.send(v1(codec.TypeTaskSubmit, "still here"))
		p.expectOK(1, 0, "still here")
	}
}

// Goal: a type that is not served is refused for its type, also if it names an id in use, as CANCEL and CREDIT do; the request
// with that id goes on.
func TestTypesThatAreNotServedMayNameAnIDInUse(t *testing.T) {
	s := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1)
	answerWith(t, responder(t, s.ClientURL()), "app.slow", func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 3, "app.slow", "x"))
	slow := <-asked
	for _, unserved := range []codec.Type{codec.TypeCancel, codec.TypeCredit, codec.TypeSubscribe, codec.TypeStreamSubscribe, codec.TypeResponseOK, 0x77} {
		p.send(v2(unserved, 3, "", ""))
		p.expectError(2, 3, codec.CodeInvalidType, false)
	}
	for _, f := range []codec.Frame{v2(codec.TypePing, 3, "", ""), v2(codec.TypeRequest, 3, "app.slow", "y")} {
		p.send(f)
		p.expectError(2, 3, codec.CodeInvalidPayload, false)
	}
	if err := slow.Respond([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	p.expectOK(2, 3, "at last")
	p.expectNothingMore()
}

// Goal: frames after which the stream cannot be read on are answered, and then the stream ends with
// EOF, not with a reset, although the client goes on writing.
func TestUnreadableStreamsEndAfterTheAnswer(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	release := make(chan struct{})
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) {
		<-release
		_ = m.Respond(m.Data)
	})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	for _, test := range []struct {
		name    string
		bytes   []byte
		version byte
		id      uint64
		code    codec.ErrorCode
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), 1, 0, codec.CodeInvalidVersion},
		{"version 3", []byte{0, 0, 0, 6, 3, 0xF0}, 1, 0, codec.CodeInvalidVersion},
		{"a length of 5", []byte{0, 0, 0, 5, 1, 0xF0}, 1, 0, codec.CodeInvalidPayload},
		{"a length of 0", []byte{0, 0, 0, 0}, 1, 0, codec.CodeInvalidPayload},
		{"a short version 2 frame", []byte{0, 0, 0, 20, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0}, 2, 258, codec.CodeInvalidPayload},
		{"4 MiB and a byte", []byte{0, 0x40, 0, 1, 1, 1, 'x'}, 1, 0, codec.CodeFrameTooLarge},
		{"version 2 of 4 MiB and a byte", []byte{0, 0x40, 0, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77, 0}, 2, 77, codec.CodeFrameTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, g)
			p.send(v1(codec.TypeTaskSubmit, "before"))
			p.sendBytes(test.bytes)
			// What comes before is answered before: it was whole.
			eventually(t, "the request is in flight", func() bool { return g.Stats().Inflight == 1 })
			if test.version == 2 {
				p.expectError(test.version, test.id, test.code, false)
			}
			release <- struct{}{}
			p.expectOK(1, 0, "before")
			if test.version == 1 {
				p.expectError(test.version, test.id, test.code, false)
			}
			_, _ = p.Write(make([]byte, 100_000))
			p.expectEOF()
		})
	}
}

func TestFramesMayBeTornAtEveryByte(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), ">", func(m *nats.Msg) {
		if m.Reply != "" && !strings.HasPrefix(m.Subject, "_INBOX.") {
			echo(m)
		}
	})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	frames := []codec.Frame{
		v1(codec.TypeTaskSubmit, "one"), v1(codec.TypePing, ""), v2(codec.TypeRequest, 1, "a.b", "two"), v1(codec.TypeTaskQuery, "three"),
	}
	frames[2].Headers = []byte("A: b\r\n")
	var stream []byte
	for i := range frames {
		stream = codec.AppendFrame(stream, &frames[i])
	}
	p := dial(t, g)
	for cut := 1; cut < len(stream); cut++ {
		p.sendBytes(stream[:cut])
		// A round through the loop: the first part is read on its own.
		if err := g.Alive(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.sendBytes(stream[cut:])
		checkTornAnswers(t, p, cut)
	}
	for i := range stream {
		p.sendBytes(stream[i : i+1])
	}
	checkTornAnswers(t, p, -1)
}

// checkTornAnswers reads the answers to the frames above: the version 1 ones in order, the other anywhere.
func checkTornAnswers(t *testing.T, p *peer, cut int) {
	t.Helper()
	var order []string
	for range 4 {
		f := p.receive()
		if f.Version == 2 {
			if string(f.Payload) != "two" || f.CorrelationID != 1 {
				t.Fatalf("cut at %d: version 2 answer %+v", cut, f)
			}
			continue
		}
		order = append(order, f.Type.String()+" "+string(f.Payload))
	}
	if got := strings.Join(order, ", "); got != "RESPONSE_OK one, PONG , RESPONSE_OK three" {
		t.Fatalf("cut at %d: version 1 answers: %s", cut, got)
	}
}

func TestThousandsOfFramesInOneRead(t *testing.T) {
	s := runNATS(t, nil)
	answerWith(t, responder(t, s.ClientURL()), DefaultSubject, echo)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	var stream []byte
	for range 5000 {
		stream = codec.AppendFrame(stream, &codec.Frame{Version: 1, Type: codec.TypePing})
	}
	for i := range 1000 {
		f := v1(codec.TypeTaskSubmit, strconv.Itoa(i))
		stream = codec.AppendFrame(stream, &f)
	}
	go p.sendBytes(stream)
	for range 5000 {
		if f := p.receive(); f.Type != codec.TypePong {
			t.Fatalf("got %v, want PONG", f.Type)
		}
	}
	for i := range 1000 {
		p.expectOK(1, 0, strconv.Itoa(i))
	}
}

// Goal: version 1 answers, those that need no NATS among them, leave in the order of their
// requests; version 2 answers on the same connection do not wait.
func TestVersion1AnswersKeepTheirOrder(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(v1(codec.TypePing, ""), v1(codec.TypeTaskSubmit, "a"), v1(codec.TypePing, ""), v1(codec.TypeStreamSubscribe, ""),
		v1(codec.TypeTaskSubmit, "b"), v1(codec.TypeTaskSubmit, "c"), v1(codec.TypePing, ""), v2(codec.TypePing, 1, "", "now"))
	if f := p.receive(); f.Type != codec.TypePong || f.Version != 1 {
		t.Fatalf("first answer: %+v", f)
	}
	if f := p.receive(); f.Type != codec.TypePong || f.Version != 2 {
		t.Fatalf("second answer: %+v, want the version 2 PONG", f)
	}
	requests := []*nats.Msg{<-asked, <-asked, <-asked}
	for _, i := range []int{2, 1, 0} { // answered in the wrong order
		_ = requests[i].Respond([]byte(strings.ToUpper(string(requests[i].Data))))
	}
	p.expectOK(1, 0, "A")
	if f := p.receive(); f.Type != codec.TypePong {
		t.Fatalf("behind A: %+v, want PONG", f)
	}
	p.expectError(1, 0, codec.CodeInvalidType, false)
	p.expectOK(1, 0, "B")
	p.expectOK(1, 0, "C")
	if f := p.receive(); f.Type != codec.TypePong {
		t.Fatalf("behind C: %+v, want PONG", f)
	}
}

func TestCorrelationIDsAreInUseUntilTheirAnswer(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p, other := dial(t, g), dial(t, g)
	p.send(v2(codec.TypeRequest, 42, "app.slow", "first"), v2(codec.TypeRequest, 42, "app.slow", "second"), v2(codec.TypePing, 42, "", ""))
	p.expectError(2, 42, codec.CodeInvalidPayload, false)
	p.expectError(2, 42, codec.CodeInvalidPayload, false)
	other.send(v2(codec.TypePing, 42, "", "mine")) // ids belong to their connection
	if f := other.receive(); f.Type != codec.TypePong {
		t.Fatalf("another connection's 42: %+v", f)
	}
	_ = (<-asked).Respond([]byte("answer"))
	p.expectOK(2, 42, "answer")
	p.send(v2(codec.TypePing, 42, "", ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Fatalf("42 after its answer: %+v", f)
	}
}

func TestPublishes(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	published := make(chan *nats.Msg, 10)
	answerWith(t, nc, "app.sink", func(m *nats.Msg) { published <- m })
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { published <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Submit.Mode = ModePublish
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	expect := func(subject, payload, header string) {
		t.Helper()
		m := <-published
		if m.Subject != subject || string(m.Data) != payload || m.Reply != "" || m.Header.Get("A") != header {
			t.Errorf("published: %s %q reply %q header %q; want %s %q, header %q", m.Subject, m.Data, m.Reply, m.Header.Get("A"), subject, payload, header)
		}
	}
	f := v2(codec.TypePublish, 1, "app.sink", "one")
	f.Headers = []byte("A: b\r\n")
	p.send(f)
	p.expectOK(2, 1, "")
	expect("app.sink", "one", "b")

	p.send(v1(codec.TypeTaskSubmit, "two"))
	p.expectOK(1, 0, `{"ok":true}`)
	expect(DefaultSubject, "two", "")

	p.send(v2(codec.TypeTaskSubmit, 2, "app.sink", "three"))
	p.expectOK(2, 2, "")
	expect("app.sink", "three", "")

	silent := v2(codec.TypePublish, 3, "app.sink", "four")
	silent.Flags = codec.FlagNoReply
	refused := v2(codec.TypePublish, 3, "app..sink", "five")
	refused.Flags = codec.FlagNoReply
	malformed := codec.AppendFrame(nil, &silent)
	malformed[20] = 0xff // the subject length, over the frame's end
	p.sendBytes(malformed)
	p.send(silent, silent, refused, v2(codec.TypePing, 3, "", ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Errorf("answer to NO_REPLY: %+v", f)
	}
	expect("app.sink", "four", "")
	expect("app.sink", "four", "")
	if n := g.Stats().NoReplyRefused; n != 2 {
		t.Errorf("%d NO_REPLY publishes counted as refused, want 2", n)
	}
}

func TestCapabilitiesListWhatWorks(t *testing.T) {
	s := runNATS(t, func(o *server.Options) { o.MaxPayload = 5000 })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(v1(codec.TypeCapabilities, ""))
	f := p.receive()
	var c codec.Capabilities
	if err := json.Unmarshal(f.Payload, &c); err != nil || f.Type != codec.TypeResponseOK {
		t.Fatalf("%+v: %v", f, err)
	}
	if c.ProtocolVersion != 2 || fmt.Sprint(c.SupportedVersions) != "[1 2]" || c.MaxPayloadSize != 5000 ||
		fmt.Sprint(c.SupportedMessageTypes) != "[1 2 3 8 9 240 242]" || len(c.Features) == 0 {
		t.Errorf("capabilities: %s", f.Payload)
	}
	// What is not listed is refused, what is listed is not.
	listed := map[int]bool{}
	for _, n := range c.SupportedMessageTypes {
		listed[n] = true
	}
	for n := range 256 {
		f := v2(codec.Type(n), uint64(n), "app.x", "")
		p.send(f)
		answer := p.receive()
		info, _ := codec.ParseError(answer.Payload)
		if refused := info.Code == int(codec.CodeInvalidType); refused == listed[n] {
			t.Errorf("type %#x: listed %v, answered %v %s", n, listed[n], answer.Type, answer.Payload)
		}
	}
}

func TestRepliesThatDoNotFitAFrame(t *testing.T) {
	s := runNATS(t, func(o *server.Options) { o.MaxPayload = 8 << 20 })
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) { _ = m.Respond(make([]byte, 5<<20)) })
	answerWith(t, nc, "app.exact", func(m *nats.Msg) { _ = m.Respond(make([]byte, codec.FrameBytesMax-codec.HeaderBytesV1)) })
	answerWith(t, nc, "app.headers", func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Long", strings.Repeat("h", 70_000))
		_ = nc.PublishMsg(reply)
	})
	answerWith(t, nc, "app.fails", func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Long", strings.Repeat("h", 70_000))
		reply.Header.Set("Nats-Service-Error-Code", "1")
		_ = nc.PublishMsg(reply)
	})
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Query.Subject = "app.exact"
	cfg.Routes.Cancel.Subject = "app.fails"
	answerWith(t, nc, "orders.new", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"error":{"code":1,"description":"` + strings.Repeat("x", 5<<20) + `"}}`))
	})
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(durablePublish(4, "x", ""))
	p.expectError(2, 4, codec.CodeFrameTooLarge, true)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectError(1, 0, codec.CodeFrameTooLarge, true)
	p.send(v2(codec.TypeRequest, 1, DefaultSubject, "x"))
	p.expectError(2, 1, codec.CodeFrameTooLarge, true)
	p.send(v2(codec.TypeRequest, 2, "app.headers", "x"))
	p.expectError(2, 2, codec.CodeFrameTooLarge, true)
	p.send(v2(codec.TypeRequest, 3, "app.fails", "x"))
	p.expectError(2, 3, codec.CodeFrameTooLarge, true)
	p.send(v1(codec.TypeTaskCancel, "x")) // version 1 has no headers that could be too long
	p.expectError(1, 0, codec.CodeServiceError, true)
	p.send(v1(codec.TypeTaskQuery, "x"))
	if f := p.receive(); f.Type != codec.TypeResponseOK || len(f.Payload) != codec.FrameBytesMax-codec.HeaderBytesV1 {
		t.Errorf("a reply that just fits: %v with %d bytes", f.Type, len(f.Payload))
	}
	p.send(v1(codec.TypeTaskSubmit, strings.Repeat("x", codec.FrameBytesMax-codec.HeaderBytesV1)))
	p.expectError(1, 0, codec.CodeFrameTooLarge, true)
	if n := g.Stats().InternalErrors; n != 0 {
		t.Errorf("%d internal errors", n)
	}
}

func TestStatusOfAReplyIsShownAsHeaders(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	// nats.go cannot publish a status line: this speaks the protocol itself.
	raw, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close() //nolint:errcheck // the test is over
	answerWith(t, nc, "app.status", func(m *nats.Msg) {
		const block = "NATS/1.0 408 Request Timeout\r\nA: b\r\n\r\n"
		_, _ = fmt.Fprintf(raw, "CONNECT {\"headers\":true}\r\nHPUB %s %d %d\r\n%s\r\n", m.Reply, len(block), len(block), block)
	})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.status", "x"))
	f := p.expectOK(2, 1, "")
	if string(f.Headers) != "Status: 408\r\nDescription: Request Timeout\r\nA: b\r\n" {
		t.Errorf("headers: %q", f.Headers)
	}
}

// Goal: it is the header that makes a reply a service error, whatever its value.
func TestServiceErrorWithAnEmptyCode(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, func(m *nats.Msg) {
		reply := nats.NewMsg(m.Reply)
		reply.Header.Set("Nats-Service-Error-Code", string(m.Data))
		_ = nc.PublishMsg(reply)
	})
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	for _, code := range []string{"", " "} {
		p.send(v2(codec.TypeTaskSubmit, 1, "", code), v1(codec.TypeTaskSubmit, code))
		for _, version := range []byte{2, 1} {
			if info := p.expectError(version, uint64(version-1), codec.CodeServiceError, true); info.ServiceCode != "" || info.Message != "" {
				t.Errorf("%+v", info)
			}
		}
	}
}

// Goal: what one responder calls headers hurts nobody. Method: one sends a header block that is none, which servers pass on,
// while another request is in flight.
func TestReplyWithMalformedHeadersIsPassedOnWithoutThem(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	raw, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close() //nolint:errcheck // the test is over
	answerWith(t, nc, "app.garbage", func(m *nats.Msg) {
		_, _ = fmt.Fprintf(raw, "CONNECT {\"headers\":true}\r\nHPUB %s 9 11\r\ngarbage\r\nok\r\n", m.Reply)
	})
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Query.Subject = "app.garbage"
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", "x"))
	slow := <-asked
	p.send(v2(codec.TypeRequest, 2, "app.garbage", "x"))
	if f := p.expectOK(2, 2, "ok"); len(f.Headers) != 0 {
		t.Errorf("headers: %q", f.Headers)
	}
	p.send(v1(codec.TypeTaskQuery, "x"))
	p.expectOK(1, 0, "ok")
	if err := slow.Respond([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	p.expectOK(2, 1, "at last")
	if n := g.Stats().LinkReconnects; n != 0 {
		t.Errorf("%d reconnects", n)
	}
}
