package engine

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/gsl"

	"github.com/aigroup/ipc-gateway/codec"
)

func setOf(patterns ...string) *subjectSet {
	s := &subjectSet{}
	for _, p := range patterns {
		s.add([]byte(p), spelledBy(p, "_INBOX"))
	}
	return s
}

func TestSubjectSet(t *testing.T) {
	set := setOf("app.>", "a.*.c", "a.b.d", "exact", "*.end", "x.*.*.>")
	for subject, want := range map[string]bool{
		"app": false, "app.x": true, "app.x.y.z": true, "apple.x": false, "ap.x": false,
		"a.b.c": true, "a.b.d": true, "a.x.d": false, "a.b": false, "a.b.c.d": false, "a": false,
		"exact": true, "exact.x": false, "exac": false, "exacts": false,
		"q.end": true, "a.end": true, "q.end.x": false, "end": false,
		"x.1.2": false, "x.1.2.3": true, "x.1.2.3.4": true,
		// Patterns are covered if everything that they stand for is.
		"app.*": true, "app.>": true, "a.*.c": true, "a.*.d": false, "a.>": false, "*": false, ">": false, "*.end": true, "x.>": false, "x.*.*.*": true,
		// Inside a longer token the wildcards are ordinary characters.
		"a.**.c": true, "app.>x": true, "a*": false,
	} {
		if got := set.covers([]byte(subject), 0); got != want {
			t.Errorf("%s: %v, want %v", subject, got, want)
		}
	}
	if setOf().covers([]byte("a"), 0) {
		t.Error("an empty set covers something")
	}
}

// deceptive matches subjects with a literal token that begins like a wildcard, as *a. Two functions of the
// server take it for one; what it delivers messages by does not.
var deceptive = regexp.MustCompile(`(^|[. ])[*>][^. ]`)

// FuzzSubjectSet compares the tree and overlap with what the NATS server itself uses: for subjects the list by which it
// delivers, for patterns one comparison after another.
func FuzzSubjectSet(f *testing.F) {
	for _, seed := range [][2]string{
		{"app.> a.*.c exact", "a.b.c"}, {"*.* > a", "a.>"}, {"*.*.*.a *.b.*.a a.*.*.b", "a.b.c.b"}, {"a.*b.>x", "a.*b.>x"}, {"> >", ">"}, {"*0 >0", "0"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, list, subject string) {
		literal := codec.ValidateSubject([]byte(subject)) == nil
		plainly := !deceptive.MatchString(list + " " + subject)
		if codec.ValidatePattern([]byte(subject)) != nil || !literal && !plainly {
			return
		}
		set, delivers, covered := &subjectSet{}, gsl.NewSimpleSublist(), false
		for pattern := range strings.SplitSeq(list, " ") {
			if codec.ValidatePattern([]byte(pattern)) != nil {
				continue
			}
			set.add([]byte(pattern), 0)
			if err := delivers.Insert(pattern, struct{}{}); err != nil {
				t.Fatalf("the server does not take %q: %v", pattern, err)
			}
			covered = covered || server.SubjectMatchesFilter(subject, pattern)
			if got, want := overlap([]byte(pattern), []byte(subject)), server.SubjectsCollide(pattern, subject); got != want && plainly {
				t.Errorf("overlap of %q and %q: %v, the server says %v", pattern, subject, got, want)
			}
		}
		if literal {
			covered = delivers.HasInterest(subject)
		}
		if got := set.covers([]byte(subject), 0); got != covered {
			t.Errorf("%q covers %q: %v, the server says %v", list, subject, got, covered)
		}
	})
}

// The same with lists that are likely to match, in every test run.
func TestSubjectSetAgainstTheServer(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := []string{"a", "b", "c", "*", ">"}
	pattern := func() string {
		var parts []string
		for range 1 + rng.IntN(4) {
			parts = append(parts, tokens[rng.IntN(len(tokens))])
			if parts[len(parts)-1] == ">" {
				break
			}
		}
		return strings.Join(parts, ".")
	}
	yes := 0
	for range 50_000 {
		patterns := make([]string, 1+rng.IntN(5))
		for i := range patterns {
			patterns[i] = pattern()
		}
		subject := pattern()
		want := false
		for _, p := range patterns {
			want = want || server.SubjectMatchesFilter(subject, p)
			if got := overlap([]byte(p), []byte(subject)); got != server.SubjectsCollide(p, subject) {
				t.Fatalf("overlap of %s and %s: %v", p, subject, got)
			}
		}
		if want {
			yes++
		}
		if got := setOf(patterns...).covers([]byte(subject), 0); got != want {
			t.Fatalf("%v covers %s: %v", patterns, subject, got)
		}
	}
	if yes < 10_000 || yes > 40_000 {
		t.Errorf("%d of 50000 were covered: the test hardly tests one of the two", yes)
	}
}

