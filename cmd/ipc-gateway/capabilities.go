package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// capabilitiesCommand asks a gateway what it can do.
type capabilitiesCommand struct {
	gatewayFlags
}

// Help is what "capabilities --help" says before the flags.
func (c *capabilitiesCommand) Help() string {
	return `Prints the versions of the wire protocol, the frame types as numbers, the largest payload, and the features, as the gateway itself lists them.

Example:

    ipc-gateway capabilities | jq .max_payload_size`
}

// Run prints the gateway's answer, indented.
func (c *capabilitiesCommand) Run(a *app) error {
	conn, _, err := c.connect(a)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	answer, err := conn.Do(&codec.Frame{Version: codec.Version2, Type: codec.TypeCapabilities, CorrelationID: 1})
	if err != nil {
		return err
	}
	if err := answerError(&answer, codec.TypeResponseOK); err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, answer.Payload, "", "  "); err != nil {
		return fmt.Errorf("the gateway's answer is no JSON: %w", err)
	}
	_, err = fmt.Fprintln(a.stdout, pretty.String())
	return err
}
