package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// controlTimeout bounds one exchange with the control socket. The server waits for its loops less than that.
const controlTimeout = 10 * time.Second

// controlFlags are the flags of every command for the operator of a running gateway.
type controlFlags struct {
	gatewayFlags
	ControlSocket string `placeholder:"PATH" help:"The gateway's control socket [the path of --socket with .ctl at its end] ($$IPC_CONTROL_SOCKET)."`
}

// path returns where the gateway's control socket is.
func (f *controlFlags) path(a *app) (string, error) {
	path := f.ControlSocket
	if path == "" && f.Socket == "" {
		_, path, _ = a.env("IPC_CONTROL_SOCKET")
	}
	if path == controlOff {
		return "", usageErrorf("IPC_CONTROL_SOCKET says that the gateway has no control socket: name one with --control-socket")
	}
	if path == "" {
		path = f.gatewayFlags.path(a) + control.SocketSuffix
	}
	return path, engine.CheckSocketPath(path)
}

// controlError is an error that the gateway answered with.
type controlError struct{ message string }

func (e *controlError) Error() string { return e.message }

// open sends a request to the control socket and returns the answer, whose body the caller closes.
func (f *controlFlags) open(ctx context.Context, a *app, method, target string) (*http.Response, error) {
	path, err := f.path(a)
	if err != nil {
		return nil, err
	}
	response, err := control.Do(ctx, path, method, target)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("the gateway at %s does not answer in time: its process is stopped, or stuck", path)
	}
	if err != nil {
		var dialed *net.OpError
		if errors.As(err, &dialed) {
			err = dialed
		}
		return nil, fmt.Errorf("no gateway answers at %s: %w; name its socket with --socket, or its control socket with --control-socket", path, err)
	}
	return response, nil
}

// call sends a request to the control socket and reads the answer into v. If the answer is an error that is
// a *controlError, and v holds what came with it.
func (f *controlFlags) call(a *app, method, target string, v any) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	response, err := f.open(ctx, a, method, target)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("the gateway ended in the middle of its answer: %w", err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		var problem struct{ Error string }
		if json.Unmarshal(body, &problem) != nil || problem.Error == "" {
			problem.Error = fmt.Sprintf("the gateway answers with %s: %.200s", response.Status, body)
		}
		err = &controlError{problem.Error}
	}
	if unreadable := json.Unmarshal(body, v); unreadable != nil && err == nil {
		err = fmt.Errorf("the gateway's answer cannot be read: %w", unreadable)
	}
	return err
}
