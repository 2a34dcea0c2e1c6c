package codec

// The protocol's test vectors: what is in testdata, with its meaning. golden_test.go writes and
// checks the files.

// vector is one good frame of a golden file.
type vector struct {
	name, about string
	frame       Frame
}

// badVector is one frame of a file in testdata/invalid.
type badVector struct {
	name, about string
	bytes       []byte

	err     error     // of Decode, or else of ValidateSubject or ValidateHeaders; nil: the engine's judgement
	code    ErrorCode // what the gateway answers
	version byte      // the layout that it answers in
	id      uint64    // and the correlation id, in version 2
	closes  bool      // and whether it then closes the connection
}

const (
	traceparent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
	capable     = `{"protocol_version":2,"supported_versions":[1,2],"supported_message_types":[1,2,3,8,9,240,242],"max_payload_size":1048576,` +
		`"features":["pipelining","correlation","deadlines","headers","subjects","publish","no_reply"]}`
)

func v1(t Type, payload string) Frame {
	return Frame{Version: Version1, Type: t, Payload: []byte(payload)}
}

func v2(t Type, id uint64, payload string) Frame {
	return Frame{Version: Version2, Type: t, CorrelationID: id, Payload: []byte(payload)}
}

func (f Frame) to(subject string) Frame     { f.Subject = []byte(subject); return f }
func (f Frame) with(headers string) Frame   { f.Headers = []byte(headers); return f }
func (f Frame) within(timeout uint32) Frame { f.TimeoutMs = timeout; return f }
func (f Frame) flagged(flags uint16) Frame  { f.Flags = flags; return f }

// goldenFile is a file of good frames.
type goldenFile struct {
	path, about string
	vectors     []vector
}

