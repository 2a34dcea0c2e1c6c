package codec

// Capabilities is the JSON payload of the RESPONSE_OK that answers CAPABILITIES. Encode and decode
// it with encoding/json: it is made once and then sent as it is.
type Capabilities struct {
	ProtocolVersion       int      `json:"protocol_version"`        // the newest version that is spoken
	SupportedVersions     []int    `json:"supported_versions"`      // every version byte that is understood
	SupportedMessageTypes []int    `json:"supported_message_types"` // the client frame types that are served
	MaxPayloadSize        int      `json:"max_payload_size"`        // bytes; the largest version 1 payload accepted now
	Features              []string `json:"features"`                // names of optional parts that work
}
