package engine

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/aigroup/ipc-gateway/codec"
)

// What we take for a match must be one for the server, and the other way round.
func FuzzSubjectMatches(f *testing.F) {
	f.Add("a.*.c", "a.b.c")
	f.Add("a.>", "a.b.c")
	f.Add("*.>", "a")
	f.Add("a.*", "a.*b")
	f.Fuzz(func(t *testing.T, pattern, subject string) {
		if codec.ValidatePattern([]byte(pattern)) != nil || codec.ValidateSubject([]byte(subject)) != nil {
			t.Skip()
		}
		for token := range strings.SplitSeq(pattern, ".") {
			if len(token) > 1 && strings.ContainsAny(token[:1], "*>") {
				t.Skip() // SubjectsCollide looks at the first byte only, unlike the server's routing
			}
		}
		want := server.SubjectsCollide(pattern, subject)
		if got := codec.SubjectMatches([]byte(pattern), []byte(subject)); got != want {
			t.Errorf("%q, %q: got %v, the server says %v", pattern, subject, got, want)
		}
	})
}