func goldenFiles() []goldenFile {
	return []goldenFile{
		{"testdata/v1-client.hex", "What a client sends in version 1.", []vector{
			{"task-submit", "a task, sent where the route \"submit\" says", v1(TypeTaskSubmit, `{"task":"x"}`)},
			{"task-submit-empty", "an empty payload is good", v1(TypeTaskSubmit, "")},
			{"task-submit-bytes", "a payload need not be JSON, nor text", v1(TypeTaskSubmit, "\x00\x01\xfe\xff\r\n")},
			{"task-query", "a query, sent where the route \"query\" says", v1(TypeTaskQuery, `{"id":7}`)},
			{"task-cancel", "a cancellation, sent where the route \"cancel\" says", v1(TypeTaskCancel, `{"id":7}`)},
			{"stream-subscribe", "a request for a stream; this release answers INVALID_TYPE", v1(TypeStreamSubscribe, `{"follow":7}`)},
			{"ping", "are you there?", v1(TypePing, "")},
			{"capabilities", "what can you do?", v1(TypeCapabilities, "")},
		}},
		{"testdata/v1-gateway.hex", "What the gateway sends in version 1, but errors: see errors.hex.", []vector{
			{"response-ok", "the reply to a request, as it came", v1(TypeResponseOK, `{"ok":true,"id":7}`)},
			{"response-ok-empty", "the reply was empty", v1(TypeResponseOK, "")},
			{"response-ok-published", "the message of a route in mode publish was written to NATS", v1(TypeResponseOK, `{"ok":true}`)},
			{"response-error", "the request failed", v1(TypeResponseError, string(AppendError(nil, CodeNoResponders, "nobody listens on the subject", true)))},
			{"pong", "the answer to PING", v1(TypePong, "")},
			{"response-ok-capabilities", "the answer to CAPABILITIES", v1(TypeResponseOK, capable)},
			{"stream-data", "one message of a stream; not sent by this release", v1(TypeStreamData, `{"line":1}`)},
			{"stream-complete", "the stream ended well; not sent by this release", v1(TypeStreamComplete, "")},
			{"stream-error", "the stream ended with an error; not sent by this release", v1(TypeStreamError, string(AppendError(nil, CodeTimeout, "no message within 30s", true)))},
		}},
		{"testdata/v2-client.hex", "What a client sends in version 2.", []vector{
			{"request", "a request with everything: subject, headers, deadline of 1500 ms", v2(TypeRequest, 1, `{"order":42}`).to("orders.create").with(traceparent + "Nats-Msg-Id: 42\r\n").within(1500)},
			{"request-plain", "no headers, no deadline of its own, no payload; the largest correlation id", v2(TypeRequest, 1<<64-1, "").to("health.check")},
			{"request-header-forms", "headers without a space, with two, without a value, with a colon, a tab and UTF-8 in the value", v2(TypeRequest, 2, "x").to("a").with("A:b\r\nA:  b\r\nEmpty:\r\nUrl: http://x\r\nTab: a\tb\r\nName: caf\xc3\xa9\r\n")},
			{"request-longest-deadline", "a deadline over 24 hours is cut to 24 hours", v2(TypeRequest, 3, "x").to("a").within(1<<32 - 1)},
			{"request-literal-star", "a star inside a longer token is no wildcard", v2(TypeRequest, 4, "x").to("a*b.>c.d>")},
			{"request-utf8-subject", "bytes from 0x80 are allowed in subjects", v2(TypeRequest, 5, "x").to("caf\xc3\xa9.new")},
			{"publish", "published to the subject; RESPONSE_OK once it was written to NATS", v2(TypePublish, 6, `{"event":"started"}`).to("events.app")},
			{"publish-no-reply", "the same without any answer", v2(TypePublish, 0, `{"event":"tick"}`).to("events.app").flagged(FlagNoReply)},
			{"task-submit", "the route's subject, mode and timeout", v2(TypeTaskSubmit, 7, `{"task":"x"}`)},
			{"task-submit-elsewhere", "another subject, in the route's mode", v2(TypeTaskSubmit, 8, `{"task":"x"}`).to("tasks.special")},
			{"task-query", "with a header", v2(TypeTaskQuery, 9, `{"id":7}`).with("Accept: json\r\n")},
			{"task-cancel", "with a deadline of 250 ms", v2(TypeTaskCancel, 10, `{"id":7}`).within(250)},
			{"ping", "are you there? The payload comes back", v2(TypePing, 11, "12:00:00.000")},
			{"capabilities", "what can you do?", v2(TypeCapabilities, 12, "")},
			{"stream-subscribe", "a request for a stream; this release answers INVALID_TYPE", v2(TypeStreamSubscribe, 13, `{"follow":7}`).to("logs.follow")},
			{"credit", "8 more STREAM_DATA frames are welcome; this release answers INVALID_TYPE", v2(TypeCredit, 13, "\x00\x00\x00\x08")},
			{"cancel", "gives up 13; this release answers INVALID_TYPE", v2(TypeCancel, 13, "")},
			{"subscribe", "a NATS subscription in the queue group \"workers\"; this release answers INVALID_TYPE", v2(TypeSubscribe, 14, "workers").to("events.>")},
		}},
		{"testdata/v2-gateway.hex", "What the gateway sends in version 2.", []vector{
			{"response-ok", "the reply to request 1, with its headers", v2(TypeResponseOK, 1, `{"created":42}`).with("X-Served-By: worker-3\r\n")},
			{"response-ok-plain", "an empty reply without headers; the largest correlation id", v2(TypeResponseOK, 1<<64-1, "")},
			{"response-ok-status", "a reply with an inline NATS status shows it as its first headers", v2(TypeResponseOK, 2, "").with("Status: 408\r\nDescription: Request Timeout\r\n")},
			{"response-ok-published", "publish 6 was written to NATS", v2(TypeResponseOK, 6, "")},
			{"response-error", "request 3 had no reply in time", v2(TypeResponseError, 3, string(AppendError(nil, CodeTimeout, "no reply within 1500ms", true)))},
			{
				"response-error-service", "the service refused request 4; the reply's headers come along",
				v2(TypeResponseError, 4, string(AppendServiceError(nil, []byte("404"), []byte("no such order")))).with("Nats-Service-Error-Code: 404\r\nNats-Service-Error: no such order\r\n"),
			},
			{"pong", "the answer to ping 11", v2(TypePong, 11, "12:00:00.000")},
			{"response-ok-capabilities", "the answer to capabilities 12", v2(TypeResponseOK, 12, capable)},
			{"stream-data", "one message of stream 13, and the subject that it came on; not sent by this release", v2(TypeStreamData, 13, `{"line":1}`).to("_INBOX.x.1").with("Seq: 1\r\n")},
			{"stream-complete", "stream 13 ended well; not sent by this release", v2(TypeStreamComplete, 13, "")},
			{"stream-error", "stream 13 was cancelled; not sent by this release", v2(TypeStreamError, 13, string(AppendError(nil, CodeCancelled, "cancelled by the client", true)))},
		}},
		{"testdata/errors.hex", "An error answer of each code, in version 1, and payloads that need care.", errorVectors()},
	}
}

