package engine

import (
	"bytes"
	"strings"
)

// reservedClass is a set of the subjects that are refused to everybody unless they are listed.
type reservedClass uint8

const (
	reservedSystem  reservedClass = 1 << iota // $SYS.>
	reservedAPI                               // $JS.API.>
	reservedDomains                           // $JS.*.API.>: the same in a domain's name
	reservedInboxes                           // the replies to our own requests
)

// reservedStems are the beginnings of the reserved subjects that are the same in every gateway.
var reservedStems = []reservedStem{
	{reservedSystem, []byte("$SYS.>")},
	{reservedAPI, []byte("$JS.API.>")},
	{reservedDomains, []byte("$JS.*.API.>")},
}

type reservedStem struct {
	class   reservedClass
	pattern []byte
}

// reservedSubjects tells reserved subjects from others. It never changes.
type reservedSubjects struct {
	stems []reservedStem
	first [256]bool // the bytes that a pattern which overlaps one of stems can begin with
}

// newReservedSubjects returns what is reserved in a gateway with these inboxes, each a subject prefix that ends
// with a dot.
func newReservedSubjects(inboxes [][]byte) *reservedSubjects {
	r := &reservedSubjects{stems: reservedStems[:len(reservedStems):len(reservedStems)]}
	for _, inbox := range inboxes {
		r.stems = append(r.stems, reservedStem{reservedInboxes, append(bytes.Clone(inbox), '>')})
	}
	r.first['*'], r.first['>'] = true, true
	for _, stem := range r.stems {
		r.first[stem.pattern[0]] = true
	}
	return r
}

// classOf returns the classes of reserved subjects that a valid subject is one of, or a valid pattern would
// take in. For most subjects it looks at one byte.
func (r *reservedSubjects) classOf(subject []byte) (class reservedClass) {
	if !r.first[subject[0]] {
		return 0
	}
	for i := range r.stems {
		if overlap(r.stems[i].pattern, subject) {
			class |= r.stems[i].class
		}
	}
	return class
}

// spelledBy returns the classes that a pattern in a list of subjects opens: those whose names it spells
// out. So ">" stands for everything but the reserved subjects. Of an inbox only the prefix has
// a name: the rest is different in every process.
func spelledBy(pattern, inboxPrefix string) (class reservedClass) {
	for _, stem := range reservedStems {
		if spells(pattern, string(stem.pattern)) {
			class |= stem.class
		}
	}
	if spells(pattern, inboxPrefix+".>") {
		class |= reservedInboxes
	}
	return class
}

// spells reports whether every literal token of stem, which ends with ">", is in its place in pattern.
func spells(pattern, stem string) bool {
	have, want := strings.Split(pattern, "."), strings.Split(stem, ".")
	want = want[:len(want)-1]
	if len(have) <= len(want) {
		return false
	}
	for i, token := range want {
		if token != "*" && have[i] != token {
			return false
		}
	}
	return true
}
