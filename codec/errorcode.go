package codec

// ErrorCode is the number that says why a request failed. It is stable: clients may switch on it.
type ErrorCode uint8

// The error codes. CodeOK is none: it stands for success where outcomes are counted.
const (
	CodeOK               ErrorCode = 0
	CodeInvalidVersion   ErrorCode = 1  // the version byte is neither 1 nor 2; closes
	CodeInvalidType      ErrorCode = 2  // a type that a client may not send, or that is not served
	CodeFrameTooLarge    ErrorCode = 3  // over FrameBytesMax, which closes, or over the server's max_payload
	CodeInvalidPayload   ErrorCode = 4  // a length under the header size, which closes; bad subject, headers, flags or id
	CodeTimeout          ErrorCode = 5  // no reply before the deadline
	CodeConnectionClosed ErrorCode = 6  // the NATS connection broke with the request in flight
	CodeOverloaded       ErrorCode = 7  // a limit of the gateway is reached
	CodeUnavailable      ErrorCode = 8  // NATS is not connected
	CodeNoResponders     ErrorCode = 9  // nobody listens on the subject
	CodeUnauthorized     ErrorCode = 10 // the peer may not do this
	CodeRateLimited      ErrorCode = 11 // the peer's rate limit
	CodeShuttingDown     ErrorCode = 12 // the gateway is draining
	CodeServiceError     ErrorCode = 13 // the reply has a Nats-Service-Error-Code header
	CodeCancelled        ErrorCode = 14 // given up by CANCEL
	CodeInternal         ErrorCode = 99 // a bug of the gateway
)

// codes is all of the error codes, ascending, with what is said about each. A code is retryable
// if the same request may well succeed a little later, without anybody changing it.
var codes = [...]struct {
	code      ErrorCode
	name      string
	retryable bool
}{
	{CodeInvalidVersion, "INVALID_VERSION", false},
	{CodeInvalidType, "INVALID_TYPE", false},
	{CodeFrameTooLarge, "FRAME_TOO_LARGE", false},
	{CodeInvalidPayload, "INVALID_PAYLOAD", false},
	{CodeTimeout, "TIMEOUT", true},
	{CodeConnectionClosed, "CONNECTION_CLOSED", true},
	{CodeOverloaded, "OVERLOADED", true},
	{CodeUnavailable, "UNAVAILABLE", true},
	{CodeNoResponders, "NO_RESPONDERS", true},
	{CodeUnauthorized, "UNAUTHORIZED", false},
	{CodeRateLimited, "RATE_LIMITED", true},
	{CodeShuttingDown, "SHUTTING_DOWN", true},
	{CodeServiceError, "SERVICE_ERROR", false},
	{CodeCancelled, "CANCELLED", false},
	{CodeInternal, "INTERNAL", false},
}

// Name returns the protocol's name of c, as "TIMEOUT". It is "OK" for CodeOK and "UNKNOWN" for a
// number that is no code.
func (c ErrorCode) Name() string {
	if c == CodeOK {
		return "OK"
	}
	for i := range codes {
		if codes[i].code == c {
			return codes[i].name
		}
	}
	return "UNKNOWN"
}

// Retryable reports whether the same request may succeed a little later. It does not say that the
// first try had no effect: that is what "sent" is for.
func (c ErrorCode) Retryable() bool {
	for i := range codes {
		if codes[i].code == c {
			return codes[i].retryable
		}
	}
	return false
}

// ErrorCodes returns all error codes in ascending order, without CodeOK. The slice is the caller's.
func ErrorCodes() []ErrorCode {
	all := make([]ErrorCode, len(codes))
	for i := range codes {
		all[i] = codes[i].code
	}
	return all
}
