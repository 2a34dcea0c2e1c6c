package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/engine"
)

// natsServer is a NATS server in this process.
type natsServer struct{ server *server.Server }

// startServer starts one that listens on address, host:port, where port 0 is any free one.
func startServer(address string) (*natsServer, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--nats-addr: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("--nats-addr: %q is not a port", portText)
	}
	// The server itself would not say why it cannot listen.
	free, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--nats-addr: %w", err)
	}
	_ = free.Close()
	options := &server.Options{Host: host, Port: int(port), NoSigs: true, NoLog: true}
	if port == 0 {
		options.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(readyTimeout) {
		s.Shutdown()
		return nil, fmt.Errorf("NATS server: cannot listen on %s", address)
	}
	return &natsServer{s}, nil
}

func (s *natsServer) url() string { return s.server.ClientURL() }

func (s *natsServer) stop() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// slowAnswer is how long demo.slow takes.
const slowAnswer = 2 * time.Second

// startResponder answers the gateway's default subject and the demo subjects until stop is called.
func startResponder(url string) (stop func(), err error) {
	connection, err := nats.Connect(url, nats.Name("ipc-sandbox responder"))
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	err = errors.Join(
		answer(connection, engine.DefaultSubject, decide),
		answer(connection, "demo.echo", func(request *nats.Msg) *nats.Msg {
			return &nats.Msg{Data: request.Data, Header: request.Header}
		}),
		answer(connection, "demo.error", func(*nats.Msg) *nats.Msg {
			return &nats.Msg{Header: nats.Header{
				"Nats-Service-Error-Code": {"404"}, "Nats-Service-Error": {"the sandbox has no such thing"},
			}}
		}),
		answer(connection, "demo.slow", func(request *nats.Msg) *nats.Msg {
			time.Sleep(slowAnswer)
			return decide(request)
		}),
		connection.Flush(),
	)
	if err != nil {
		connection.Close()
		return nil, fmt.Errorf("responder: %w", err)
	}
	return connection.Close, nil
}

// answer subscribes to subject and answers each request on a goroutine of its own, so that a slow
// one keeps nobody waiting.
func answer(connection *nats.Conn, subject string, reply func(*nats.Msg) *nats.Msg) error {
	_, err := connection.Subscribe(subject, func(request *nats.Msg) {
		if request.Reply == "" {
			return
		}
		go func() {
			// The error would be that the sandbox stops.
			_ = request.RespondMsg(reply(request))
		}()
	})
	return err
}

// decide shows what came: the payload as JSON if it is JSON, else as text.
func decide(request *nats.Msg) *nats.Msg {
	echo := json.RawMessage(request.Data)
	if !json.Valid(echo) {
		// A string always has a JSON form.
		echo, _ = json.Marshal(string(request.Data))
	}
	payload, err := json.Marshal(struct {
		OK      bool            `json:"ok"`
		Echo    json.RawMessage `json:"echo"`
		Subject string          `json:"subject"`
		By      string          `json:"by"`
	}{true, echo, request.Subject, "ipc-sandbox"})
	if err != nil {
		payload = []byte(`{"ok":false}`)
	}
	return &nats.Msg{Data: payload}
}
