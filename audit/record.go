package audit

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Kinds of records: the first byte of a body.
const (
	kindHead     byte = 1
	kindRequest  byte = 2
	kindOutcome  byte = 3
	kindAnswered byte = 4
	kindGap      byte = 5
	kindEnd      byte = 6
)

const (
	magic = "IPCAUD03"

	frameBytes    = 8       // length and checksum
	requestBytes  = 112     // the fixed part of a body, without subject, headers and payload
	outcomeBytes  = 24      // a body
	gapBytes      = 24      // a body
	headBytes     = 40      // a body without parents
	parentBytes   = 40      // one of them
	endBytes      = 72      // a body
	hashBytes     = 32      // SHA-256
	parentsMax    = 64      // of a segment
	bodyBytesMax  = 8 << 20 // above the largest request: what states more is no record
	runBytes      = 16
	endHashOffset = endBytes - hashBytes

	subjectBytesMax = 1<<16 - 1
)

// Flags of a request.
const (
	// FlagNoReply: its client wanted no answer.
	FlagNoReply byte = 1 << iota
	// FlagRouted: its frame named no subject; it is that of a route of the gateway.
	FlagRouted
	// FlagRecorded: headers and payload were to be recorded.
	FlagRecorded
)

// CodeAbandoned is the outcome of a request whose client went away before the answer. All others are those of the protocol:
// 0 for success, else the code of the error.
const CodeAbandoned byte = 255

// Request is what the log says of a request when it comes. Subject, Headers and Payload are borrowed: from the caller by
// the methods of [Ring], from the reader's buffer in what a reader hands out.
type Request struct {
	Time          int64  // nanoseconds since 1970
	ID            uint64 // no other request of the loop that is in flight has it
	Client        uint64
	CorrelationID uint64
	UID, GID      uint32
	PID           int32
	TimeoutMs     uint32
	Loop          uint16
	Version       byte
	Type          byte
	Flags         byte
	TraceID       [16]byte // all zero: none
	SpanID        [8]byte  // the gateway's span if the request is sampled, else the caller's; all zero: none
	HeaderBytes   uint32   // as they came
	PayloadBytes  uint32
	Subject       []byte
	Headers       []byte // as far as they are recorded
	Payload       []byte
}

// Outcome is what the log says of a request when it is over.
type Outcome struct {
	Code        byte
	AnswerBytes uint32 // the frame of the answer
	Duration    int64  // nanoseconds
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the checksum of a framed record.
func checksum(framed []byte) uint32 {
	return crc32.Update(crc32.Checksum(framed[:4], crcTable), crcTable, framed[frameBytes:])
}

// seal puts the checksum into a framed record.
func seal(framed []byte) { binary.BigEndian.PutUint32(framed[4:], checksum(framed)) }

// putRequest fills the frame, without its checksum, and the fixed part of a request of either kind into b. Lengths are those of r.
func putRequest(b *[frameBytes + requestBytes]byte, kind byte, r *Request, o *Outcome) {
	be := binary.BigEndian
	be.PutUint32(b[0:], uint32(requestBytes+len(r.Subject)+len(r.Headers)+len(r.Payload)))
	be.PutUint32(b[4:], 0)
	body := b[frameBytes:]
	_ = body[requestBytes-1]
	body[0], body[1], body[2], body[3] = kind, r.Version, r.Type, r.Flags
	be.PutUint16(body[4:], r.Loop)
	be.PutUint16(body[6:], uint16(len(r.Subject)))
	be.PutUint64(body[8:], r.ID)
	be.PutUint64(body[16:], uint64(r.Time))
	be.PutUint64(body[24:], r.Client)
	be.PutUint64(body[32:], r.CorrelationID)
	be.PutUint32(body[40:], r.UID)
	be.PutUint32(body[44:], r.GID)
	be.PutUint32(body[48:], uint32(r.PID))
	be.PutUint32(body[52:], r.TimeoutMs)
	be.PutUint32(body[56:], r.HeaderBytes)
	be.PutUint32(body[60:], r.PayloadBytes)
	copy(body[64:80], r.TraceID[:])
	be.PutUint32(body[80:], uint32(len(r.Headers)))
	be.PutUint32(body[84:], o.AnswerBytes)
	be.PutUint64(body[88:], uint64(o.Duration))
	be.PutUint64(body[96:], uint64(o.Code)<<56)
	copy(body[104:112], r.SpanID[:])
}

// putOutcome fills a record, without its checksum, into b.
func putOutcome(b *[frameBytes + outcomeBytes]byte, loop uint16, id uint64, o *Outcome) {
	be := binary.BigEndian
	be.PutUint32(b[0:], outcomeBytes)
	be.PutUint32(b[4:], 0)
	body := b[frameBytes:]
	_ = body[outcomeBytes-1]
	body[0], body[1] = kindOutcome, o.Code
	be.PutUint16(body[2:], loop)
	be.PutUint32(body[4:], o.AnswerBytes)
	be.PutUint64(body[8:], id)
	be.PutUint64(body[16:], uint64(o.Duration))
}

// appendRecord appends a whole record with this body.
func appendRecord(dst, body []byte) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, body...)
	seal(dst[at:])
	return dst
}

