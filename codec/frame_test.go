package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// Bytes written down by hand from the protocol's tables, so that a mistake shared by Decode and
// AppendFrame has no place to hide.
func TestFrameByHand(t *testing.T) {
	for _, c := range []struct {
		bytes string
		want  Frame
	}{
		{"\x00\x00\x00\x06\x01\xf0", Frame{Version: 1, Type: 0xF0}},
		{"\x00\x00\x00\x08\x01\x02hi", Frame{Version: 1, Type: 2, Payload: []byte("hi")}},
		{
			"\x00\x00\x00\x18\x02\xf0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			Frame{Version: 2, Type: 0xF0},
		},
		{
			"\x00\x00\x00\x24\x02\x08\x00\x01\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x00\x03\x00\x06a.bK: v\r\nxyz",
			Frame{
				Version: 2, Type: 8, Flags: 1, CorrelationID: 0x0102030405060708, TimeoutMs: 0x11121314,
				Subject: []byte("a.b"), Headers: []byte("K: v\r\n"), Payload: []byte("xyz"),
			},
		},
	} {
		if got := AppendFrame(nil, &c.want); string(got) != c.bytes {
			t.Errorf("AppendFrame: got %q, want %q", got, c.bytes)
		}
		got, n, err := Decode([]byte(c.bytes + "next"))
		if err != nil || n != len(c.bytes) {
			t.Fatalf("%q: n %d, error %v, want %d and none", c.bytes, n, err, len(c.bytes))
		}
		checkFrame(t, &got, &c.want)
	}
}

func checkFrame(t *testing.T, got, want *Frame) {
	t.Helper()
	if !equalFrames(got, want) {
		t.Errorf("got %+v, want %+v", *got, *want)
	}
}

func equalFrames(a, b *Frame) bool {
	return a.Version == b.Version && a.Type == b.Type && a.Flags == b.Flags && a.CorrelationID == b.CorrelationID &&
		a.TimeoutMs == b.TimeoutMs && bytes.Equal(a.Subject, b.Subject) && bytes.Equal(a.Headers, b.Headers) && bytes.Equal(a.Payload, b.Payload)
}

// start returns the first bytes of a frame: the length, the version and the rest.
func start(length uint32, version byte, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, length)
	b = append(b, version)
	return append(b, rest...)
}

const idSeven = "\x00\x00\x00\x00\x00\x00\x00\x07"

