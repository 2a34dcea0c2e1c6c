package codec

import (
	"errors"
	"testing"
)

func TestValidateHeaders(t *testing.T) {
	for _, c := range []struct {
		headers string
		want    error
	}{
		{"", nil},
		{"A: b\r\n", nil},
		{"A:b\r\n", nil},
		{"A:  b \r\n", nil},
		{"A:\r\n", nil},
		{"A: \r\n", nil},
		{"A: b: c::\r\n", nil},
		{"A:\tb\tc\r\n", nil},
		{"traceparent: 00-4bf92f-00f067-01\r\nNats-Msg-Id: 7\r\n", nil},
		{"A: 1\r\nA: 2\r\n", nil},
		{"!#$%&'*+-.^_`|~\"(),/;<=>?@[\\]{}: x\r\n", nil},
		{"A: caf\xc3\xa9 \xff\x80\r\n", nil},
		{"A", ErrHeaderName},
		{"A\r\n", ErrHeaderName},
		{": b\r\n", ErrHeaderName},
		{"\r\n", ErrHeaderName},
		{"A: b\r\n\r\n", ErrHeaderName},
		{"\r\nA: b\r\n", ErrHeaderName},
		{" A: b\r\n", ErrHeaderName},
		{"A: b\r\n folded\r\n", ErrHeaderName},
		{"A : b\r\n", ErrHeaderName},
		{"A\t: b\r\n", ErrHeaderName},
		{"caf\xc3\xa9: b\r\n", ErrHeaderName},
		{"A\x7f: b\r\n", ErrHeaderName},
		{"A\x00: b\r\n", ErrHeaderName},
		{"A: b\r\nNATS/1.0\r\n", ErrHeaderName},
		{"A: b\r\nx", ErrHeaderName},
		{"A: b", ErrHeaderEnd},
		{"A: b\r", ErrHeaderEnd},
		{"A:", ErrHeaderEnd},
		{"A: b\r\nB: c", ErrHeaderEnd},
		{"A: b\n", ErrHeaderValue},
		{"A: b\nC: d\r\n", ErrHeaderValue},
		{"A: b\rC: d\r\n", ErrHeaderValue},
		{"A: b\r\r\n", ErrHeaderValue},
		{"A: b\n\r\n", ErrHeaderValue},
		{"A: b\x00\r\n", ErrHeaderValue},
		{"A: b\x7f\r\n", ErrHeaderValue},
		{"A: \x1b[31m\r\n", ErrHeaderValue},
	} {
		if got := ValidateHeaders([]byte(c.headers)); !errors.Is(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.headers, got, c.want)
		}
	}
}

// Every byte on its own, in the middle of a name and of a value.
func TestValidateHeadersEveryByte(t *testing.T) {
	for b := range 256 {
		c := byte(b)
		name := c > 0x20 && c < 0x7F // a colon ends the name early, and the rest is a good value
		if got := ValidateHeaders([]byte{'A', c, 'B', ':', ' ', 'x', '\r', '\n'}) == nil; got != name {
			t.Errorf("byte %#x in a name: accepted is %v, want %v", b, got, name)
		}
		value := c >= 0x20 && c != 0x7F || c == '\t'
		if got := ValidateHeaders([]byte{'A', ':', ' ', 'x', c, 'y', '\r', '\n'}) == nil; got != value {
			t.Errorf("byte %#x in a value: accepted is %v, want %v", b, got, value)
		}
	}
}
