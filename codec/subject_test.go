package codec

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateSubject(t *testing.T) {
	for _, c := range []struct {
		subject string
		want    error
	}{
		{"a", nil},
		{"orders.new", nil},
		{"$JS.API.INFO", nil},
		{"_INBOX.abc.1", nil},
		{"a/b:c,d{e}\"'\\", nil},
		{"a*b.x>.>x.**.>>", nil},
		{"caf\xc3\xa9.\xff\x80", nil},
		{strings.Repeat("a", PublishSubjectBytesMax), nil},
		{"", ErrSubjectEmpty},
		{strings.Repeat("a", PublishSubjectBytesMax+1), ErrSubjectLong},
		{".", ErrSubjectToken},
		{".a", ErrSubjectToken},
		{"a.", ErrSubjectToken},
		{"a..b", ErrSubjectToken},
		{"*", ErrSubjectWildcard},
		{">", ErrSubjectWildcard},
		{"a.*", ErrSubjectWildcard},
		{"*.a", ErrSubjectWildcard},
		{"a.*.b", ErrSubjectWildcard},
		{"a.>", ErrSubjectWildcard},
		{">.a", ErrSubjectWildcard},
		{" ", ErrSubjectByte},
		{"a b", ErrSubjectByte},
		{"a.b ", ErrSubjectByte},
		{"a\tb", ErrSubjectByte},
		{"a\r\nPUB b 0\r\n\r\n", ErrSubjectByte},
		{"a\x00", ErrSubjectByte},
		{"a\x1f", ErrSubjectByte},
		{"a\x7f", ErrSubjectByte},
		{"* .a", ErrSubjectByte},
		{"*..", ErrSubjectWildcard},
		{"..*", ErrSubjectToken},
	} {
		if got := ValidateSubject([]byte(c.subject)); !errors.Is(got, c.want) {
			t.Errorf("%.40q: got %v, want %v", c.subject, got, c.want)
		}
	}
}

// Every byte on its own inside a token: exactly the control characters, space and DEL are refused.
func TestValidateSubjectEveryByte(t *testing.T) {
	for b := range 256 {
		var want error
		if b <= ' ' || b == 0x7F {
			want = ErrSubjectByte
		}
		if got := ValidateSubject([]byte{'a', byte(b), 'z'}); !errors.Is(got, want) {
			t.Errorf("byte %#x: got %v, want %v", b, got, want)
		}
	}
}
