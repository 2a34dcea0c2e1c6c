package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
)

// seedFrames calls add with the bytes of every golden frame, good and bad.
func seedFrames(add func([]byte)) {
	for _, file := range goldenFiles() {
		for _, v := range file.vectors {
			add(AppendFrame(nil, &v.frame))
		}
	}
	for _, file := range badFiles() {
		for _, v := range file.vectors {
			add(v.bytes)
		}
	}
}

// event is what Decode made of a piece of a stream.
type event struct {
	frame Frame
	bytes int
	err   error
}

// FuzzDecode takes a stream apart as a whole and again in chunks, and puts its frames together
// again. chunks holds the sizes of the chunks; an empty one means one byte at a time.
func FuzzDecode(f *testing.F) {
	var stream []byte
	seedFrames(func(frame []byte) {
		f.Add(frame, []byte{1})
		if _, _, err := Decode(frame); err == nil {
			stream = append(stream, frame...)
		}
	})
	f.Add(stream, []byte{})
	f.Add(stream, []byte{3, 40, 7})
	f.Fuzz(func(t *testing.T, stream, chunks []byte) {
		whole, _ := decodeAll(t, nil, stream)
		var chunked []event
		var rest []byte
		for at, i := 0, 0; at < len(stream); i++ {
			size := 1
			if len(chunks) > 0 {
				size = max(int(chunks[i%len(chunks)]), 1)
			}
			next := min(at+size, len(stream))
			rest = append(bytes.Clone(rest), stream[at:next]...) // the frames so far borrow the old rest
			at = next
			chunked, rest = decodeAll(t, chunked, rest)
			if len(chunked) > 0 && chunked[len(chunked)-1].bytes == 0 {
				break // fatal
			}
		}
		if len(whole) != len(chunked) {
			t.Fatalf("%d frames in one piece, %d in chunks", len(whole), len(chunked))
		}
		for i := range whole {
			a, b := whole[i], chunked[i]
			if a.bytes == 0 {
				a.frame.Type, b.frame.Type = 0, 0 // may not have arrived when the verdict was certain
			}
			if a.bytes != b.bytes || !errors.Is(a.err, b.err) || !equalFrames(&a.frame, &b.frame) {
				t.Fatalf("event %d: %+v in one piece, %+v in chunks", i, a, b)
			}
		}
	})
}

// decodeAll appends to events what Decode finds at the front of src, which it checks, and returns
// what is behind that. The last event has no bytes if it is a fatal one.
func decodeAll(t *testing.T, events []event, src []byte) (all []event, rest []byte) {
	t.Helper()
	for {
		f, n, err := Decode(src)
		if n < 0 || n > len(src) {
			t.Fatalf("n is %d of %d bytes", n, len(src))
		}
		if n == 0 {
			if err == nil {
				if !equalFrames(&f, &Frame{}) {
					t.Fatalf("a part of a frame is %+v", f)
				}
				return events, src
			}
			if !errors.Is(err, ErrVersion) && !errors.Is(err, ErrTooShort) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("fatal error %v", err)
			}
			if f.Version != Version1 && f.Version != Version2 || f.Version == Version1 && f.CorrelationID != 0 {
				t.Fatalf("%v is to be answered in version %d, id %d", err, f.Version, f.CorrelationID)
			}
			return append(events, event{f, 0, err}), src
		}
		if n != FrameBytes(src) {
			t.Fatalf("n is %d, the stated length %d", n, FrameBytes(src))
		}
		if err == nil {
			if again := AppendFrame(nil, &f); !bytes.Equal(again, src[:n]) {
				t.Fatalf("% x encodes to % x", src[:n], again)
			}
		} else if !errors.Is(err, ErrMalformed) || f.Version != Version2 || len(f.Subject)+len(f.Headers)+len(f.Payload) != 0 {
			t.Fatalf("%v with n %d and %+v", err, n, f)
		}
		events = append(events, event{f, n, err})
		src = src[n:]
	}
}

// FuzzAppendFrame goes the other way: a frame of any fields decodes to itself.
func FuzzAppendFrame(f *testing.F) {
	f.Add(true, byte(TypeRequest), uint16(0), uint64(1), uint32(1500), []byte("a.b"), []byte("K: v\r\n"), []byte("payload"))
	f.Add(false, byte(TypeTaskSubmit), uint16(0), uint64(0), uint32(0), []byte(nil), []byte(nil), []byte("payload"))
	f.Fuzz(func(t *testing.T, second bool, kind byte, flags uint16, id uint64, timeout uint32, subject, headers, payload []byte) {
		want := Frame{Version: Version1, Type: Type(kind), Payload: payload}
		if second {
			want = Frame{Version2, Type(kind), flags, id, timeout, subject, headers, payload}
		}
		if len(subject) > SubjectBytesMax || len(headers) > HeadersBytesMax {
			return
		}
		encoded := AppendFrame([]byte("front"), &want)
		if !bytes.HasPrefix(encoded, []byte("front")) {
			t.Fatalf("dst was changed to %q", encoded[:5])
		}
		encoded = encoded[5:]
		got, n, err := Decode(encoded)
		if err != nil || n != len(encoded) || !equalFrames(&got, &want) {
			t.Fatalf("%+v decodes to %+v, %d of %d bytes, %v", want, got, n, len(encoded), err)
		}
		if _, n, err := Decode(encoded[:len(encoded)-1]); n != 0 || err != nil {
			t.Fatalf("a byte short: %d, %v", n, err)
		}
	})
}

