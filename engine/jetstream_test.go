package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

// runJetStream starts a nats-server with JetStream in this process, and a stream ORDERS on orders.>.
func runJetStream(t testing.TB) (*server.Server, jetstream.JetStream) {
	t.Helper()
	s := runNATS(t, func(o *server.Options) { o.JetStream, o.StoreDir = true, t.TempDir() })
	js := jetStreamOf(t, s.ClientURL())
	makeStream(t, js, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Storage: jetstream.MemoryStorage})
	return s, js
}

func jetStreamOf(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(responder(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func makeStream(t testing.TB, js jetstream.JetStream, cfg jetstream.StreamConfig) {
	t.Helper()
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatalf("creating the stream %s: %v", cfg.Name, err)
	}
}

// stored returns the messages of a stream, in order.
func stored(t testing.TB, js jetstream.JetStream, name string) (messages []*jetstream.RawStreamMsg) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := range stream.CachedInfo().State.LastSeq {
		m, err := stream.GetMsg(t.Context(), seq+1)
		if err != nil {
			t.Fatalf("message %d of %s: %v", seq+1, name, err)
		}
		messages = append(messages, m)
	}
	return messages
}

// durablePublish is a PUBLISH that asks for the acknowledgement of ORDERS.
func durablePublish(id uint64, payload, moreHeaders string) codec.Frame {
	f := v2(codec.TypePublish, id, "orders.new", payload)
	f.Headers = []byte("Nats-Expected-Stream: ORDERS\r\n" + moreHeaders)
	return f
}

type pubAck struct {
	Stream    string
	Seq       uint64
	Duplicate *bool
}

func (p *peer) expectAck(version byte, id uint64) pubAck {
	p.t.Helper()
	f := p.receive()
	var ack pubAck
	if f.Version != version || f.Type != codec.TypeResponseOK || f.CorrelationID != id || json.Unmarshal(f.Payload, &ack) != nil || ack.Duplicate == nil {
		p.t.Fatalf("got version %d %v id %d %q, want an acknowledgement for id %d", f.Version, f.Type, f.CorrelationID, f.Payload, id)
	}
	return ack
}

func TestJetStreamPublishIsAnsweredWithTheAcknowledgement(t *testing.T) {
	s, js := runJetStream(t)
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Submit = Route{Subject: "orders.task", Mode: ModeJetStream, Timeout: testTimeout}
	g := runGateway(t, cfg)
	waitReady(t, g)
	cfg.Routes.JetStream = []string{"orders.*.durable"}
	if _, err := g.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p := dial(t, g)

	p.send(v1(codec.TypeTaskSubmit, "one"))
	if ack := p.expectAck(1, 0); ack.Stream != "ORDERS" || ack.Seq != 1 || *ack.Duplicate {
		t.Errorf("version 1 route: %+v", ack)
	}
	p.send(durablePublish(7, "two", "X-A: b\r\n"))
	if ack := p.expectAck(2, 7); ack.Stream != "ORDERS" || ack.Seq != 2 || *ack.Duplicate {
		t.Errorf("PUBLISH: %+v", ack)
	}
	for id := range uint64(2) {
		p.send(durablePublish(id, "three", "Nats-Msg-Id: mine\r\n"))
		if ack := p.expectAck(2, id); ack.Seq != 3 || *ack.Duplicate != (id == 1) {
			t.Errorf("id of the client, time %d: %+v", id, ack)
		}
	}
	p.send(v2(codec.TypePublish, 9, "orders.new", "four"))
	if f := p.receive(); f.Type != codec.TypeResponseOK || len(f.Payload) != 0 {
		t.Errorf("PUBLISH that does not ask: got %v %q", f.Type, f.Payload)
	}
	p.send(v2(codec.TypePublish, 10, "orders.new.durable", "five"))
	if ack := p.expectAck(2, 10); ack.Seq != 5 {
		t.Errorf("PUBLISH to a subject that is configured: %+v", ack)
	}
	eventually(t, "the last message is stored", func() bool { return len(stored(t, js, "ORDERS")) == 5 })
	all := stored(t, js, "ORDERS")
	for i, want := range []string{"one", "two", "three", "four", "five"} {
		if string(all[i].Data) != want {
			t.Errorf("message %d is %q, want %q", i, all[i].Data, want)
		}
	}
	first, second := all[0].Header.Get(nats.MsgIdHdr), all[1].Header.Get(nats.MsgIdHdr)
	if first == "" || second == "" || first == second {
		t.Errorf("ids given by the gateway: %q and %q", first, second)
	}
	if got := all[1].Header.Get("X-A"); got != "b" {
		t.Errorf("the client's header is %q", got)
	}
	if got := all[2].Header.Get(nats.MsgIdHdr); got != "mine" {
		t.Errorf("the client's id is %q", got)
	}
	if held := g.Stats().JetStreamHeldBytes; held != 0 {
		t.Errorf("%d bytes are still held", held)
	}
}

func TestJetStreamErrorsAreServiceErrors(t *testing.T) {
	s, js := runJetStream(t)
	makeStream(t, js, jetstream.StreamConfig{Name: "FULL", Subjects: []string{"full"}, MaxMsgs: 1, Discard: jetstream.DiscardNew, Storage: jetstream.MemoryStorage})
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, "elsewhere", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) })
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	publish := func(subject, headers string) {
		t.Helper()
		f := v2(codec.TypePublish, 1, subject, "x")
		f.Headers = []byte(headers)
		p.send(f)
	}
	publish("orders.new", "Nats-Expected-Stream: OTHER\r\n")
	if info := p.expectError(2, 1, codec.CodeServiceError, true); fmt.Sprint(info.ServiceCode) != "10060" || !strings.Contains(info.Message, "stream") {
		t.Errorf("another stream expected: %+v", info)
	}
	publish("full", "Nats-Expected-Stream: FULL\r\n")
	p.expectAck(2, 1)
	publish("full", "Nats-Expected-Stream: FULL\r\n")
	if info := p.expectError(2, 1, codec.CodeServiceError, true); fmt.Sprint(info.ServiceCode) != "10077" {
		t.Errorf("a full stream: %+v", info)
	}
	publish("elsewhere", "Nats-Expected-Stream: ORDERS\r\n")
	if info := p.expectError(2, 1, codec.CodeServiceError, true); !strings.Contains(info.Message, "no acknowledgement") {
		t.Errorf("a responder that is no stream: %+v", info)
	}
	publish("orders.new", "Nats-Expected-Stream: ORDERS\r\nNats-Msg-Id: \r\n")
	p.expectError(2, 1, codec.CodeInvalidPayload, false)
}

