package upstream

// tokenBytes is the length of a token in a reply subject: 11 characters of 6 bits hold 64 bits.
const tokenBytes = 11

// tokenAlphabet has 64 characters that NATS allows in a subject token and that mean nothing to it.
const tokenAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"

// tokenValues is the inverse of tokenAlphabet; 0xff marks characters that are not in it.
var tokenValues = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i := range len(tokenAlphabet) {
		values[tokenAlphabet[i]] = byte(i)
	}
	return values
}()

// appendToken appends token in its fixed-width form.
func appendToken(dst []byte, token uint64) []byte {
	var b [tokenBytes]byte
	for i := tokenBytes - 1; i >= 0; i-- {
		b[i] = tokenAlphabet[token&63]
		token >>= 6
	}
	return append(dst, b[:]...)
}

// parseToken is the inverse of appendToken. Foreign bytes come here: any subscriber may publish to
// our inbox.
func parseToken(src []byte) (token uint64, ok bool) {
	if len(src) != tokenBytes || tokenValues[src[0]] > 15 {
		return 0, false
	}
	for _, c := range src {
		v := tokenValues[c]
		if v == 0xff {
			return 0, false
		}
		token = token<<6 | uint64(v)
	}
	return token, true
}
