package engine

import (
	"bytes"
	"slices"
)

// subjectSet is a set of NATS subject patterns, as a tree of tokens. It never changes once it is built, so
// that every loop may ask it. Asking allocates nothing, and visits a node once at most.
type subjectSet struct {
	children []subjectChild // by token, for a binary search
	any      *subjectSet    // behind a token "*"
	ends     permit         // of the pattern that ends here
	rest     permit         // of the pattern that ends here with a token ">"
}

type subjectChild struct {
	token []byte
	set   *subjectSet
}

// permit says of a pattern that it is in the set, and which reserved subjects it spells out.
type permit uint8

// permitted is set in every permit of a pattern; the other bits are reservedClasses.
const permitted permit = 1 << 7

// covers reports whether the pattern is there, and spells out all that class asks for.
func (p permit) covers(class reservedClass) bool {
	return p&(permitted|permit(class)) == permitted|permit(class)
}

// add puts a valid pattern into the set.
func (s *subjectSet) add(pattern []byte, spelled reservedClass) {
	token, tail, more := nextToken(pattern)
	if isRest(token) {
		s.rest = permitted | permit(spelled)
		return
	}
	next := s.childFor(token)
	if more {
		next.add(tail, spelled)
		return
	}
	next.ends = permitted | permit(spelled)
}

// childFor returns the set behind token, which it makes if there is none. The token is cloned.
func (s *subjectSet) childFor(token []byte) *subjectSet {
	if isAny(token) {
		if s.any == nil {
			s.any = &subjectSet{}
		}
		return s.any
	}
	at, found := s.find(token)
	if !found {
		s.children = slices.Insert(s.children, at, subjectChild{bytes.Clone(token), &subjectSet{}})
	}
	return s.children[at].set
}

// covers reports whether one pattern of the set matches the whole of subject and spells out class. The
// subject is valid; it may itself have wildcards, and is covered then if that pattern matches everything
// that it stands for.
func (s *subjectSet) covers(subject []byte, class reservedClass) bool {
	if s.rest.covers(class) {
		return true
	}
	token, tail, more := nextToken(subject)
	if at, found := s.find(token); found && s.children[at].set.coversTail(tail, more, class) {
		return true
	}
	return s.any != nil && !isRest(token) && s.any.coversTail(tail, more, class)
}

// coversTail goes on behind a token that matched.
func (s *subjectSet) coversTail(tail []byte, more bool, class reservedClass) bool {
	if more {
		return s.covers(tail, class)
	}
	return s.ends.covers(class)
}

func (s *subjectSet) find(token []byte) (at int, found bool) {
	low, high := 0, len(s.children)
	for low < high {
		middle := int(uint(low+high) >> 1)
		switch order := bytes.Compare(s.children[middle].token, token); {
		case order == 0:
			return middle, true
		case order < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false
}

// nextToken cuts the first token off a subject; more reports whether any follow.
func nextToken(subject []byte) (token, tail []byte, more bool) {
	if i := bytes.IndexByte(subject, '.'); i >= 0 {
		return subject[:i], subject[i+1:], true
	}
	return subject, nil, false
}

func isAny(token []byte) bool  { return len(token) == 1 && token[0] == '*' }
func isRest(token []byte) bool { return len(token) == 1 && token[0] == '>' }

// overlap reports whether there is a subject that two valid patterns both match. A subject is a
// pattern that matches itself.
func overlap(a, b []byte) bool {
	for moreA, moreB := true, true; moreA && moreB; {
		var tokenA, tokenB []byte
		tokenA, a, moreA = nextToken(a)
		tokenB, b, moreB = nextToken(b)
		switch {
		case isRest(tokenA) || isRest(tokenB):
			return true
		case !isAny(tokenA) && !isAny(tokenB) && !bytes.Equal(tokenA, tokenB):
			return false
		case moreA != moreB:
			return false
		}
	}
	return true
}
