package main

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// controlOff is the path that means no control socket.
const controlOff = "off"

// controlPath returns where the control socket is, or controlOff.
func (o *options) controlPath() string {
	if o.control != "" {
		return o.control
	}
	return o.engine.SocketPath + control.SocketSuffix
}

func (s *service) controlPath() string {
	if s.control == nil && s.succession.from == nil {
		return controlOff
	}
	return s.options.controlPath()
}

// listenControl makes the control socket; nil: there is none. Where nobody has named a path, and there
// cannot be a socket at the default one, the gateway does without.
func listenControl(o *options, log *slog.Logger) (*engine.SocketFile, error) {
	path := o.controlPath()
	if path == controlOff {
		return nil, nil
	}
	if o.control == "" {
		if err := engine.CheckSocketPath(path); err != nil {
			log.Warn("there is no control socket: name a path with --control-socket", "reason", err)
			return nil, nil
		}
	}
	socket, err := control.Listen(path)
	if o.control == "" && errors.Is(err, fs.ErrPermission) {
		log.Warn("there is no control socket: name a path with --control-socket", "reason", err)
		return nil, nil
	}
	return socket, err
}
