// Package codec reads and writes the frames of the gateway's wire protocol, and judges what a
// frame wants to pass on to NATS. It knows nobody else in this module.
//
// # Wire format
//
// A stream socket carries frames in both directions, one after another without anything between
// them. All integers are big-endian. The version byte says how the rest of a frame is read; both
// versions may be mixed on one connection. A frame is 4,194,304 bytes long at most, header included.
//
// Version 1:
//
//	offset  bytes     field
//	0       4         length of the whole frame, these 6 bytes included
//	4       1         version, 0x01
//	5       1         type
//	6       length-6  payload
//
// Version 2:
//
//	offset  bytes     field
//	0       4         length of the whole frame, header included
//	4       1         version, 0x02
//	5       1         type
//	6       2         flags: 0x0001 NO_REPLY; all other bits 0
//	8       8         correlation id, chosen by the client, echoed in the answer
//	16      4         timeout in milliseconds; 0: the route's default; 0 in answers
//	20      2         S, the length of the subject
//	22      2         H, the length of the headers
//	24      S         subject; empty: the route of this type
//	24+S    H         headers: lines of "Name: value\r\n"
//	24+S+H  the rest  payload
//
// Types:
//
//	0x01 TASK_SUBMIT   0x05 STREAM_DATA      0x09 REQUEST    0x10 RESPONSE_OK
//	0x02 TASK_QUERY    0x06 STREAM_COMPLETE  0x0A CANCEL     0x11 RESPONSE_ERROR
//	0x03 TASK_CANCEL   0x07 STREAM_ERROR     0x0B CREDIT     0xF0 PING
//	0x04 STREAM_       0x08 PUBLISH          0x0C SUBSCRIBE  0xF1 PONG
//	     SUBSCRIBE                                           0xF2 CAPABILITIES
//
// What the types mean is in docs/protocol.md. The files in testdata are test vectors for
// implementations in other languages.
//
// # What is wrong with a frame
//
//	found as soon as          wrong                                   Decode        answered in
//	4 bytes are there         length < 6                              ErrTooShort   version 1
//	5 bytes                   version is neither 1 nor 2              ErrVersion    version 1
//	5 bytes                   version 1, length > 4,194,304           ErrTooLarge   version 1
//	6 bytes                   version 2, length < 16                  ErrTooShort   version 2, id 0
//	16 bytes                  version 2, length < 24                  ErrTooShort   version 2, its id
//	16 bytes                  version 2, length > 4,194,304           ErrTooLarge   version 2, its id
//	the whole frame is there  version 2, 24+S+H > length              ErrMalformed  version 2, its id
//
// All but ErrMalformed leave no way to find the next frame, and end the connection.
//
// # Ownership
//
// [Decode] borrows its input: the slices of a [Frame] point into it. The Append functions write to
// the caller's slice, keep nothing of what they are given, and allocate only if that slice lacks
// the capacity. [ValidateSubject] and [ValidateHeaders] do not allocate. Only what is off the data
// path does: [ErrorCodes], [ParseError], and [Type.String] of an unknown type.
package codec