func TestJetStreamWaitsForAStreamThatComesBack(t *testing.T) {
	t.Parallel()
	s, js := runJetStream(t)
	g := runGateway(t, testConfig(t, s.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	f := v2(codec.TypePublish, 1, "later", "x")
	f.Headers = []byte("Nats-Expected-Stream: LATER\r\n")
	began := time.Now()
	p.send(f)
	p.expectError(2, 1, codec.CodeNoResponders, true)
	if took := time.Since(began); took < noStreamPatience {
		t.Errorf("no stream was told after %v, want %v", took, noStreamPatience)
	}
	resends := g.Stats().JetStreamResends
	p.send(f)
	eventually(t, "the message was sent in vain", func() bool { return g.Stats().JetStreamResends > resends })
	makeStream(t, js, jetstream.StreamConfig{Name: "LATER", Subjects: []string{"later"}, Storage: jetstream.MemoryStorage})
	if ack := p.expectAck(2, 1); ack.Stream != "LATER" || ack.Seq != 1 {
		t.Errorf("%+v", ack)
	}
}

// A stream that stores but does not acknowledge looks as if every acknowledgement were lost.
func TestJetStreamMessageIsSentAgainUntilTheDeadline(t *testing.T) {
	s, js := runJetStream(t)
	makeStream(t, js, jetstream.StreamConfig{Name: "SILENT", Subjects: []string{"silent"}, NoAck: true, Storage: jetstream.MemoryStorage})
	cfg := testConfig(t, s.ClientURL())
	cfg.AckWait = 20 * time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	f := v2(codec.TypePublish, 1, "silent", "x")
	f.Headers, f.TimeoutMs = []byte("Nats-Expected-Stream: SILENT\r\n"), 300
	p.send(f)
	if info := p.expectError(2, 1, codec.CodeTimeout, true); !strings.Contains(info.Message, "not acknowledged") {
		t.Errorf("%+v", info)
	}
	if n := g.Stats().JetStreamResends; n < 3 || n > 15 {
		t.Errorf("sent again %d times in 300 ms, each 20 ms", n)
	}
	if n := len(stored(t, js, "SILENT")); n != 1 {
		t.Errorf("stored %d times", n)
	}
}

func TestJetStreamBytesHeldAreBounded(t *testing.T) {
	s, js := runJetStream(t)
	makeStream(t, js, jetstream.StreamConfig{Name: "SILENT", Subjects: []string{"silent"}, NoAck: true, Storage: jetstream.MemoryStorage})
	cfg := testConfig(t, s.ClientURL())
	cfg.MaxHeldBytes, cfg.PauseMax = 10_000, 50*time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	send := func(id uint64) {
		f := v2(codec.TypePublish, id, "silent", strings.Repeat("x", 4500))
		f.Headers = []byte("Nats-Expected-Stream: SILENT\r\n")
		p.send(f)
	}
	for id := range uint64(3) {
		send(id)
	}
	p.expectError(2, 2, codec.CodeOverloaded, false)
	if n := g.Stats().JetStreamRefused; n != 1 {
		t.Errorf("%d refusals counted", n)
	}
	_ = p.Close()
	eventually(t, "what the client left is dropped", func() bool { return g.Stats().JetStreamHeldBytes == 0 })
}

// Goal: each message is stored once, whatever is lost. Method: the connection is cut at random while
// clients publish, and the whole server is killed and restarted once; then the stream must hold each message that was
// acknowledged, and none twice.
func TestJetStreamStoresEachMessageOnce(t *testing.T) {
	seed := testSeed(t)
	o := natsdOptions{Port: freePort(t), StoreDir: t.TempDir()}
	natsd := startNATSD(t, o)
	js := jetStreamOf(t, natsd.line)
	makeStream(t, js, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	at, err := url.Parse(natsd.line)
	if err != nil {
		t.Fatal(err)
	}
	cable := newProxy(t, at.Host)
	cfg := testConfig(t, "nats://"+cable.address())
	cfg.Loops, cfg.AckWait = 2, 100*time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)

	stop := make(chan struct{})
	var faults, clients sync.WaitGroup
	faults.Go(func() { cable.cutUntil(stop, rand.New(rand.NewPCG(seed, 1))) })
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	const connections, each = 4, 500
	for c := range connections {
		p := dial(t, g)
		clients.Go(func() {
			for i := range each {
				payload := fmt.Sprintf("%d/%d", c, i)
				if !publishDurably(p, uint64(i), payload) {
					return
				}
				mu.Lock()
				acknowledged[payload] = true
				mu.Unlock()
				if c == 0 && i == each/2 {
					natsd.kill()
					natsd = startNATSD(t, o)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	faults.Wait()
	times := map[string]int{}
	for _, m := range stored(t, jetStreamOf(t, natsd.line), "ORDERS") {
		times[string(m.Data)]++
	}
	for payload, n := range times {
		if n != 1 {
			t.Errorf("%s is stored %d times", payload, n)
		}
	}
	for payload := range acknowledged {
		if times[payload] == 0 {
			t.Errorf("%s was acknowledged and is not stored", payload)
		}
	}
	resends := g.Stats().JetStreamResends
	t.Logf("%d acknowledged, %d stored, %d cuts, %d copies", len(acknowledged), len(times), cable.cuts, resends)
	if resends == 0 || len(acknowledged) != connections*each {
		t.Error("not everything was acknowledged, or nothing had to be sent again: the test does not test what it says")
	}
}

// publishDurably publishes until the message is taken and acknowledged: it is refused while NATS is away.
func publishDurably(p *peer, id uint64, payload string) bool {
	f := durablePublish(id, payload, "")
	f.TimeoutMs = uint32(testTimeout.Milliseconds())
	for {
		p.send(f)
		answer, err := p.tryReceive()
		switch {
		case err != nil:
			p.t.Errorf("%s: %v", payload, err)
			return false
		case answer.Type == codec.TypeResponseOK:
			return true
		}
		if info, err := codec.ParseError(answer.Payload); err != nil || info.Name != "UNAVAILABLE" || info.Sent {
			p.t.Errorf("%s: %s", payload, answer.Payload)
			return false
		}
		time.Sleep(time.Millisecond) // a client's pause between tries
	}
}
