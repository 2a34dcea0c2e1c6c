package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
)

// gatewayFlags are the flags of every command that talks to a running gateway.
type gatewayFlags struct {
	Socket string `placeholder:"PATH" help:"The gateway's Unix socket [/tmp/beamline-gateway.sock] ($$IPC_SOCKET_PATH)."`
}

// path returns --socket, else where the environment says that serve would be.
func (f *gatewayFlags) path(a *app) string {
	if f.Socket != "" {
		return f.Socket
	}
	if _, path, ok := a.env("IPC_SOCKET_PATH", "CGW_IPC_SOCKET_PATH"); ok {
		return path
	}
	return engine.DefaultConfig().SocketPath
}

// connect dials the gateway.
func (f *gatewayFlags) connect(a *app) (*client.Conn, string, error) {
	path := f.path(a)
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := client.Dial(ctx, path)
	return conn, path, err
}

const (
	// dialTimeout bounds the wait for a place in the socket's backlog.
	dialTimeout = 5 * time.Second
	// answerTimeout bounds the wait for what the gateway answers by itself, without NATS.
	answerTimeout = 5 * time.Second
)

// answerError is the error that an answer stands for: nil unless it is a RESPONSE_ERROR, or of a
// type that does not answer the request at all.
func answerError(answer *codec.Frame, want codec.Type) error {
	switch answer.Type {
	case want:
		return nil
	case codec.TypeResponseError:
		info, err := codec.ParseError(answer.Payload)
		if err != nil {
			return fmt.Errorf("an error answer that cannot be read: %q", answer.Payload)
		}
		return errors.New(describe(info))
	}
	return fmt.Errorf("a %s frame came where %s was expected", answer.Type, want)
}

// describe tells the error of a RESPONSE_ERROR to a human.
func describe(info codec.ErrorInfo) string {
	text := fmt.Sprintf("%s (%d): %s", info.Name, info.Code, info.Message)
	if info.ServiceCode != nil {
		text += fmt.Sprintf("; service code %v", info.ServiceCode)
	}
	if info.Retryable {
		text += "; may be tried again"
	}
	if info.RetryAfterMs != 0 {
		text += fmt.Sprintf(" in %v", time.Duration(info.RetryAfterMs)*time.Millisecond)
	}
	if info.Sent {
		return text + "; it may have reached NATS"
	}
	return text + "; it did not reach NATS"
}
