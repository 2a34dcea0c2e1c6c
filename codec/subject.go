package codec

import (
	"bytes"
	"errors"
)

// PublishSubjectBytesMax is the longest subject, in bytes, that [ValidateSubject] lets through. A
// NATS server ends the connection of a client whose command line is over 4096 bytes (its
// max_control_line), and with it every request in flight there. The rest of the line is for the
// reply subject and two sizes.
const PublishSubjectBytesMax = 3 << 10

// Errors of [ValidateSubject].
var (
	// ErrSubjectEmpty: the subject has no bytes.
	ErrSubjectEmpty = errors.New("codec: subject is empty")
	// ErrSubjectLong: the subject is over PublishSubjectBytesMax.
	ErrSubjectLong = errors.New("codec: subject is over 3072 bytes")
	// ErrSubjectToken: a dot stands first, last, or after another dot.
	ErrSubjectToken = errors.New("codec: subject has an empty token")
	// ErrSubjectByte: a control character, a space or DEL is in the subject. Those end the subject
	// in NATS's text protocol, or the line.
	ErrSubjectByte = errors.New("codec: subject has a space or control character")
	// ErrSubjectWildcard: a token is "*" or ">", and one can only publish to a literal subject.
	ErrSubjectWildcard = errors.New("codec: subject has a wildcard token")
)

// ValidateSubject reports whether one may publish to subject. It follows nats-server: a '*' or '>'
// inside a longer token, as in "a*b", is an ordinary character, and bytes from 0x80 are allowed
// whether they are UTF-8 or not. Unlike nats-server it refuses every control character.
//
// The length is judged first; then tokens from left to right, the bytes of a token before the token
// as a whole. The first offence decides. It borrows subject and does not allocate.
func ValidateSubject(subject []byte) error {
	if len(subject) == 0 {
		return ErrSubjectEmpty
	}
	if len(subject) > PublishSubjectBytesMax {
		return ErrSubjectLong
	}
	token := 0 // where the current token begins
	for i, c := range subject {
		switch {
		case c <= ' ' || c == 0x7F:
			return ErrSubjectByte
		case c == '.':
			if err := validateToken(subject[token:i]); err != nil {
				return err
			}
			token = i + 1
		}
	}
	return validateToken(subject[token:])
}

func validateToken(token []byte) error {
	if len(token) == 0 {
		return ErrSubjectToken
	}
	if len(token) == 1 && (token[0] == '*' || token[0] == '>') {
		return ErrSubjectWildcard
	}
	return nil
}

// ErrPattern is returned by [ValidatePattern].
var ErrPattern = errors.New("codec: not a subject pattern: want tokens with dots between, as app.* or app.>")

// ValidatePattern reports whether pattern stands for subjects by the rules of NATS: a subject in which a token
// may be "*", and the last one ">".
func ValidatePattern(pattern []byte) error {
	if len(pattern) == 0 || len(pattern) > PublishSubjectBytesMax {
		return ErrPattern
	}
	for rest, more := pattern, true; more; {
		var token []byte
		token, rest, more = bytes.Cut(rest, []byte{'.'})
		if len(token) == 0 || more && string(token) == ">" {
			return ErrPattern
		}
		for _, c := range token {
			if c <= ' ' || c == 0x7F {
				return ErrPattern
			}
		}
	}
	return nil
}
