package codec

import (
	"encoding/binary"
	"errors"
)

// The version bytes. They are untyped so that they also fit the numbers of [Capabilities].
const (
	Version1 = 0x01
	Version2 = 0x02
)

// Sizes, in bytes.
const (
	HeaderBytesV1 = 6  // the fixed header of a version 1 frame
	HeaderBytesV2 = 24 // the fixed header of a version 2 frame, without subject and headers

	FrameBytesMax   = 4 << 20   // a whole frame of either version, its header included
	SubjectBytesMax = 1<<16 - 1 // the subject of a version 2 frame: its length is a u16
	HeadersBytesMax = 1<<16 - 1 // the headers of a version 2 frame: their length is a u16
)

// FlagNoReply asks for no answer at all, not even an error. It goes with PUBLISH only.
const FlagNoReply uint16 = 0x0001

// Offsets of the fields of the fixed headers.
const (
	offsetVersion       = 4
	offsetType          = 5
	offsetFlags         = 6
	offsetCorrelationID = 8
	offsetTimeout       = 16
	offsetSubjectBytes  = 20
	offsetHeadersBytes  = 22

	lengthBytes = 4 // the length field, which is all that FrameBytes reads
)

// Errors of [Decode].
var (
	// ErrVersion: the fifth byte is neither Version1 nor Version2. Fatal: nothing that follows can
	// be understood. Answer INVALID_VERSION and close.
	ErrVersion = errors.New("codec: version byte is neither 1 nor 2")
	// ErrTooShort: the stated length is less than the fixed header of the version. Fatal: where the
	// next frame begins is unknown. Answer INVALID_PAYLOAD and close.
	ErrTooShort = errors.New("codec: stated length is shorter than the frame's header")
	// ErrTooLarge: the stated length is over FrameBytesMax. Fatal: the frame is not worth reading.
	// Answer FRAME_TOO_LARGE and close.
	ErrTooLarge = errors.New("codec: stated length is over 4194304 bytes")
	// ErrMalformed: a whole version 2 frame is shorter than its subject and headers together claim.
	// The next frame's place is known: answer INVALID_PAYLOAD, skip n bytes, go on.
	ErrMalformed = errors.New("codec: subject and headers exceed the frame")
)

// Frame is one frame of either version. Version 1 has Version, Type and Payload alone; the other
// fields are zero.
type Frame struct {
	Version       byte   // Version1 or Version2
	Type          Type   // any value: Decode does not judge it
	Flags         uint16 // FlagNoReply, and bits that have no meaning yet
	CorrelationID uint64 // chosen by the client, echoed in the answer
	TimeoutMs     uint32 // milliseconds; 0: the route's default

	Subject []byte // borrows Decode's src; empty: the route's
	Headers []byte // borrows Decode's src; "Name: value\r\n" lines, not validated by Decode
	Payload []byte // borrows Decode's src
}

// Decode reads one frame from the front of src. n is the length of the frame in bytes; n == 0 with
// a nil error means that src holds only a part of it: call again with more.
//
// f borrows src: its slices are valid as long as src is left alone. Copy what must outlive that.
//
// With [ErrMalformed] the frame was whole, n is its length, and f has Version, Type, Flags and
// CorrelationID, all that is needed to answer it.
//
// [ErrVersion], [ErrTooShort] and [ErrTooLarge] are fatal, n is 0: the connection ends after the
// answer. f.Version says in which layout to answer, f.CorrelationID what to echo (0 if it did not
// arrive), f.Type is set if it is known. They are reported as soon as they are certain, except
// that in version 2 the correlation id is waited for, as long as the stated length includes it.
//
// Decode does not judge types, flags, subjects and headers, and does not allocate.
func Decode(src []byte) (f Frame, n int, err error) {
	if len(src) < lengthBytes {
		return Frame{}, 0, nil
	}
	length := binary.BigEndian.Uint32(src)
	if length < HeaderBytesV1 {
		return Frame{Version: Version1}, 0, ErrTooShort
	}
	if len(src) <= offsetVersion {
		return Frame{}, 0, nil
	}
	switch src[offsetVersion] {
	case Version1:
		return decodeV1(src, length)
	case Version2:
		return decodeV2(src, length)
	}
	return Frame{Version: Version1}, 0, ErrVersion
}

func decodeV1(src []byte, length uint32) (Frame, int, error) {
	if length > FrameBytesMax {
		f := Frame{Version: Version1}
		if len(src) > offsetType {
			f.Type = Type(src[offsetType])
		}
		return f, 0, ErrTooLarge
	}
	n := int(length)
	if len(src) < n {
		return Frame{}, 0, nil
	}
	return Frame{Version: Version1, Type: Type(src[offsetType]), Payload: src[HeaderBytesV1:n:n]}, n, nil
}

func decodeV2(src []byte, length uint32) (Frame, int, error) {
	if length < HeaderBytesV2 || length > FrameBytesMax {
		return rejectV2(src, length)
	}
	n := int(length)
	if len(src) < n {
		return Frame{}, 0, nil
	}
	f := Frame{
		Version:       Version2,
		Type:          Type(src[offsetType]),
		Flags:         binary.BigEndian.Uint16(src[offsetFlags:]),
		CorrelationID: binary.BigEndian.Uint64(src[offsetCorrelationID:]),
	}
	headers := HeaderBytesV2 + int(binary.BigEndian.Uint16(src[offsetSubjectBytes:]))
	payload := headers + int(binary.BigEndian.Uint16(src[offsetHeadersBytes:]))
	if payload > n {
		return f, n, ErrMalformed
	}
	f.TimeoutMs = binary.BigEndian.Uint32(src[offsetTimeout:])
	f.Subject = src[HeaderBytesV2:headers:headers]
	f.Headers = src[headers:payload:payload]
	f.Payload = src[payload:n:n]
	return f, n, nil
}

// rejectV2 says what is wrong with a length that no version 2 frame can have. It waits for the
// correlation id, so that the answer can be matched with the request; a length that does not reach
// to the end of the id promises none, and is answered with id 0.
func rejectV2(src []byte, length uint32) (Frame, int, error) {
	need, reason := offsetTimeout, ErrTooLarge
	if length < HeaderBytesV2 {
		reason = ErrTooShort
	}
	if length < offsetTimeout {
		need = HeaderBytesV1
	}
	if len(src) < need {
		return Frame{}, 0, nil
	}
	f := Frame{Version: Version2, Type: Type(src[offsetType])}
	if need == offsetTimeout {
		f.Flags = binary.BigEndian.Uint16(src[offsetFlags:])
		f.CorrelationID = binary.BigEndian.Uint64(src[offsetCorrelationID:])
	}
	return f, 0, reason
}

// PartialHeader returns what the first bytes of a frame, of which [Decode] wanted more, say about how to answer it:
// Version, which is 1 until it arrived, and as far as they arrived Type and CorrelationID.
func PartialHeader(src []byte) Frame {
	f := Frame{Version: Version1}
	if len(src) > offsetType {
		f.Type = Type(src[offsetType])
	}
	if len(src) > offsetVersion && src[offsetVersion] == Version2 {
		f.Version = Version2
		if len(src) >= offsetTimeout {
			f.CorrelationID = binary.BigEndian.Uint64(src[offsetCorrelationID:])
		}
	}
	return f
}

// FrameBytes returns the stated length, in bytes, of the frame at the front of src, and 0 while
// fewer than 4 bytes are there. It does not validate: the number may be anything a u32 can be.
func FrameBytes(src []byte) int {
	if len(src) < lengthBytes {
		return 0
	}
	return int(binary.BigEndian.Uint32(src))
}