func errorVectors() []vector {
	var vectors []vector
	for _, code := range ErrorCodes() {
		if code != CodeServiceError {
			vectors = append(vectors, vector{code.Name(), "the code with a message of its own", v1(TypeResponseError, string(AppendError(nil, code, "an example", false)))})
		}
	}
	serviceError := func(code, message string) Frame {
		return v1(TypeResponseError, string(AppendServiceError(nil, []byte(code), []byte(message))))
	}
	return append(vectors,
		vector{"SERVICE_ERROR-number", "service_code is a number", serviceError("400", "bad request")},
		vector{"SERVICE_ERROR-string", "service_code is a string when it is not a plain number", serviceError("E42", "bad request")},
		vector{"SERVICE_ERROR-escapes", "quotes, control characters and bytes that are not UTF-8 in a message", serviceError("007", "say \"no\"\\\t\xff")},
		vector{"sent", "the request may have reached NATS", v1(TypeResponseError, string(AppendError(nil, CodeConnectionClosed, "the NATS connection was lost while the request was in flight", true)))},
		vector{"retry-after", "the gateway says how long to wait before the next try", v1(TypeResponseError, string(AppendRetryError(nil, CodeUnavailable, "requests to this subject go unanswered", false, 4200)))},
	)
}

// badFile is a file of frames that are refused.
type badFile struct {
	path, about string
	vectors     []badVector
}

