package codec

import "encoding/binary"

// AppendFrame appends f to dst, in the layout that f.Version says, and returns the extended slice.
// It keeps nothing of f and allocates only if dst lacks the capacity.
//
// It panics if f cannot be represented: an unknown version; a version 1 frame with anything but
// type and payload; subject or headers over their maximum; a frame over FrameBytesMax. Those are
// mistakes of the caller, which would otherwise reach the peer as a frame that says something else.
func AppendFrame(dst []byte, f *Frame) []byte {
	switch f.Version {
	case Version1:
		if f.Flags != 0 || f.CorrelationID != 0 || f.TimeoutMs != 0 || len(f.Subject) != 0 || len(f.Headers) != 0 {
			panic("codec: a version 1 frame has type and payload alone")
		}
		dst = AppendHeaderV1(dst, f.Type, len(f.Payload))
	case Version2:
		dst = AppendHeaderV2(dst, f, len(f.Payload))
	default:
		panic("codec: frame version is neither 1 nor 2")
	}
	return append(dst, f.Payload...)
}

// AppendHeaderV1 appends the header of a version 1 frame to dst; the caller appends payloadBytes of
// payload. It panics if the whole frame would be over FrameBytesMax.
func AppendHeaderV1(dst []byte, t Type, payloadBytes int) []byte {
	if payloadBytes < 0 || payloadBytes > FrameBytesMax-HeaderBytesV1 {
		panic("codec: the payload does not fit a version 1 frame")
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(HeaderBytesV1+payloadBytes))
	return append(dst, Version1, byte(t))
}

// AppendHeaderV2 appends the fixed header, the subject and the headers of f to dst as a version 2
// frame, whatever f.Version and f.Payload are; the caller appends payloadBytes of payload. It
// panics if the subject, the headers or the whole frame would be over their maximum.
func AppendHeaderV2(dst []byte, f *Frame, payloadBytes int) []byte {
	if len(f.Subject) > SubjectBytesMax || len(f.Headers) > HeadersBytesMax {
		panic("codec: subject or headers are over 65535 bytes")
	}
	front := HeaderBytesV2 + len(f.Subject) + len(f.Headers)
	if payloadBytes < 0 || payloadBytes > FrameBytesMax-front {
		panic("codec: the payload does not fit a version 2 frame")
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(front+payloadBytes))
	dst = append(dst, Version2, byte(f.Type))
	dst = binary.BigEndian.AppendUint16(dst, f.Flags)
	dst = binary.BigEndian.AppendUint64(dst, f.CorrelationID)
	dst = binary.BigEndian.AppendUint32(dst, f.TimeoutMs)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.Subject)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.Headers)))
	dst = append(dst, f.Subject...)
	return append(dst, f.Headers...)
}