func TestReservedSubjects(t *testing.T) {
	reserved := newReservedSubjects([][]byte{[]byte("_INBOX.one."), []byte("_INBOX.two.")})
	for subject, want := range map[string]reservedClass{
		"$SYS.REQ.SERVER.PING": reservedSystem, "$SYS": 0, "$SYSTEM.x": 0,
		"$JS.API.INFO": reservedAPI, "$JS.API.STREAM.NAMES": reservedAPI, "$JS.API": 0, "$JS.hub.API.INFO": reservedDomains,
		"$JS.ACK.s.c.1.2.3": 0, "$KV.bucket.key": 0, "$O.bucket.C.x": 0, "$JS.EVENT.METRIC": 0,
		"_INBOX.one.17": reservedInboxes, "_INBOX.two.x": reservedInboxes, "_INBOX.three.17": 0, "_INBOX.one": 0, "_INBOXES.one.x": 0,
		"app.x": 0, "*a.b": 0,
		// Patterns, as of a subscription: what they would take in.
		">": reservedSystem | reservedAPI | reservedDomains | reservedInboxes, "*.x": reservedSystem, "$JS.>": reservedAPI | reservedDomains,
		"_INBOX.>": reservedInboxes, "_INBOX.*.x": reservedInboxes, "_INBOX.three.>": 0, "$JS.*": 0, "app.>": 0,
	} {
		if got := reserved.classOf([]byte(subject)); got != want {
			t.Errorf("%s: class %04b, want %04b", subject, got, want)
		}
	}
}

// A list opens a reserved subject only if it spells its name out.
func TestReservedSubjectsMustBeSpelledOut(t *testing.T) {
	reserved := newReservedSubjects([][]byte{[]byte("_INBOX.one.")})
	for _, test := range []struct {
		patterns string
		subject  string
		want     bool
	}{
		{">", "$SYS.REQ", false}, {">", "app", true}, {"*.REQ", "$SYS.REQ", false}, {"$SYS.>", "$SYS.REQ", true}, {"$SYS.*", "$SYS.REQ", true},
		{"$JS.>", "$JS.API.INFO", false}, {"$JS.>", "$JS.ACK.x", true}, {"$JS.API.>", "$JS.API.INFO", true}, {"$JS.API.INFO", "$JS.API.INFO", true},
		{"$JS.*.INFO", "$JS.API.INFO", false}, {"$JS.API.INFO", "$JS.API.STREAM.NAMES", false},
		{"$JS.API.>", "$JS.hub.API.INFO", false}, {"$JS.*.API.>", "$JS.hub.API.INFO", true}, {"$JS.hub.API.>", "$JS.hub.API.INFO", true}, {"$JS.hub.>", "$JS.hub.API.INFO", false},
		{">", "_INBOX.one.5", false}, {"_INBOX.>", "_INBOX.one.5", true}, {"_INBOX.*.*", "_INBOX.one.5", true}, {">", "_INBOX.other.5", true}, {"*.one.5", "_INBOX.one.5", false},
		{"> $SYS.>", "$SYS.REQ", true}, {"$SYS.> >", "app.x", true}, {"> *.API.INFO", "$JS.API.INFO", false},
		{">", ">", false}, {"app.>", "app.*", true}, {"*.x", "*.x", false},
	} {
		subject := []byte(test.subject)
		if got := setOf(strings.Fields(test.patterns)...).covers(subject, reserved.classOf(subject)); got != test.want {
			t.Errorf("%s lets %s through: %v, want %v", test.patterns, test.subject, got, test.want)
		}
	}
}

// twentyPatterns is a list of the size that a careful operator writes.
func twentyPatterns() []string {
	patterns := []string{"beamline.router.v1.decide", "app.>", "events.*.created", "$JS.API.INFO"}
	for i := len(patterns); i < 20; i++ {
		patterns = append(patterns, fmt.Sprintf("service%d.*.v1.>", i))
	}
	return patterns
}

func BenchmarkSubjectSet(b *testing.B) {
	set := setOf(twentyPatterns()...)
	reserved := newReservedSubjects([][]byte{[]byte("_INBOX.one.")})
	for name, subject := range map[string]string{
		"literal": "beamline.router.v1.decide", "rest": "app.headers", "deep": "service19.orders.v1.create", "refused": "service19.orders.v2.create", "reserved": "$JS.API.INFO",
	} {
		b.Run(name, func(b *testing.B) {
			s := []byte(subject)
			want := name != "refused"
			b.ReportAllocs()
			for b.Loop() {
				if set.covers(s, reserved.classOf(s)) != want {
					b.Fatal(subject)
				}
			}
		})
	}
}
