package codec

import "errors"

// Errors of [ValidateSubject].
var (
	// ErrSubjectEmpty: the subject has no bytes.
	ErrSubjectEmpty = errors.New("codec: subject is empty")
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
// The first offence decides: tokens are judged from left to right, the bytes of a token before the
// token as a whole. It borrows subject and does not allocate.
func ValidateSubject(subject []byte) error {
	if len(subject) == 0 {
		return ErrSubjectEmpty
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
