package codec

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestAppendError(t *testing.T) {
	for _, c := range []struct {
		code    ErrorCode
		message string
		sent    bool
		want    string
	}{
		{CodeTimeout, "no reply within 30s", true, `{"ok":false,"error":{"code":5,"name":"TIMEOUT","message":"no reply within 30s","retryable":true,"sent":true}}`},
		{CodeInternal, "", false, `{"ok":false,"error":{"code":99,"name":"INTERNAL","message":"","retryable":false,"sent":false}}`},
		{CodeInvalidPayload, "a\"b\\c\nd\x00\x1f/\x7f", false, `{"ok":false,"error":{"code":4,"name":"INVALID_PAYLOAD","message":"a\"b\\c\u000ad\u0000\u001f/` + "\x7f" + `","retryable":false,"sent":false}}`},
		{CodeInternal, "\xff\xfe\xc3 \xc3\xa9 \xf0\x9f\x98\x80 \xed\xa0\x80 \xf0\x9f", false, `{"ok":false,"error":{"code":99,"name":"INTERNAL","message":"` + "\uFFFD\uFFFD\uFFFD \u00e9 \U0001F600 \uFFFD\uFFFD\uFFFD \uFFFD\uFFFD" + `","retryable":false,"sent":false}}`},
		{CodeInternal, "kept: \uFFFD", false, `{"ok":false,"error":{"code":99,"name":"INTERNAL","message":"kept: ` + "\uFFFD" + `","retryable":false,"sent":false}}`},
	} {
		for form, got := range map[string][]byte{
			"string": AppendError([]byte("front "), c.code, c.message, c.sent),
			"bytes":  AppendError([]byte("front "), c.code, []byte(c.message), c.sent),
		} {
			if want := "front " + c.want; string(got) != want {
				t.Errorf("%s: got\n%q, want\n%q", form, got, want)
			}
			if !json.Valid(got[len("front "):]) {
				t.Errorf("%s: %s is not valid JSON", form, got)
			}
		}
	}
}

func TestAppendServiceError(t *testing.T) {
	for code, want := range map[string]string{
		"400": "400", "0": "0", "7": "7", "999999999": "999999999",
		"": `""`, "1000000000": `"1000000000"`, "007": `"007"`, "00": `"00"`, "-1": `"-1"`, "+1": `"+1"`, "1.5": `"1.5"`, "1e3": `"1e3"`,
		" 4": `" 4"`, "E_\"x": `"E_\"x"`, "\xff": "\"\uFFFD\"", "\u0663": "\"\u0663\"",
	} {
		got := string(AppendServiceError(nil, []byte(code), []byte("it is \"bad\"")))
		want := `{"ok":false,"error":{"code":13,"name":"SERVICE_ERROR","message":"it is \"bad\"","retryable":false,"sent":true,"service_code":` + want + `}}`
		if got != want {
			t.Errorf("%q: got\n%s, want\n%s", code, got, want)
		}
		info, err := ParseError([]byte(got))
		if err != nil {
			t.Errorf("%q: %v", code, err)
		}
		switch serviceCode := info.ServiceCode.(type) {
		case json.Number:
			if serviceCode.String() != code {
				t.Errorf("%q: service code is the number %s", code, serviceCode)
			}
		case string:
			if serviceCode != strings.ToValidUTF8(code, "\uFFFD") {
				t.Errorf("%q: service code is the string %q", code, serviceCode)
			}
		default:
			t.Errorf("%q: service code is %v", code, info.ServiceCode)
		}
	}
}

func TestAppendRetryError(t *testing.T) {
	for form, got := range map[string][]byte{
		"string": AppendRetryError([]byte("front "), CodeUnavailable, "a \"pause\"", false, 4200),
		"bytes":  AppendRetryError([]byte("front "), CodeUnavailable, []byte("a \"pause\""), false, 4200),
	} {
		want := `front {"ok":false,"error":{"code":8,"name":"UNAVAILABLE","message":"a \"pause\"","retryable":true,"sent":false,"retry_after_ms":4200}}`
		if string(got) != want {
			t.Errorf("%s: got\n%s, want\n%s", form, got, want)
		}
		info, err := ParseError(got[len("front "):])
		if want := (ErrorInfo{Code: 8, Name: "UNAVAILABLE", Message: `a "pause"`, Retryable: true, RetryAfterMs: 4200}); err != nil || info != want {
			t.Errorf("%s: read as %+v, %v", form, info, err)
		}
	}
}

// Goal: the ids come last in an error object of any kind, and a client finds them.
func TestAppendTrace(t *testing.T) {
	traceID, spanID := []byte("0123456789abcdef"), []byte("\x00\xff<\"trac")
	for _, object := range [][]byte{
		AppendError([]byte("front "), CodeTimeout, "}}", true), AppendRetryError([]byte("front "), CodeUnavailable, "x", false, 7),
		AppendServiceError([]byte("front "), []byte("x"), nil),
	} {
		before := len(object)
		got := AppendTrace(object, traceID, spanID)
		const ids = `,"trace_id":"30313233343536373839616263646566","span_id":"00ff3c2274726163"}}`
		if len(got) != before+TraceBytesMax || !strings.HasSuffix(string(got), ids) {
			t.Errorf("got %s", got)
		}
		info, err := ParseError(got[len("front "):])
		if err != nil || info.TraceID != "30313233343536373839616263646566" || info.SpanID != "00ff3c2274726163" {
			t.Errorf("%s is read as %+v, %v", got, info, err)
		}
	}
}

