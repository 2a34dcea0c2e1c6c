package trace

import "bytes"

// Names of the header lines, in the spelling that AppendHeaders writes. They are compared without regard to case.
const (
	headerParent = "traceparent"
	headerState  = "tracestate"
)

// ParseHeaders looks for the one traceparent among header lines, each of which should end in CRLF. ok is false if there is
// none, one that is malformed, or more than one: then the caller has no trace that could go on. It borrows headers, which may be
// any bytes.
func ParseHeaders(headers []byte) (c Context, ok bool) {
	var value []byte
	found := 0
	for len(headers) > 0 {
		line, rest := cutLine(headers)
		if v, is := lineValue(line, headerParent); is {
			value = v
			found++
		}
		headers = rest
	}
	if found != 1 {
		return Context{}, false
	}
	return ParseParent(value)
}

// AppendHeaders appends headers with c as their only traceparent to dst: every line but those of the name as it is, and that
// of c last. If the trace is not the caller's, its tracestate belongs to another one and is left out. dst is the caller's.
func AppendHeaders(dst, headers []byte, c *Context, callers bool) []byte {
	for len(headers) > 0 {
		line, rest := cutLine(headers)
		_, isParent := lineValue(line, headerParent)
		_, isState := lineValue(line, headerState)
		if !isParent && (callers || !isState) {
			dst = append(dst, headers[:len(headers)-len(rest)]...)
		}
		headers = rest
	}
	dst = append(dst, headerParent+": "...)
	dst = AppendParent(dst, c)
	return append(dst, "\r\n"...)
}

// HeaderBytesMax is how much longer AppendHeaders makes headers, at most.
const HeaderBytesMax = len(headerParent) + len(": ") + ParentBytes + len("\r\n")

// cutLine returns the first line of headers without its end, and what follows that.
func cutLine(headers []byte) (line, rest []byte) {
	end := bytes.IndexByte(headers, '\n')
	if end < 0 {
		return headers, nil
	}
	return bytes.TrimSuffix(headers[:end], []byte("\r")), headers[end+1:]
}

// lineValue returns the value of a line with this name, which is in small letters, without the space around it.
func lineValue(line []byte, name string) (value []byte, is bool) {
	if len(line) <= len(name) || line[len(name)] != ':' {
		return nil, false
	}
	for i := range len(name) {
		if line[i]|0x20 != name[i] {
			return nil, false
		}
	}
	return bytes.Trim(line[len(name)+1:], " \t"), true
}
