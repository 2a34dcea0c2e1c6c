package engine

import (
	"net"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/trace"
)

func noHeaders(o *server.Options) { o.NoHeaderSupport = true }

// Goal: a message with headers never reaches a server that takes none, and that would close the connection for it. Method: each
// kind of frame that has headers, or would be given some, beside a slow request in flight.
func TestHeadersForAServerThatTakesNone(t *testing.T) {
	s := runNATS(t, noHeaders)
	nc := responder(t, s.ClientURL())
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })
	answerWith(t, nc, "app.echo", echo)
	cfg := testConfig(t, s.ClientURL())
	cfg.Routes.Submit = Route{Subject: "orders.task", Mode: ModeJetStream, Timeout: testTimeout}
	cfg.Tracer, cfg.TraceSample = new(trace.Sink), 1
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.send(v2(codec.TypeRequest, 1, "app.slow", "x"))
	slow := <-asked

	withHeaders := v2(codec.TypeRequest, 2, "app.echo", "x")
	withHeaders.Headers = []byte("A: b\r\n")
	p.send(withHeaders)
	p.expectError(2, 2, codec.CodeInvalidPayload, false)
	silent := v2(codec.TypePublish, 3, "app.echo", "x")
	silent.Headers, silent.Flags = []byte("A: b\r\n"), codec.FlagNoReply
	p.send(silent)
	p.send(durablePublish(4, "x", ""))
	p.expectError(2, 4, codec.CodeInvalidPayload, false)
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectError(1, 0, codec.CodeInvalidPayload, false)
	p.send(v2(codec.TypeRequest, 5, "app.echo", "traced"))
	p.expectOK(2, 5, "traced")

	if err := slow.Respond([]byte("at last")); err != nil {
		t.Fatal(err)
	}
	p.expectOK(2, 1, "at last")
	p.expectNothingMore()
	if st := g.Stats(); st.LinkReconnects != 0 || st.JetStreamHeldBytes != 0 || st.NoReplyRefused != 1 || st.TraceSpans == 0 {
		t.Errorf("%d reconnects, %d bytes held, %d publishes without reply refused, %d spans",
			st.LinkReconnects, st.JetStreamHeldBytes, st.NoReplyRefused, st.TraceSpans)
	}
}

// Goal: a message for JetStream is given up when the server that is reached next takes no headers; it is not sent to it until its
// deadline, cutting the connection each time.
func TestJetStreamMessageForAServerThatTakesNoHeaders(t *testing.T) {
	first := runNATS(t, nil)
	asked := make(chan *nats.Msg, 1)
	answerWith(t, responder(t, first.ClientURL()), "orders.new", func(m *nats.Msg) { asked <- m })
	g := runGateway(t, testConfig(t, first.ClientURL()))
	waitReady(t, g)
	p := dial(t, g)
	p.send(durablePublish(1, "x", ""))
	<-asked
	port := first.Addr().(*net.TCPAddr).Port
	first.Shutdown()
	first.WaitForShutdown()
	runNATS(t, func(o *server.Options) { noHeaders(o); o.Port = port })
	p.expectError(2, 1, codec.CodeInvalidPayload, true)
	p.expectNothingMore()
	if st := g.Stats(); st.LinkReconnects != 1 || st.JetStreamHeldBytes != 0 {
		t.Errorf("%d reconnects, %d bytes held", st.LinkReconnects, st.JetStreamHeldBytes)
	}
}
