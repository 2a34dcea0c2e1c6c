package trace

import "encoding/hex"

// ID names a trace. All zeros names none.
type ID [16]byte

// SpanID names a span within a trace. All zeros names none.
type SpanID [8]byte

// String returns the id in hexadecimal digits, as a traceparent has it.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in hexadecimal digits, as a traceparent has it.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// FlagSampled is the flag of a traceparent that says that the caller records its spans.
const FlagSampled = 0x01

// Context is what a traceparent says: the trace, the caller's span in it, and the flags.
type Context struct {
	Trace ID
	Span  SpanID
	Flags byte
}

// Sampled reports whether the caller records its spans.
func (c *Context) Sampled() bool { return c.Flags&FlagSampled != 0 }

// ParentBytes is the length of the traceparent that AppendParent makes.
const ParentBytes = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")

// Offsets of the fields of a traceparent.
const (
	offsetTrace = 3
	offsetSpan  = offsetTrace + 2*len(ID{}) + 1
	offsetFlags = offsetSpan + 2*len(SpanID{}) + 1
)

// ParseParent reads the value of a traceparent, as W3C Trace Context says: of version 00 exactly its four fields, of a
// later version these and perhaps more behind another hyphen. ok is false for anything else.
func ParseParent(value []byte) (c Context, ok bool) {
	if len(value) < ParentBytes || value[offsetTrace-1] != '-' || value[offsetSpan-1] != '-' || value[offsetFlags-1] != '-' {
		return Context{}, false
	}
	var version [1]byte
	if !decodeHex(version[:], value) || version[0] == 0xFF {
		return Context{}, false
	}
	if len(value) > ParentBytes && (version[0] == 0 || value[ParentBytes] != '-') {
		return Context{}, false
	}
	var flags [1]byte
	if !decodeHex(c.Trace[:], value[offsetTrace:]) || !decodeHex(c.Span[:], value[offsetSpan:]) || !decodeHex(flags[:], value[offsetFlags:]) ||
		c.Trace == (ID{}) || c.Span == (SpanID{}) {
		return Context{}, false
	}
	c.Flags = flags[0]
	return c, true
}

// AppendParent appends the traceparent of c in version 00, of whose flags only FlagSampled is known. dst is the caller's.
func AppendParent(dst []byte, c *Context) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, c.Trace[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, c.Span[:])
	return append(dst, '-', '0', '0'+c.Flags&FlagSampled)
}

// decodeHex fills dst from the front of src, which must hold that many digits. Capital letters are none: W3C wants small ones.
func decodeHex(dst, src []byte) bool {
	for i := range dst {
		high, low := digit(src[2*i]), digit(src[2*i+1])
		if high|low > 0x0F {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// digit returns the value of a small hexadecimal digit, 0xFF if c is none.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xFF
}