// latin1 turns each byte into the character of that number, so that a regular expression sees bytes.
func latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

var slowHeaders = regexp.MustCompile(`\A(?:[!-9;-~]+:[\t -~\x{80}-\x{ff}]*\r\n)*\z`)

// FuzzValidateHeaders holds the verdict against a regular expression, and a good block against
// nats.go: it must be all of the block that NATS sees.
func FuzzValidateHeaders(f *testing.F) {
	for _, seed := range []string{"", "A: b\r\n", "A:b\r\nC:\r\n", "A: b\r\n\r\n", "A: \xff\t\r\n", "A b: c\r\n", "NATS/1.0\r\n\r\n", "A: b\rc\r\n", "A: b\n"} {
		f.Add([]byte(seed))
	}
	seedFrames(func(frame []byte) {
		if decoded, _, err := Decode(frame); err == nil {
			f.Add(decoded.Headers)
		}
	})
	f.Fuzz(func(t *testing.T, headers []byte) {
		err := ValidateHeaders(headers)
		if good := slowHeaders.MatchString(latin1(headers)); good != (err == nil) {
			t.Fatalf("%q: got %v, the slow way says %v", headers, err, good)
		}
		if err != nil {
			return
		}
		block := "NATS/1.0\r\n" + string(headers) + "\r\n"
		decoded, err := nats.DecodeHeadersMsg([]byte(block))
		if err != nil {
			t.Fatalf("nats.go refuses %q: %v", block, err)
		}
		values := 0
		for _, v := range decoded {
			values += len(v)
		}
		if lines := strings.Count(string(headers), "\r\n"); values != lines {
			t.Fatalf("nats.go sees %d headers in the %d lines of %q: %v", values, lines, headers, decoded)
		}
		if decoded, err := nats.DecodeHeadersMsg([]byte(block[:len(block)-1])); err == nil {
			t.Fatalf("the block %q ends before its end: %v", block, decoded)
		}
	})
}

var controlBytes = regexp.MustCompile(`[\x00-\x20\x7f]`)

// slowSubject is nats-server's IsValidLiteralSubject, and the rule on bytes and length, which it
// leaves to the parser of its protocol.
func slowSubject(subject []byte) bool {
	if len(subject) > PublishSubjectBytesMax || controlBytes.Match(subject) {
		return false
	}
	for token := range strings.SplitSeq(string(subject), ".") {
		if token == "" || token == "*" || token == ">" {
			return false
		}
	}
	return true
}

func FuzzValidateSubject(f *testing.F) {
	for _, seed := range []string{"", "a", "a.b", ".", "a..b", "a.*", "a*.>b", ">", "a b", "a\x7f", "\xff.\x80", "a\r\n", strings.Repeat("a", PublishSubjectBytesMax+1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, subject []byte) {
		if err := ValidateSubject(subject); slowSubject(subject) != (err == nil) {
			t.Fatalf("%q: got %v, the slow way says good is %v", subject, err, slowSubject(subject))
		}
	})
}

var plainNumber = regexp.MustCompile(`\A(?:0|[1-9][0-9]{0,8})\z`)

// FuzzAppendError makes error payloads of any text. They must be JSON that says the same.
func FuzzAppendError(f *testing.F) {
	f.Add(byte(CodeTimeout), true, []byte("no reply within 30s"), []byte("400"))
	f.Add(byte(CodeInternal), false, []byte("\"\\\x00\x1f\x7f\xff\xed\xa0\x80\xe2\x80\xa8\xf0\x9f\x98\x80\xf0\x9f"), []byte("007"))
	f.Add(byte(200), false, []byte(nil), []byte("\xc3"))
	f.Fuzz(func(t *testing.T, number byte, sent bool, message, serviceCode []byte) {
		code := ErrorCode(number)
		payload := AppendError(nil, code, message, sent)
		if !bytes.Equal(payload, AppendError(nil, code, string(message), sent)) {
			t.Fatalf("%q differs as a string and as bytes", message)
		}
		text := string([]rune(string(message))) // each byte that is not UTF-8 becomes U+FFFD
		checkError(t, payload, ErrorInfo{Code: int(number), Name: code.Name(), Message: text, Retryable: code.Retryable(), Sent: sent})

		var shown any = string([]rune(string(serviceCode)))
		if plainNumber.Match(serviceCode) {
			shown = json.Number(serviceCode)
		}
		checkError(t, AppendServiceError(nil, serviceCode, message), ErrorInfo{Code: 13, Name: "SERVICE_ERROR", Message: text, Sent: true, ServiceCode: shown})
		retryAfterMs := int64(number) + 1
		checkError(t, AppendRetryError(nil, code, message, sent, retryAfterMs),
			ErrorInfo{Code: int(number), Name: code.Name(), Message: text, Retryable: code.Retryable(), Sent: sent, RetryAfterMs: retryAfterMs})
	})
}

func checkError(t *testing.T, payload []byte, want ErrorInfo) {
	t.Helper()
	if !json.Valid(payload) || !utf8.Valid(payload) {
		t.Fatalf("%q is not JSON in UTF-8", payload)
	}
	got, err := ParseError(payload)
	if err != nil || got != want {
		t.Fatalf("%s says %+v, %v, want %+v", payload, got, err, want)
	}
}
