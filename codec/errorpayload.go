package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// ErrNotErrorPayload is returned by [ParseError] for bytes that are not the JSON object of a
// RESPONSE_ERROR or STREAM_ERROR: treat the answer as a failure about which nothing is known.
var ErrNotErrorPayload = errors.New("codec: payload is not an error object")

// AppendError appends the payload of RESPONSE_ERROR and STREAM_ERROR to dst:
//
//	{"ok":false,"error":{"code":5,"name":"TIMEOUT","message":"no reply within 30s","retryable":true,"sent":true}}
//
// message may be any bytes: the result is always valid JSON in UTF-8. sent says whether the request
// may have reached NATS. It borrows message and allocates only if dst lacks the capacity.
func AppendError[T string | []byte](dst []byte, code ErrorCode, message T, sent bool) []byte {
	return append(appendErrorFields(dst, code, message, sent), `}}`...)
}

// AppendServiceError appends the payload for a reply that has a Nats-Service-Error-Code header: as
// [AppendError] with CodeServiceError and sent true, and with the service's own code after that:
//
//	..."sent":true,"service_code":400}}
//
// It is a JSON number when serviceCode is "0" or one to nine decimal digits that do not begin with
// 0, which every JSON reader takes exactly, else a JSON string.
func AppendServiceError(dst []byte, serviceCode, message []byte) []byte {
	dst = appendErrorFields(dst, CodeServiceError, message, true)
	dst = append(dst, `,"service_code":`...)
	if isPlainNumber(serviceCode) {
		dst = append(dst, serviceCode...)
	} else {
		dst = append(dst, '"')
		dst = appendEscaped(dst, serviceCode)
		dst = append(dst, '"')
	}
	return append(dst, `}}`...)
}

// AppendRetryError appends the payload for a request that is refused for some time, as [AppendError], and with
// how long the client should wait before it tries again:
//
//	..."sent":false,"retry_after_ms":4200}}
func AppendRetryError[T string | []byte](dst []byte, code ErrorCode, message T, sent bool, retryAfterMs int64) []byte {
	dst = appendErrorFields(dst, code, message, sent)
	dst = append(dst, `,"retry_after_ms":`...)
	dst = strconv.AppendInt(dst, retryAfterMs, 10)
	return append(dst, `}}`...)
}

// TraceBytesMax is how much longer AppendTrace makes an error object.
const TraceBytesMax = len(`,"trace_id":"","span_id":""`) + 2*(16+8)

// AppendTrace adds the ids of the request's trace and of the gateway's span in it to the error object at the end of dst:
//
//	..."sent":true,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}}
func AppendTrace(dst, traceID, spanID []byte) []byte {
	dst = append(dst[:len(dst)-len(`}}`)], `,"trace_id":"`...)
	dst = hex.AppendEncode(dst, traceID)
	dst = append(dst, `","span_id":"`...)
	dst = hex.AppendEncode(dst, spanID)
	return append(dst, `"}}`...)
}

func appendErrorFields[T string | []byte](dst []byte, code ErrorCode, message T, sent bool) []byte {
	dst = append(dst, `{"ok":false,"error":{"code":`...)
	dst = strconv.AppendUint(dst, uint64(code), 10)
	dst = append(dst, `,"name":"`...)
	dst = append(dst, code.Name()...)
	dst = append(dst, `","message":"`...)
	dst = appendEscaped(dst, message)
	dst = append(dst, `","retryable":`...)
	dst = strconv.AppendBool(dst, code.Retryable())
	dst = append(dst, `,"sent":`...)
	return strconv.AppendBool(dst, sent)
}

// appendEscaped appends s as the inside of a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendEscaped[T string | []byte](dst []byte, s T) []byte {
	plain := 0 // s[plain:i] needs no escape and is not appended yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			// A copy on the stack: a slice of s of either type would need a conversion for utf8.
			var encoded [utf8.UTFMax]byte
			r, size := utf8.DecodeRune(encoded[:copy(encoded[:], s[i:])])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[plain:i]...)
				dst = append(dst, "\uFFFD"...)
				plain = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			dst = append(dst, s[plain:i]...)
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
			} else {
				dst = append(dst, '\\', c)
			}
			plain = i + 1
		}
		i++
	}
	return append(dst, s[plain:]...)
}

func isPlainNumber(s []byte) bool {
	if len(s) == 0 || len(s) > 9 || s[0] == '0' && len(s) > 1 {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// ErrorInfo is what an error answer says.
type ErrorInfo struct {
	Code        int    `json:"code"`                   // an ErrorCode; a newer gateway may have more of them
	Name        string `json:"name"`                   // its name
	Message     string `json:"message"`                // for people
	Retryable   bool   `json:"retryable"`              // the same request may succeed a little later
	Sent        bool   `json:"sent"`                   // the request may have reached NATS
	ServiceCode any    `json:"service_code,omitempty"` // with SERVICE_ERROR: a json.Number or a string; else nil

	// RetryAfterMs is how long to wait before the next try, in milliseconds; 0: the gateway does not say.
	RetryAfterMs int64 `json:"retry_after_ms,omitempty"`

	// TraceID and SpanID name the request's trace and the gateway's span in it, in hexadecimal digits; empty: it is not traced.
	TraceID string `json:"trace_id,omitempty"`
	SpanID  string `json:"span_id,omitempty"`
}

// ParseError reads the payload of RESPONSE_ERROR and STREAM_ERROR, for clients. It keeps nothing of
// payload. Fields that it does not know are ignored. The error wraps [ErrNotErrorPayload].
func ParseError(payload []byte) (ErrorInfo, error) {
	var answer struct {
		OK    *bool      `json:"ok"`
		Error *ErrorInfo `json:"error"`
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&answer); err != nil {
		return ErrorInfo{}, fmt.Errorf("%w: %w", ErrNotErrorPayload, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return ErrorInfo{}, fmt.Errorf("%w: more follows it", ErrNotErrorPayload)
	}
	if answer.OK == nil || *answer.OK || answer.Error == nil {
		return ErrorInfo{}, fmt.Errorf(`%w: it lacks "ok":false or "error"`, ErrNotErrorPayload)
	}
	return *answer.Error, nil
}