func appendGap(dst []byte, loop uint16, time int64, requests uint64) []byte {
	be := binary.BigEndian
	var body [gapBytes]byte
	body[0] = kindGap
	be.PutUint16(body[2:], loop)
	be.PutUint64(body[8:], uint64(time))
	be.PutUint64(body[16:], requests)
	return appendRecord(dst, body[:])
}

// parent is a segment that another one continues.
type parent struct {
	number uint64
	hash   [hashBytes]byte
}

// head is the first record of a segment.
type head struct {
	number  uint64
	time    int64
	pid     uint32
	run     [runBytes]byte
	parents []parent
}

func appendHead(dst []byte, h *head) []byte {
	be := binary.BigEndian
	body := make([]byte, headBytes, headBytes+len(h.parents)*parentBytes)
	body[0] = kindHead
	be.PutUint16(body[2:], uint16(len(h.parents)))
	be.PutUint32(body[4:], h.pid)
	be.PutUint64(body[8:], h.number)
	be.PutUint64(body[16:], uint64(h.time))
	copy(body[24:], h.run[:])
	for i := range h.parents {
		body = be.AppendUint64(body, h.parents[i].number)
		body = append(body, h.parents[i].hash[:]...)
	}
	return appendRecord(dst, body)
}

// closing says who closed a segment, and what was found then: bits. 0: its own process did.
type closing byte

const (
	// closedLater: a later process did, after a kill.
	closedLater closing = 1 << iota
	// closedCorrupt: it cut off bytes that are no torn record, as a kill leaves it. They are kept beside the segment.
	closedCorrupt
	// closedTwice: the segment had been closed by its own process, and had lost that end since.
	closedTwice
	closingBits = iota
)

// end is the last record of a closed segment.
type end struct {
	closing closing
	cut     uint32 // bytes that a later process cut off
	time    int64
	records uint64 // before this one
	// run is that of the head. No client knows it: one whose payload is the last that was recorded cannot end a segment with that.
	run  [runBytes]byte
	hash [hashBytes]byte
}

// body returns the body of e, with its hash as far as e has one.
func (e *end) body() (body [endBytes]byte) {
	be := binary.BigEndian
	body[0], body[1] = kindEnd, byte(e.closing)
	be.PutUint32(body[4:], e.cut)
	be.PutUint64(body[8:], uint64(e.time))
	be.PutUint64(body[16:], e.records)
	copy(body[24:], e.run[:])
	copy(body[endHashOffset:], e.hash[:])
	return body
}

