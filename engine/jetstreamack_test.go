package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/aigroup/ipc-gateway/codec"
)

// Answers of a stream, as nats-server writes them.
const (
	streamStored    = `{"stream":"ORDERS", "seq":7}`
	streamHasIt     = `{"stream":"ORDERS", "seq":7,"duplicate": true}`
	streamInProcess = `{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},"stream":"ORDERS","seq":0}`
	streamMismatch  = `{"error":{"code":503,"err_code":10063,"description":"expected stream sequence does not match"},"stream":"ORDERS","seq":0}`
	streamClosed    = `{"error":{"code":503,"err_code":10077,"description":"store is closed"},"stream":"ORDERS","seq":0}`
	streamFull      = `{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"ORDERS","seq":0}`
	streamWrongSeq  = `{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"},"stream":"ORDERS","seq":0}`
)

// Goal: an error about one copy is the outcome only if no copy can be stored. Method: a responder plays the stream; it
// answers the copies of one message as the script says, and those after that like the last one.
func TestJetStreamErrorIsNoOutcomeWhileACopyMayBeStored(t *testing.T) {
	const (
		acknowledged = "acknowledged"
		timedOut     = "TIMEOUT"
	)
	for _, test := range []struct {
		name   string
		copies [][]string // the answers to each
		want   string     // acknowledged, timedOut, or the service code
	}{
		{"in process, then stored", [][]string{{streamInProcess, streamStored}}, acknowledged},
		{"in process, then a duplicate", [][]string{{streamInProcess}, {streamHasIt}}, acknowledged},
		{"the first is slow, the second in process", [][]string{{}, {streamInProcess, streamStored}}, acknowledged},
		{"in process for ever", [][]string{{streamInProcess}}, timedOut},
		{"replicas do not agree", [][]string{{streamMismatch}, {streamHasIt}}, acknowledged},
		{"the stream is closed under it", [][]string{{streamClosed}, {streamHasIt}}, acknowledged},
		{"refused", [][]string{{streamFull}}, "10077"},
		{"both refused", [][]string{{}, {streamFull, streamFull}}, "10077"},
		{"the first is lost, the second refused for it", [][]string{{}, {streamWrongSeq}}, timedOut},
		{"the second is refused, the first acknowledged", [][]string{{}, {streamFull, streamStored}}, acknowledged},
		{"in process, then refused", [][]string{{streamInProcess}, {streamFull}}, timedOut},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := runNATS(t, nil)
			copies := 0
			answerWith(t, responder(t, s.ClientURL()), "orders.new", func(m *nats.Msg) {
				for _, answer := range test.copies[min(copies, len(test.copies)-1)] {
					_ = m.Respond([]byte(answer))
				}
				copies++
			})
			cfg := testConfig(t, s.ClientURL())
			cfg.AckWait = 30 * time.Millisecond
			g := runGateway(t, cfg)
			waitReady(t, g)
			p := dial(t, g)
			f := durablePublish(1, "x", "")
			f.TimeoutMs = uint32(testTimeout.Milliseconds())
			if test.want == timedOut {
				f.TimeoutMs = 500
			}
			p.send(f)
			switch test.want {
			case acknowledged:
				if ack := p.expectAck(2, 1); ack.Seq != 7 {
					t.Errorf("%+v", ack)
				}
			case timedOut:
				p.expectError(2, 1, codec.CodeTimeout, true)
			default:
				if info := p.expectError(2, 1, codec.CodeServiceError, true); fmt.Sprint(info.ServiceCode) != test.want {
					t.Errorf("%+v, want the code %s", info, test.want)
				}
			}
			p.expectNothingMore()
			if held := g.Stats().JetStreamHeldBytes; held != 0 {
				t.Errorf("%d bytes are still held", held)
			}
		})
	}
}

// Goal: while a replicated stream has no quorum, a message is neither refused nor stored twice. Method: the two followers are
// frozen until the leader has been sent the second copy, which it answers with "duplicate message id is in process".
func TestJetStreamWaitsForAQuorum(t *testing.T) {
	c := startStreamCluster(t)
	js := jetStreamOf(t, c.urls()[0])
	eventually(t, "the cluster can make a stream of three replicas", func() bool {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Replicas: 3})
		return err == nil
	})
	leader := c.leaderOf(js, "ORDERS")
	cfg := testConfig(t, c.urls()[leader])
	cfg.AckWait = 50 * time.Millisecond
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(durablePublish(1, "with all", ""))
	p.expectAck(2, 1)

	c.others(leader, func(member *process) { member.freeze(t) })
	resends := g.Stats().JetStreamResends
	f := durablePublish(2, "with the leader alone", "")
	f.TimeoutMs = uint32(testTimeout.Milliseconds())
	p.send(f)
	eventually(t, "two more copies are on their way", func() bool { return g.Stats().JetStreamResends >= resends+2 })
	c.others(leader, func(member *process) { member.thaw(t) })
	p.expectAck(2, 2)
	times := 0
	for _, m := range stored(t, js, "ORDERS") {
		if string(m.Data) == "with the leader alone" {
			times++
		}
	}
	if times != 1 {
		t.Errorf("stored %d times", times)
	}
}

// startStreamCluster starts a cluster whose members have JetStream.
func startStreamCluster(t testing.TB) *cluster { return startClusterOf(t, (testing.TB).TempDir) }

// leaderOf returns which member leads a stream.
func (c *cluster) leaderOf(js jetstream.JetStream, name string) (member int) {
	c.t.Helper()
	stream, err := js.Stream(c.t.Context(), name)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range c.options {
		if stream.CachedInfo().Cluster.Leader == c.options[i].Name {
			return i
		}
	}
	c.t.Fatalf("%q leads, which is none of us", stream.CachedInfo().Cluster.Leader)
	return 0
}

// others calls do for all members but one.
func (c *cluster) others(but int, do func(member *process)) {
	for i, member := range c.members {
		if i != but {
			do(member)
		}
	}
}

// Goal: while a gateway moves from one server to another, a refusal, which both bring then, counts for one copy. Method: a slow
// request keeps both connections; a responder plays the stream, and refuses one copy of a message, by what the payload says.
func TestJetStreamRefusalThatComesTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	first, second := runCluster(t, patientDuck)
	nc := responder(t, withUser(second))
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	copies := map[string]int{}
	answerWith(t, nc, "orders.new", func(m *nats.Msg) {
		refused := string(m.Data) // which copy
		if copies[refused]++; fmt.Sprint(copies[refused]) == refused {
			_ = m.Respond([]byte(streamFull))
		}
	})
	answerWith(t, nc, DefaultSubject, echo)
	cfg := testConfig(t, withUser(first))
	cfg.AckWait = 500 * time.Millisecond // a busy machine has to answer the only copy of a message before
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.awaitResponder()
	p.send(v2(codec.TypeRequest, 1, "app.slow", "x"))
	slow := <-asked
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		first.LameDuckShutdown()
	}()
	eventually(t, "the gateway has moved", func() bool { return g.Stats().LameDuckMoves == 1 })

	f := durablePublish(2, "2", "")
	f.TimeoutMs = 1500
	p.send(f)
	p.expectError(2, 2, codec.CodeTimeout, true)
	p.send(durablePublish(3, "1", ""))
	if info := p.expectError(2, 3, codec.CodeServiceError, true); fmt.Sprint(info.ServiceCode) != "10077" {
		t.Errorf("the only copy is refused: %+v", info)
	}
	if err := slow.Respond([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	p.expectOK(2, 1, "at last")
	p.expectNothingMore()
	first.Shutdown()
	<-ended
}
