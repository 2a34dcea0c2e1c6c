package codec

import (
	"strings"
	"testing"
)

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