func badFiles() []badFile {
	frame := func(f Frame) []byte { return AppendFrame(nil, &f) }
	const rest = "\x09\x00\x00" + idSeven + "\x00\x00\x00\x00\x00\x01\x00\x00a" // of a version 2 frame, from the type on
	fatal := []badVector{
		{"length-0", "the length does not include itself", start(0, 1, "\x01"), ErrTooShort, CodeInvalidPayload, 1, 0, true},
		{"length-5", "shorter than any header: the version byte is not even looked at", start(5, 2, ""), ErrTooShort, CodeInvalidPayload, 1, 0, true},
		{"version-0", "no such version", start(6, 0, "\x01"), ErrVersion, CodeInvalidVersion, 1, 0, true},
		{"version-3", "no such version, whatever the length", start(1<<31, 3, "\x01"), ErrVersion, CodeInvalidVersion, 1, 0, true},
		{"http", "another protocol: \"GET \" is read as a length, '/' as the version", []byte("GET / HTTP/1.1\r\n\r\n"), ErrVersion, CodeInvalidVersion, 1, 0, true},
		{"little-endian", "a length of 8 in the wrong byte order is 128 MiB", []byte("\x08\x00\x00\x00\x01\x01hi"), ErrTooLarge, CodeFrameTooLarge, 1, 0, true},
		{"v1-too-large", "one byte over 4 MiB; the payload is not waited for", start(FrameBytesMax+1, 1, "\x01"), ErrTooLarge, CodeFrameTooLarge, 1, 0, true},
		{"v2-length-15", "too short even for a correlation id, which is answered as 0", start(15, 2, "\x09\x00\x00"+idSeven[:7]), ErrTooShort, CodeInvalidPayload, 2, 0, true},
		{"v2-length-23", "one byte short of the header", start(23, 2, rest), ErrTooShort, CodeInvalidPayload, 2, 7, true},
		{"v2-too-large", "one byte over 4 MiB; only the correlation id is waited for", start(FrameBytesMax+1, 2, rest), ErrTooLarge, CodeFrameTooLarge, 2, 7, true},
	}
	malformed := []badVector{
		{"subject", "a subject of 2 bytes in a frame that has room for 1", start(25, 2, "\x09\x00\x00"+idSeven+"\x00\x00\x00\x00\x00\x02\x00\x00a"), ErrMalformed, CodeInvalidPayload, 2, 7, false},
		{"headers", "headers of 7 bytes in a frame that has room for 6", start(31, 2, "\x09\x00\x00"+idSeven+"\x00\x00\x00\x00\x00\x01\x00\x07aA: b\r\n"), ErrMalformed, CodeInvalidPayload, 2, 7, false},
		{"largest", "both lengths at their largest, nothing there", start(24, 2, "\x09\x00\x00"+idSeven+"\x00\x00\x00\x00\xff\xff\xff\xff"), ErrMalformed, CodeInvalidPayload, 2, 7, false},
	}
	content := func(name, about string, f Frame, err error) badVector {
		return badVector{name, about, frame(f), err, CodeInvalidPayload, f.Version, f.CorrelationID, false}
	}
	wrongType := func(name, about string, f Frame) badVector {
		return badVector{name, about, frame(f), nil, CodeInvalidType, f.Version, f.CorrelationID, false}
	}
	request := v2(TypeRequest, 7, "x").to("a")
	refused := []badVector{
		wrongType("v1-response-ok", "only the gateway sends answers", v1(TypeResponseOK, "{}")),
		wrongType("v1-unknown-type", "no such type", v1(0x55, "")),
		wrongType("v1-request", "REQUEST needs version 2: where would the subject be?", v1(TypeRequest, "x")),
		wrongType("v1-publish", "PUBLISH needs version 2", v1(TypePublish, "x")),
		wrongType("v2-pong", "only the gateway sends PONG", v2(TypePong, 7, "")),
		wrongType("v2-unknown-type", "no such type", v2(0xF3, 7, "")),
		content("unknown-flag", "a flag that has no meaning yet", request.flagged(0x0002), nil),
		content("unknown-flag-no-reply", "the same on a PUBLISH with NO_REPLY: it is answered", v2(TypePublish, 7, "x").to("a").flagged(0x8001), nil),
		content("no-reply-request", "NO_REPLY goes with PUBLISH only", request.flagged(FlagNoReply), nil),
		content("subject-empty", "REQUEST and PUBLISH have no route to fall back to", v2(TypeRequest, 7, "x"), ErrSubjectEmpty),
		content("subject-leading-dot", "an empty token", request.to(".a"), ErrSubjectToken),
		content("subject-trailing-dot", "an empty token", request.to("a."), ErrSubjectToken),
		content("subject-double-dot", "an empty token", request.to("a..b"), ErrSubjectToken),
		content("subject-star", "a wildcard", request.to("a.*.b"), ErrSubjectWildcard),
		content("subject-gt", "a wildcard", request.to("a.>"), ErrSubjectWildcard),
		content("subject-space", "a space would end the subject", request.to("a b"), ErrSubjectByte),
		content("subject-line", "a second line of NATS protocol", request.to("a 0\r\n\r\nPUB b"), ErrSubjectByte),
		content("subject-del", "DEL is a control character", request.to("a\x7fb"), ErrSubjectByte),
		content("headers-no-crlf", "the line does not end", request.with("A: b"), ErrHeaderEnd),
		content("headers-lf", "the line ends in LF alone", request.with("A: b\n"), ErrHeaderValue),
		content("headers-cr", "CR inside a value", request.with("A: b\rc\r\n"), ErrHeaderValue),
		content("headers-nul", "NUL inside a value", request.with("A: b\x00\r\n"), ErrHeaderValue),
		content("headers-empty-line", "an empty line would end the header block", request.with("A: b\r\n\r\n"), ErrHeaderName),
		content("headers-no-colon", "a name alone", request.with("A\r\n"), ErrHeaderName),
		content("headers-no-name", "a value alone", request.with(": b\r\n"), ErrHeaderName),
		content("headers-name-space", "a space in a name", request.with("A : b\r\n"), ErrHeaderName),
		content("headers-folded", "a folded line", request.with("A: b\r\n c\r\n"), ErrHeaderName),
		content("headers-status-line", "the NATS status line is the gateway's to write", request.with("NATS/1.0\r\nA: b\r\n"), ErrHeaderName),
	}
	return []badFile{
		{"testdata/invalid/fatal.hex", "Frames after which the connection is closed. Some are whole, of some the beginning is enough.", fatal},
		{"testdata/invalid/malformed.hex", "Whole version 2 frames whose subject and headers do not fit into them. They are skipped, the connection stays.", malformed},
		{"testdata/invalid/refused.hex", "Whole frames that can be read, and are refused for what they say. The connection stays.", refused},
	}
}
