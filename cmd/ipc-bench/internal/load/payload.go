package load

import (
	"bytes"
	"strconv"
)

// Payloads are text, and from payloadBytesJSON on valid JSON, since that is what services behind a gateway read. The
// mark in them numbers the connection and the request, so that an answer that went astray is noticed.
const (
	markBytes        = 16 // hexadecimal digits: 4 of the connection, 12 of the request
	payloadFront     = `{"n":"`
	payloadMiddle    = `","x":"`
	payloadBack      = `"}`
	payloadBytesJSON = len(payloadFront) + markBytes + len(payloadMiddle) + len(payloadBack)
)

// payload makes the payloads of one connection's requests. All but the mark stays the same.
type payload struct {
	bytes []byte
	mark  []byte // in bytes; of a very short payload the last digits only
}

func newPayload(connection, size int) payload {
	p := payload{bytes: bytes.Repeat([]byte{'a'}, size)}
	if size >= payloadBytesJSON {
		copy(p.bytes, payloadFront)
		copy(p.bytes[len(payloadFront)+markBytes:], payloadMiddle)
		copy(p.bytes[size-len(payloadBack):], payloadBack)
		p.mark = p.bytes[len(payloadFront):][:markBytes]
	} else {
		p.mark = p.bytes[:min(size, markBytes)]
	}
	p.set(uint64(connection) << 48)
	return p
}

// of returns the payload of a connection's request seq, valid until the next call.
func (p *payload) of(connection int, seq uint64) []byte {
	p.set(markOf(connection, seq))
	return p.bytes
}

// markOf numbers a request among those of all connections.
func markOf(connection int, seq uint64) uint64 { return uint64(connection)<<48 | seq&(1<<48-1) }

// markIn returns the mark of a payload like p in an answer, ours or that of another request; false: there is none. Payloads
// that are shorter than a mark have none to find.
func (p *payload) markIn(answer []byte) (mark uint64, found bool) {
	text := answer
	if len(p.bytes) >= payloadBytesJSON {
		front := bytes.Index(answer, []byte(payloadFront))
		if front < 0 {
			return 0, false
		}
		text = answer[front+len(payloadFront):]
		if !bytes.HasPrefix(text[min(markBytes, len(text)):], []byte(payloadMiddle)) {
			return 0, false
		}
	} else if len(p.mark) < markBytes || len(answer) != len(p.bytes) || !bytes.Equal(answer[markBytes:], p.bytes[markBytes:]) {
		return 0, false
	}
	mark, err := strconv.ParseUint(string(text[:markBytes]), 16, 64)
	return mark, err == nil
}

func (p *payload) set(mark uint64) {
	const digits = "0123456789abcdef"
	for i := len(p.mark) - 1; i >= 0; i-- {
		p.mark[i] = digits[mark&15]
		mark >>= 4
	}
}
