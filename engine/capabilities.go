package engine

import (
	"encoding/json"

	"github.com/aigroup/ipc-gateway/codec"
)

// servedTypes are the client frame types that are not answered INVALID_TYPE, ascending.
var servedTypes = []codec.Type{
	codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel,
	codec.TypePublish, codec.TypeRequest, codec.TypePing, codec.TypeCapabilities,
}

// served tells servedTypes from others.
var served = func() (table [256]bool) {
	for _, t := range servedTypes {
		table[t] = true
	}
	return table
}()

// cachedCapabilities is the answer to CAPABILITIES. It only changes with the server's max_payload.
type cachedCapabilities struct {
	maxPayload int
	json       []byte
}

// capabilitiesJSON returns the payload of the answer, valid until the next call.
func (l *loop) capabilitiesJSON() []byte {
	maxPayload := codec.FrameBytesMax - codec.HeaderBytesV1
	if server := l.link.MaxPayload(); server > 0 {
		maxPayload = min(maxPayload, server)
	}
	c := &l.capabilities
	if c.maxPayload == maxPayload {
		return c.json
	}
	types := make([]int, len(servedTypes))
	for i, t := range servedTypes {
		types[i] = int(t)
	}
	encoded, err := json.Marshal(codec.Capabilities{
		ProtocolVersion:       codec.Version2,
		SupportedVersions:     []int{codec.Version1, codec.Version2},
		SupportedMessageTypes: types,
		MaxPayloadSize:        maxPayload,
		Features:              []string{"pipelining", "correlation", "deadlines", "headers", "subjects", "publish", "no_reply", "jetstream"},
	})
	if err != nil {
		panic(err) // numbers and strings always encode
	}
	c.maxPayload, c.json = maxPayload, encoded
	return c.json
}