// What is wrong is said at the byte that makes it certain, not before, and is still said so
// whatever follows.
func TestDecodeFatal(t *testing.T) {
	v2 := func(length uint32) []byte { return start(length, 2, "\x09\x00\x01"+idSeven+strings.Repeat("\xee", 40)) }
	for _, c := range []struct {
		name string
		src  []byte
		at   int // bytes that are needed to be certain
		want Frame
		err  error
	}{
		{"length 0", start(0, 1, "\x01 more"), 4, Frame{Version: 1}, ErrTooShort},
		{"length 5", start(5, 2, "\x01 more"), 4, Frame{Version: 1}, ErrTooShort},
		{"length 5 of no version", start(5, 9, "\x01 more"), 4, Frame{Version: 1}, ErrTooShort},
		{"version 0", start(6, 0, "\x01 more"), 5, Frame{Version: 1}, ErrVersion},
		{"version 3", start(30, 3, "\x01 more"), 5, Frame{Version: 1}, ErrVersion},
		{"version 3, large", start(1<<31, 3, "\x01 more"), 5, Frame{Version: 1}, ErrVersion},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), 5, Frame{Version: 1}, ErrVersion},
		{"version 1, large", start(FrameBytesMax+1, 1, "\x01 more"), 5, Frame{Version: 1, Type: 1}, ErrTooLarge},
		{"version 1, largest length", start(1<<32-1, 1, "\x01 more"), 5, Frame{Version: 1, Type: 1}, ErrTooLarge},
		{"version 2, length 6", v2(6), 6, Frame{Version: 2, Type: 9}, ErrTooShort},
		{"version 2, length 15", v2(15), 6, Frame{Version: 2, Type: 9}, ErrTooShort},
		{"version 2, length 16", v2(16), 16, Frame{Version: 2, Type: 9, Flags: 1, CorrelationID: 7}, ErrTooShort},
		{"version 2, length 23", v2(23), 16, Frame{Version: 2, Type: 9, Flags: 1, CorrelationID: 7}, ErrTooShort},
		{"version 2, large", v2(FrameBytesMax + 1), 16, Frame{Version: 2, Type: 9, Flags: 1, CorrelationID: 7}, ErrTooLarge},
		{"version 2, largest length", v2(1<<32 - 1), 16, Frame{Version: 2, Type: 9, Flags: 1, CorrelationID: 7}, ErrTooLarge},
	} {
		for have := range len(c.src) + 1 {
			got, n, err := Decode(c.src[:have])
			if n != 0 {
				t.Fatalf("%s, %d bytes: n is %d", c.name, have, n)
			}
			want := c.want
			if have < c.at {
				if err != nil {
					t.Fatalf("%s, %d bytes: %v, want to wait for %d", c.name, have, err, c.at)
				}
				want = Frame{}
			} else if !errors.Is(err, c.err) {
				t.Fatalf("%s, %d bytes: got %v, want %v", c.name, have, err, c.err)
			}
			if have == 5 {
				want.Type = 0 // it did not arrive yet
			}
			checkFrame(t, &got, &want)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	for _, c := range []struct {
		name             string
		subject, headers uint16
		rest             string
	}{
		{"subject", 1, 0, ""},
		{"headers", 0, 1, ""},
		{"one byte short", 3, 3, "abcde"},
		{"largest", 0xFFFF, 0xFFFF, "abcde"},
	} {
		src := start(uint32(HeaderBytesV2+len(c.rest)), 2, "\x08\x80\x01"+idSeven+"\x00\x00\x00\x09")
		src = binary.BigEndian.AppendUint16(src, c.subject)
		src = binary.BigEndian.AppendUint16(src, c.headers)
		src = append(src, c.rest...)
		for have := range src {
			if f, n, err := Decode(src[:have]); n != 0 || err != nil {
				t.Fatalf("%s: %d of %d bytes: got %+v, %d, %v", c.name, have, len(src), f, n, err)
			}
		}
		got, n, err := Decode(append(src, "next"...))
		if !errors.Is(err, ErrMalformed) || n != len(src) {
			t.Errorf("%s: got %d, %v, want %d, ErrMalformed", c.name, n, err, len(src))
		}
		checkFrame(t, &got, &Frame{Version: 2, Type: 8, Flags: 0x8001, CorrelationID: 7})
	}
}

// The largest frame of either version is good, and its slices cannot be appended to into what
// follows it.
func TestDecodeLargest(t *testing.T) {
	for _, f := range []Frame{
		{Version: Version1, Type: TypeTaskSubmit, Payload: make([]byte, FrameBytesMax-HeaderBytesV1)},
		{
			Version: Version2, Type: TypeRequest, Subject: make([]byte, SubjectBytesMax), Headers: make([]byte, HeadersBytesMax),
			Payload: make([]byte, FrameBytesMax-HeaderBytesV2-SubjectBytesMax-HeadersBytesMax),
		},
	} {
		src := append(AppendFrame(nil, &f), "next"...)
		got, n, err := Decode(src)
		if n != FrameBytesMax || err != nil {
			t.Fatalf("version %d: got %d, %v", f.Version, n, err)
		}
		if !equalFrames(&got, &f) {
			t.Errorf("version %d: the frame is another one", f.Version)
		}
		for _, part := range [][]byte{got.Subject, got.Headers, got.Payload} {
			if len(part) != cap(part) {
				t.Errorf("version %d: a slice of %d bytes has room for %d", f.Version, len(part), cap(part))
			}
		}
	}
}

func TestFrameBytes(t *testing.T) {
	for src, want := range map[string]int{
		"": 0, "\x00\x00\x01": 0, "\x00\x00\x00\x06": 6, "\x00\x00\x01\x02\x01": 258, "\x00\x00\x00\x00": 0, "\xff\xff\xff\xff": 1<<32 - 1,
	} {
		if got := FrameBytes([]byte(src)); got != want {
			t.Errorf("%q: got %d, want %d", src, got, want)
		}
	}
}

// A header and a payload that are appended apart make the same frame as AppendFrame.
func TestAppendHeader(t *testing.T) {
	v1 := Frame{Version: Version1, Type: TypeResponseOK, Payload: []byte("payload")}
	if got := append(AppendHeaderV1([]byte("front"), v1.Type, 7), v1.Payload...); string(got) != "front"+string(AppendFrame(nil, &v1)) {
		t.Errorf("version 1: got %q", got)
	}
	v2 := Frame{Version: Version2, Type: TypeResponseOK, CorrelationID: 5, Subject: []byte("s"), Headers: []byte("H: v\r\n"), Payload: []byte("payload")}
	without := v2
	without.Payload = nil
	if got := append(AppendHeaderV2([]byte("front"), &without, 7), v2.Payload...); string(got) != "front"+string(AppendFrame(nil, &v2)) {
		t.Errorf("version 2: got %q", got)
	}
}

func TestAppendPanics(t *testing.T) {
	for name, appendBad := range map[string]func(){
		"no version":           func() { AppendFrame(nil, &Frame{Type: TypePing}) },
		"version 3":            func() { AppendFrame(nil, &Frame{Version: 3}) },
		"v1 flags":             func() { AppendFrame(nil, &Frame{Version: 1, Flags: 1}) },
		"v1 correlation id":    func() { AppendFrame(nil, &Frame{Version: 1, CorrelationID: 1}) },
		"v1 timeout":           func() { AppendFrame(nil, &Frame{Version: 1, TimeoutMs: 1}) },
		"v1 subject":           func() { AppendFrame(nil, &Frame{Version: 1, Subject: []byte("a")}) },
		"v1 headers":           func() { AppendFrame(nil, &Frame{Version: 1, Headers: []byte("A: b\r\n")}) },
		"v1 large":             func() { AppendFrame(nil, &Frame{Version: 1, Payload: make([]byte, FrameBytesMax-5)}) },
		"v1 header, large":     func() { AppendHeaderV1(nil, TypePong, FrameBytesMax-HeaderBytesV1+1) },
		"v1 header, negative":  func() { AppendHeaderV1(nil, TypePong, -1) },
		"v2 subject":           func() { AppendFrame(nil, &Frame{Version: 2, Subject: make([]byte, SubjectBytesMax+1)}) },
		"v2 headers":           func() { AppendFrame(nil, &Frame{Version: 2, Headers: make([]byte, HeadersBytesMax+1)}) },
		"v2 large":             func() { AppendFrame(nil, &Frame{Version: 2, Payload: make([]byte, FrameBytesMax-23)}) },
		"v2 large with fields": func() { AppendHeaderV2(nil, &Frame{Subject: []byte("a")}, FrameBytesMax-HeaderBytesV2) },
		"v2 header, negative":  func() { AppendHeaderV2(nil, &Frame{}, -1) },
	} {
		func() {
			defer func() {
				if message, _ := recover().(string); !strings.HasPrefix(message, "codec: ") {
					t.Errorf("%s: recovered %q, want a panic of codec's", name, message)
				}
			}()
			appendBad()
		}()
	}
}

// Goal: whatever part of a frame there is, what arrived of its version, type and id is told, and nothing else.
func TestPartialHeader(t *testing.T) {
	whole1 := AppendFrame(nil, &Frame{Version: Version1, Type: TypePing, Payload: []byte("payload that is no header")})
	whole2 := AppendFrame(nil, &Frame{Version: Version2, Type: TypeRequest, CorrelationID: 1<<63 + 5, Subject: []byte("a")})
	for n := range whole1 {
		want := Frame{Version: Version1}
		if n > offsetType {
			want.Type = TypePing
		}
		if got := PartialHeader(whole1[:n]); !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes of version 1: %+v, want %+v", n, got, want)
		}
	}
	for n := range whole2 {
		want := Frame{Version: Version1}
		if n > offsetVersion {
			want.Version = Version2
		}
		if n > offsetType {
			want.Type = TypeRequest
		}
		if n >= offsetTimeout {
			want.CorrelationID = 1<<63 + 5
		}
		if got := PartialHeader(whole2[:n]); !reflect.DeepEqual(got, want) {
			t.Errorf("%d bytes of version 2: %+v, want %+v", n, got, want)
		}
	}
}
