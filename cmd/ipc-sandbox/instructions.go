package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/aigroup/ipc-gateway/engine"
)

const instructionsText = `The sandbox runs. Copy a line into another terminal:

  a request, answered by the responder on {{subject}}
    {{gateway}} send --socket {{socket}} '{"task":"hello"}'

  the same from Python, without any library
    python3 -c 'import socket,struct; s=socket.socket(socket.AF_UNIX); s.connect("{{socket}}"); p=b"{\"task\":\"hello\"}"; s.sendall(struct.pack(">IBB",6+len(p),1,1)+p); print(s.recv(65536)[6:].decode())'

  any subject, with headers there and back; an error; a slow one
    {{gateway}} send --socket {{socket}} --type request --subject demo.echo -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' -v hello
    {{gateway}} send --socket {{socket}} --type request --subject demo.error hello
    {{gateway}} send --socket {{socket}} --type request --subject demo.slow --timeout 500ms hello

  round trips to the gateway itself
    {{gateway}} ping --socket {{socket}}

  who is connected (also links, routes, breakers, config, errors, status)
    {{gateway}} show clients --socket {{socket}}

  what the gateway counted
    curl -s http://{{probe}}/metrics | grep ^ipc_

  NATS itself: {{nats}}

Ctrl-C ends it.
`

// instructions are the lines to copy, with the places of this run.
func instructions(socket, natsURL, probe string) string {
	return strings.NewReplacer(
		"{{gateway}}", gatewayProgram(),
		"{{socket}}", socket,
		"{{subject}}", engine.DefaultSubject,
		"{{probe}}", probe,
		"{{nats}}", natsURL,
	).Replace(instructionsText)
}

// gatewayProgram is how to call ipc-gateway from a shell: where it stands beside this program, as
// after "make build", with its path, else by name.
func gatewayProgram() string {
	const name = "ipc-gateway"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(beside); err != nil {
		return name
	}
	return beside
}
