package codec

import (
	"strings"
	"testing"
)

func TestSubjectMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "ab", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"*", "a", true},
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.>", "b.c", false},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{"a*.b", "a*.b", true},
		{"a*.b", "ab.b", false},
	} {
		if got := SubjectMatches([]byte(c.pattern), []byte(c.subject)); got != c.want {
			t.Errorf("%q, %q: got %v", c.pattern, c.subject, got)
		}
	}
}

func TestValidatePattern(t *testing.T) {
	for pattern, valid := range map[string]bool{
		"a": true, "a.b": true, "*": true, ">": true, "a.*.b": true, "a.>": true, "a*.b>": true, "$JS.API.>": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "a.>.b": false, "> ": false, "a b": false, "a\n": false,
		strings.Repeat("a", PublishSubjectBytesMax+1): false,
	} {
		if err := ValidatePattern([]byte(pattern)); (err == nil) != valid {
			t.Errorf("%.40q: %v", pattern, err)
		}
	}
}

func TestSubjectMatchesDoesNotAllocateAlloc(t *testing.T) {
	pattern, subject := []byte("app.*.orders.>"), []byte("app.eu.orders.new.17")
	if n := testing.AllocsPerRun(1000, func() { SubjectMatches(pattern, subject) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
