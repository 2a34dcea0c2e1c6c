package codec

import "errors"

// Errors of [ValidateHeaders].
var (
	// ErrHeaderName: a line has no name, a name with a byte that is not visible ASCII, or no colon
	// after its name. An empty line is one without a name.
	ErrHeaderName = errors.New("codec: header line does not begin with a name and a colon")
	// ErrHeaderValue: a value has a control character other than TAB, among them a CR or LF that is
	// not part of the CRLF at the line's end.
	ErrHeaderValue = errors.New("codec: header value has a control character")
	// ErrHeaderEnd: the last line does not end in CRLF.
	ErrHeaderEnd = errors.New("codec: headers do not end in CRLF")
)

// ValidateHeaders reports whether headers can be put between "NATS/1.0\r\n" and "\r\n" and passed
// to NATS as they are: whole lines of a name, a colon and a value, each ending in exactly CRLF.
// Nothing that it accepts can end the NATS header block early. Empty headers are good.
//
// The space after the colon may be left out, as NATS itself allows, or be more than one; a value
// may be empty, and its bytes from 0x80 are not judged. The first offence decides. It borrows
// headers and does not allocate.
func ValidateHeaders(headers []byte) error {
	for len(headers) > 0 {
		colon := 0
		for colon < len(headers) && isNameByte(headers[colon]) {
			colon++
		}
		if colon == 0 || colon == len(headers) || headers[colon] != ':' {
			return ErrHeaderName
		}
		end := colon + 1
		for end < len(headers) && isValueByte(headers[end]) {
			end++
		}
		if end == len(headers) {
			return ErrHeaderEnd
		}
		if headers[end] != '\r' {
			return ErrHeaderValue
		}
		if end+1 == len(headers) {
			return ErrHeaderEnd
		}
		if headers[end+1] != '\n' {
			return ErrHeaderValue
		}
		headers = headers[end+2:]
	}
	return nil
}

// isNameByte reports whether c may stand in a header's name: visible ASCII but the colon.
func isNameByte(c byte) bool { return c > ' ' && c < 0x7F && c != ':' }

// isValueByte reports whether c may stand in a header's value: all but control characters, and TAB.
func isValueByte(c byte) bool { return c >= ' ' && c != 0x7F || c == '\t' }
