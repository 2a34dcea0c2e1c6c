package trace

// Operation is how a request was handed to NATS.
type Operation uint8

const (
	// OperationRequest waits for a reply.
	OperationRequest Operation = iota
	// OperationPublish waits for none.
	OperationPublish
	// OperationStore waits for the acknowledgement of a stream.
	OperationStore
)

// Bounds of what a span keeps of a request, in bytes.
const (
	SubjectBytesMax = 128 // more is cut off
	StateBytesMax   = 256 // a longer tracestate is passed on to NATS, but not exported
)

// Span is the gateway's span of one sampled request: a plain value, which is copied. Times are nanoseconds since 1970; 0 says
// that it did not come to that.
type Span struct {
	Context        // the gateway's own span
	Parent  SpanID // the caller's span; zero: the trace begins here

	Offset    int64 // from the loop's clock to these times: the same for all, though the clock of the day may be set meanwhile
	Read      int64 // the frame was read: the span begins
	Published int64 // the message was queued for NATS
	Written   int64 // the message was written to the connection: NATS is waited for
	Delivered int64 // the reply or the acknowledgement came
	Ended     int64 // the answer was queued for the client

	Operation     Operation
	Version       byte   // of the frame
	Loop          uint16 // its index
	UID           uint32 // the client's user
	Client        uint64 // the client's number
	CorrelationID uint64 // version 2
	PayloadBytes  uint32 // of the request
	AnswerBytes   uint32 // of the answer's frame

	Type   string // of the frame, as metrics name it
	Error  string // the name of the error that the client was answered with; empty: none
	Server string // host:port of the NATS server

	subjectBytes uint8
	stateBytes   uint16
	subject      [SubjectBytesMax]byte
	state        [StateBytesMax]byte
}

// SetSubject copies the subject, or as much of it as is kept.
func (s *Span) SetSubject(subject []byte) { s.subjectBytes = uint8(copy(s.subject[:], subject)) }

// Subject returns the subject. It borrows s.
func (s *Span) Subject() []byte { return s.subject[:s.subjectBytes] }

// SetState copies the tracestate of header lines, unless it is too long to be kept. Several are one, in their order, as W3C has it
// and HTTP for every list.
func (s *Span) SetState(headers []byte) {
	s.stateBytes = 0
	n := 0
	for len(headers) > 0 {
		line, rest := cutLine(headers)
		headers = rest
		value, is := lineValue(line, headerState)
		if !is || len(value) == 0 {
			continue
		}
		if n > 0 && n < StateBytesMax {
			s.state[n] = ','
			n++
		}
		if len(value) > StateBytesMax-n {
			return
		}
		n += copy(s.state[n:], value)
	}
	s.stateBytes = uint16(n)
}

// State returns the tracestate. It borrows s.
func (s *Span) State() []byte { return s.state[:s.stateBytes] }
