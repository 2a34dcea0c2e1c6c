package upstream

import (
	"bytes"
	"errors"
)

// ErrProtocol is returned for bytes that no NATS server sends. The connection is beyond repair.
var ErrProtocol = errors.New("upstream: not the NATS protocol")

const (
	// lineBytesMax bounds a protocol line. INFO is the longest: it lists every server of a cluster.
	lineBytesMax = 1 << 20
	// messageBytesMax bounds a message: nats-server's own limit on max_payload (MAX_PAYLOAD_MAX_SIZE).
	messageBytesMax = 64 << 20
	// partialKeepBytesMax is the largest partial buffer that is kept for the next message.
	partialKeepBytesMax = 1 << 20
)

// Message is a MSG or HMSG. Its slices are borrowed: valid until the event returns.
type Message struct {
	Subject []byte
	// Status is the code of the header block's first line ("NATS/1.0 503"); 0 if there is none.
	Status int
	// Description is the rest of that line.
	Description []byte
	// Headers are whole "Name: value\r\n" lines, without the first line and the empty one at the end. There are none if
	// the header block is malformed.
	Headers []byte
	Payload []byte
	// Raw is the whole operation as it came.
	Raw []byte
}

// events takes what a parser finds, in order.
type events interface {
	// onMessage takes a MSG or HMSG.
	onMessage(m *Message)
	// onControl takes any other operation, whole, with its line end. raw is borrowed.
	onControl(raw []byte)
}

// parser cuts a server's byte stream into operations, in place: an operation that lies whole in a
// chunk is not copied. The tail of a chunk is kept until the rest of it arrives.
type parser struct {
	partial []byte // the operation that is incomplete; empty if none is
	scanned int    // bytes of partial that are known to hold no line end
	want    int    // bytes of partial at which parsing can go on; 0: at the next line end
	message Message
}

// reset forgets a partial operation, for a new connection.
func (p *parser) reset() {
	p.partial, p.scanned, p.want = p.partial[:0], 0, 0
}

// parse takes the next chunk of the stream, which is borrowed. After an error the parser must be reset.
func (p *parser) parse(chunk []byte, to events) error {
	for len(p.partial) > 0 && len(chunk) > 0 {
		take := len(chunk)
		if p.want > 0 {
			take = min(take, p.want-len(p.partial))
		} else if i := bytes.IndexByte(chunk, '\n'); i >= 0 {
			take = i + 1
		}
		p.partial = append(p.partial, chunk[:take]...)
		chunk = chunk[take:]
		n, err := p.operation(p.partial, to)
		if err != nil {
			return err
		}
		if n > 0 {
			p.reset()
			if cap(p.partial) > partialKeepBytesMax {
				p.partial = nil
			}
		}
	}
	for len(chunk) > 0 {
		n, err := p.operation(chunk, to)
		if err != nil {
			return err
		}
		if n == 0 {
			p.partial = append(p.partial, chunk...)
			return nil
		}
		chunk = chunk[n:]
	}
	return nil
}

// operation reads one operation from the front of src and returns its length, or 0 if src holds
// only part of it; then want and scanned say where to go on.
func (p *parser) operation(src []byte, to events) (n int, err error) {
	end := bytes.IndexByte(src[min(p.scanned, len(src)):], '\n')
	if end < 0 {
		if len(src) > lineBytesMax {
			return 0, ErrProtocol
		}
		p.scanned, p.want = len(src), 0
		return 0, nil
	}
	end += min(p.scanned, len(src)) + 1
	line := src[:end]
	switch {
	case len(line) > 4 && string(line[:4]) == "MSG ":
		return p.msg(src, line[4:], end, false, to)
	case len(line) > 5 && string(line[:5]) == "HMSG ":
		return p.msg(src, line[5:], end, true, to)
	case isControl(line):
		p.scanned = 0
		to.onControl(line)
		return end, nil
	}
	return 0, ErrProtocol
}

func isControl(line []byte) bool {
	return bytes.HasPrefix(line, []byte("PING")) || bytes.HasPrefix(line, []byte("PONG")) ||
		bytes.HasPrefix(line, []byte("+OK")) || bytes.HasPrefix(line, []byte("INFO ")) ||
		bytes.HasPrefix(line, []byte("-ERR"))
}