func TestParseError(t *testing.T) {
	want := ErrorInfo{Code: 12, Name: "SHUTTING_DOWN", Message: "later \u00e9", Retryable: true, Sent: false}
	got, err := ParseError(AppendError(nil, CodeShuttingDown, "later \u00e9", false))
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = ParseError([]byte(` {"error":{"code":200,"name":"NEW","hint":[1]},"ok":false,"more":{}} `))
	if want := (ErrorInfo{Code: 200, Name: "NEW"}); err != nil || got != want {
		t.Errorf("a newer gateway: got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{
		"", "null", "[]", "{}", `"x"`, `{"ok":true}`, `{"ok":false}`, `{"error":{"code":1}}`, `{"ok":true,"error":{"code":1}}`,
		`{"ok":false,"error":null}`, `{"ok":false,"error":"x"}`, `{"ok":false,"error":{"code":1}`, `{"ok":false,"error":{"code":1}} x`,
	} {
		if _, err := ParseError([]byte(bad)); !errors.Is(err, ErrNotErrorPayload) {
			t.Errorf("%s: got %v, want ErrNotErrorPayload", bad, err)
		}
	}
}

// The whole table, as the protocol has it.
func TestErrorCodes(t *testing.T) {
	want := []struct {
		code      ErrorCode
		number    int
		name      string
		retryable bool
	}{
		{CodeInvalidVersion, 1, "INVALID_VERSION", false},
		{CodeInvalidType, 2, "INVALID_TYPE", false},
		{CodeFrameTooLarge, 3, "FRAME_TOO_LARGE", false},
		{CodeInvalidPayload, 4, "INVALID_PAYLOAD", false},
		{CodeTimeout, 5, "TIMEOUT", true},
		{CodeConnectionClosed, 6, "CONNECTION_CLOSED", true},
		{CodeOverloaded, 7, "OVERLOADED", true},
		{CodeUnavailable, 8, "UNAVAILABLE", true},
		{CodeNoResponders, 9, "NO_RESPONDERS", true},
		{CodeUnauthorized, 10, "UNAUTHORIZED", false},
		{CodeRateLimited, 11, "RATE_LIMITED", true},
		{CodeShuttingDown, 12, "SHUTTING_DOWN", true},
		{CodeServiceError, 13, "SERVICE_ERROR", false},
		{CodeCancelled, 14, "CANCELLED", false},
		{CodeInternal, 99, "INTERNAL", false},
	}
	all := ErrorCodes()
	if len(all) != len(want) {
		t.Fatalf("there are %d codes, want %d", len(all), len(want))
	}
	for i, w := range want {
		if all[i] != w.code || int(w.code) != w.number || w.code.Name() != w.name || w.code.Retryable() != w.retryable {
			t.Errorf("code %d: got %d %s retryable %v, want %d %s %v", i, all[i], w.code.Name(), w.code.Retryable(), w.number, w.name, w.retryable)
		}
	}
	for code, name := range map[ErrorCode]string{CodeOK: "OK", 15: "UNKNOWN", 255: "UNKNOWN"} {
		if code.Name() != name || code.Retryable() {
			t.Errorf("code %d: got %s retryable %v, want %s, not retryable", code, code.Name(), code.Retryable(), name)
		}
	}
}

func TestTypeString(t *testing.T) {
	want := map[Type]string{
		0x01: "TASK_SUBMIT", 0x02: "TASK_QUERY", 0x03: "TASK_CANCEL", 0x04: "STREAM_SUBSCRIBE", 0x05: "STREAM_DATA",
		0x06: "STREAM_COMPLETE", 0x07: "STREAM_ERROR", 0x08: "PUBLISH", 0x09: "REQUEST", 0x0A: "CANCEL", 0x0B: "CREDIT",
		0x0C: "SUBSCRIBE", 0x10: "RESPONSE_OK", 0x11: "RESPONSE_ERROR", 0xF0: "PING", 0xF1: "PONG", 0xF2: "CAPABILITIES",
	}
	for i := range 256 {
		got := Type(i).String()
		if name, known := want[Type(i)]; known && got != name {
			t.Errorf("type %#x is %s, want %s", i, got, name)
		} else if !known && got != "0x"+string(hexDigits[i>>4])+string(hexDigits[i&15]) {
			t.Errorf("type %#x is %s, want its value", i, got)
		}
	}
}

func TestCapabilitiesJSON(t *testing.T) {
	got, err := json.Marshal(Capabilities{2, []int{1, 2}, []int{1, 240}, 4194298, []string{"headers"}})
	want := `{"protocol_version":2,"supported_versions":[1,2],"supported_message_types":[1,240],"max_payload_size":4194298,"features":["headers"]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
