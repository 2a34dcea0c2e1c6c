package engine

import (
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
)

// runCluster starts two servers that know of each other, and returns once clients are told of both.
func runCluster(t testing.TB, change func(*server.Options)) (first, second *server.Server) {
	t.Helper()
	member := func(routes ...*url.URL) *server.Server {
		return runNATS(t, func(o *server.Options) {
			o.Cluster.Name = "test"
			o.Cluster.Host, o.Cluster.Port = "127.0.0.1", server.RANDOM_PORT
			o.Routes = routes
			if change != nil {
				change(o)
			}
		})
	}
	first = member()
	second = member(&url.URL{Scheme: "nats", Host: first.ClusterAddr().String()})
	for _, s := range []*server.Server{first, second} {
		eventually(t, "the servers know of each other", func() bool {
			nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("app", "secret"))
			if err != nil {
				return false
			}
			defer nc.Close()
			return len(nc.DiscoveredServers()) == 1
		})
	}
	return first, second
}

// withUser returns the URL of a server that wants the user of runCluster's tests.
func withUser(s *server.Server) string { return "nats://app:secret@" + s.Addr().String() }

// Goal: when the only server that was configured is killed, the gateway goes to one that it was told
// of, with the credentials of the configured URL, and requests in flight are answered once. The first
// one tried counts: nothing waits for ReconnectWait.
func TestFailoverToADiscoveredServer(t *testing.T) {
	first, second := runCluster(t, func(o *server.Options) { o.Username, o.Password = "app", "secret" })
	nc := responder(t, withUser(second))
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.slow", func(m *nats.Msg) { asked <- m })

	cfg := testConfig(t, withUser(first))
	cfg.NATS.ReconnectWait = time.Minute
	cfg.NATS.ReconnectJitter = 0
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	p.awaitResponder()
	p.send(v2(codec.TypeRequest, 1, "app.slow", "x"))
	<-asked
	go first.Shutdown()
	p.expectError(2, 1, codec.CodeConnectionClosed, true)
	waitReady(t, g)
	p.send(v1(codec.TypeTaskSubmit, "after"))
	p.expectOK(1, 0, "after")
	first.WaitForShutdown()
}

// awaitResponder returns once the interest of a responder at another server has got around.
func (p *peer) awaitResponder() {
	p.t.Helper()
	eventually(p.t, "the responder at another server is reached", func() bool {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		return p.receive().Type == codec.TypeResponseOK
	})
}