// errRecord says that a body, whose checksum is right, is none that this version knows.
var errRecord = errors.New("audit: the record is of no kind that this version knows, or has a wrong length")

func decodeHead(body []byte) (h head, err error) {
	be := binary.BigEndian
	if len(body) < headBytes || body[0] != kindHead {
		return h, errRecord
	}
	count := int(be.Uint16(body[2:]))
	if count > parentsMax || len(body) != headBytes+count*parentBytes {
		return h, errRecord
	}
	h.pid, h.number, h.time = be.Uint32(body[4:]), be.Uint64(body[8:]), int64(be.Uint64(body[16:]))
	copy(h.run[:], body[24:])
	for rest := body[headBytes:]; len(rest) > 0; rest = rest[parentBytes:] {
		p := parent{number: be.Uint64(rest)}
		copy(p.hash[:], rest[8:])
		h.parents = append(h.parents, p)
	}
	return h, nil
}

func decodeEnd(body []byte) (e end, err error) {
	be := binary.BigEndian
	if len(body) != endBytes || body[0] != kindEnd || body[1] >= 1<<closingBits {
		return e, errRecord
	}
	e = end{closing: closing(body[1]), cut: be.Uint32(body[4:]), time: int64(be.Uint64(body[8:])), records: be.Uint64(body[16:])}
	copy(e.run[:], body[24:])
	copy(e.hash[:], body[endHashOffset:])
	return e, nil
}

// decodeRequest decodes a request of either kind, which borrows body. The outcome of one that was taken into flight is zero.
func decodeRequest(body []byte) (r Request, o Outcome, err error) {
	be := binary.BigEndian
	if len(body) < requestBytes {
		return r, o, errRecord
	}
	r = Request{
		Version: body[1], Type: body[2], Flags: body[3], Loop: be.Uint16(body[4:]), ID: be.Uint64(body[8:]),
		Time: int64(be.Uint64(body[16:])), Client: be.Uint64(body[24:]), CorrelationID: be.Uint64(body[32:]),
		UID: be.Uint32(body[40:]), GID: be.Uint32(body[44:]), PID: int32(be.Uint32(body[48:])), TimeoutMs: be.Uint32(body[52:]),
		HeaderBytes: be.Uint32(body[56:]), PayloadBytes: be.Uint32(body[60:]), TraceID: [16]byte(body[64:80]),
		SpanID: [8]byte(body[104:112]),
	}
	o = Outcome{Code: body[96], AnswerBytes: be.Uint32(body[84:]), Duration: int64(be.Uint64(body[88:]))}
	subject, headers := int(be.Uint16(body[6:])), be.Uint32(body[80:])
	rest := body[requestBytes:]
	if subject > len(rest) || uint64(headers) > uint64(len(rest)-subject) {
		return r, o, errRecord
	}
	r.Subject, rest = rest[:subject], rest[subject:]
	r.Headers, r.Payload = rest[:headers], rest[headers:]
	return r, o, nil
}

func decodeOutcome(body []byte) (loop uint16, id uint64, o Outcome, err error) {
	be := binary.BigEndian
	if len(body) != outcomeBytes {
		return 0, 0, o, errRecord
	}
	o = Outcome{Code: body[1], AnswerBytes: be.Uint32(body[4:]), Duration: int64(be.Uint64(body[16:]))}
	return be.Uint16(body[2:]), be.Uint64(body[8:]), o, nil
}

// Gap says that requests of a loop are not in the log.
type Gap struct {
	Time     int64 // when it ended, nanoseconds since 1970
	Loop     uint16
	Requests uint64
}

func decodeGap(body []byte) (Gap, error) {
	be := binary.BigEndian
	if len(body) != gapBytes {
		return Gap{}, errRecord
	}
	return Gap{Loop: be.Uint16(body[2:]), Time: int64(be.Uint64(body[8:])), Requests: be.Uint64(body[16:])}, nil
}
