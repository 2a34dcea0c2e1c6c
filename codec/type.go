package codec

// Type is the type byte of a frame. [Decode] passes on any value: which types are served is the
// engine's business.
type Type uint8

// The frame types. Those marked "gateway" are sent by the gateway alone, all others by clients;
// "v2" exists in version 2 only.
const (
	TypeTaskSubmit      Type = 0x01 // goes where the route "submit" says
	TypeTaskQuery       Type = 0x02 // goes where the route "query" says
	TypeTaskCancel      Type = 0x03 // goes where the route "cancel" says; not a protocol cancel
	TypeStreamSubscribe Type = 0x04 // a request with many replies
	TypeStreamData      Type = 0x05 // gateway: one message of a stream
	TypeStreamComplete  Type = 0x06 // gateway: the stream ended well
	TypeStreamError     Type = 0x07 // gateway: the stream ended with an error
	TypePublish         Type = 0x08 // v2: publish to the frame's subject
	TypeRequest         Type = 0x09 // v2: request to the frame's subject, one reply
	TypeCancel          Type = 0x0A // v2: give up the request or stream with this correlation id
	TypeCredit          Type = 0x0B // v2: u32 more STREAM_DATA frames are welcome
	TypeSubscribe       Type = 0x0C // v2: plain NATS subscription
	TypeResponseOK      Type = 0x10 // gateway: the answer
	TypeResponseError   Type = 0x11 // gateway: the request failed; the payload is that of AppendError
	TypePing            Type = 0xF0 // answered with PONG by the gateway itself
	TypePong            Type = 0xF1 // gateway
	TypeCapabilities    Type = 0xF2 // answered with RESPONSE_OK and a Capabilities object
)

const hexDigits = "0123456789abcdef"

// String returns the protocol's name of t, as "TASK_SUBMIT"; for an unknown type its value, as
// "0x55", for which it allocates.
func (t Type) String() string {
	switch t {
	case TypeTaskSubmit:
		return "TASK_SUBMIT"
	case TypeTaskQuery:
		return "TASK_QUERY"
	case TypeTaskCancel:
		return "TASK_CANCEL"
	case TypeStreamSubscribe:
		return "STREAM_SUBSCRIBE"
	case TypeStreamData:
		return "STREAM_DATA"
	case TypeStreamComplete:
		return "STREAM_COMPLETE"
	case TypeStreamError:
		return "STREAM_ERROR"
	case TypePublish:
		return "PUBLISH"
	case TypeRequest:
		return "REQUEST"
	case TypeCancel:
		return "CANCEL"
	case TypeCredit:
		return "CREDIT"
	case TypeSubscribe:
		return "SUBSCRIBE"
	case TypeResponseOK:
		return "RESPONSE_OK"
	case TypeResponseError:
		return "RESPONSE_ERROR"
	case TypePing:
		return "PING"
	case TypePong:
		return "PONG"
	case TypeCapabilities:
		return "CAPABILITIES"
	}
	return string([]byte{'0', 'x', hexDigits[t>>4], hexDigits[t&0xF]})
}