// msg reads a message whose arguments are args and whose body starts at src[bodyAt].
func (p *parser) msg(src, args []byte, bodyAt int, withHeaders bool, to events) (n int, err error) {
	subject, headerBytes, totalBytes, ok := parseArgs(args, withHeaders)
	if !ok || headerBytes > totalBytes || totalBytes > messageBytesMax {
		return 0, ErrProtocol
	}
	n = bodyAt + totalBytes + len("\r\n")
	if len(src) < n {
		// Scan the line again when the body is there: it is short, and its fields may move.
		p.scanned, p.want = 0, n
		return 0, nil
	}
	if src[n-2] != '\r' || src[n-1] != '\n' {
		return 0, ErrProtocol
	}
	m := &p.message
	*m = Message{Subject: subject, Payload: src[bodyAt+headerBytes : n-2], Raw: src[:n]}
	if withHeaders {
		m.parseHeaders(src[bodyAt : bodyAt+headerBytes])
	}
	p.scanned, p.want = 0, 0
	to.onMessage(m)
	return n, nil
}

// parseArgs reads "subject sid [reply] [headerBytes] totalBytes\r\n".
func parseArgs(args []byte, withHeaders bool) (subject []byte, headerBytes, totalBytes int, ok bool) {
	var fields [5][]byte
	count := 0
	for i := 0; i < len(args); {
		if c := args[i]; c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			i++
			continue
		}
		start := i
		for i < len(args) && args[i] != ' ' && args[i] != '\t' && args[i] != '\r' && args[i] != '\n' {
			i++
		}
		if count == len(fields) {
			return nil, 0, 0, false
		}
		fields[count] = args[start:i]
		count++
	}
	sizes := 1
	if withHeaders {
		sizes = 2
	}
	if count < 2+sizes || count > 3+sizes {
		return nil, 0, 0, false
	}
	if totalBytes, ok = parseSize(fields[count-1]); !ok {
		return nil, 0, 0, false
	}
	if withHeaders {
		if headerBytes, ok = parseSize(fields[count-2]); !ok {
			return nil, 0, 0, false
		}
	}
	return fields[0], headerBytes, totalBytes, true
}

// parseSize reads a decimal number of at most nine digits, which is more than messageBytesMax.
func parseSize(b []byte) (size int, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		size = size*10 + int(c-'0')
	}
	return size, true
}

// parseHeaders reads a header block: "NATS/1.0[ status[ description]]\r\n", lines, "\r\n". Servers pass on what a
// program calls headers, whatever it is: of a block that is none, m has neither headers nor a status.
func (m *Message) parseHeaders(block []byte) {
	const version = "NATS/1.0"
	if !bytes.HasPrefix(block, []byte(version)) || !bytes.HasSuffix(block, []byte("\r\n")) {
		return
	}
	first := bytes.Index(block, []byte("\r\n"))
	inline := bytes.TrimLeft(block[len(version):first], " ")
	if len(inline) >= 3 {
		if status, ok := parseSize(inline[:3]); ok {
			m.Status = status
			m.Description = bytes.TrimLeft(inline[3:], " ")
		}
	}
	m.Headers = block[first+2:]
	if bytes.HasSuffix(m.Headers, []byte("\r\n\r\n")) || len(m.Headers) == 2 {
		m.Headers = m.Headers[:len(m.Headers)-2]
	}
}

// Header returns the value of the header with this name, without the space around it, and whether there is one. Names
// are compared without regard to ASCII case. The value is borrowed, as the message is.
func (m *Message) Header(name string) (value []byte, found bool) {
	for rest := m.Headers; len(rest) > 0; {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if len(line) > len(name) && line[len(name)] == ':' && equalFold(line[:len(name)], name) {
			return bytes.TrimSpace(line[len(name)+1:]), true
		}
	}
	return nil, false
}

func equalFold(b []byte, s string) bool {
	for i := range len(s) {
		x, y := b[i], s[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
