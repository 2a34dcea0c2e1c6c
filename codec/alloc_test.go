//go:build !race

package codec

import (
	"strings"
	"testing"
)

const allocCalls = 10_000

// checkAllocs counts all allocations of one run of many calls: an average would round a leak of one
// in a hundred calls down to nothing.
func checkAllocs(t *testing.T, work func()) {
	t.Helper()
	n := testing.AllocsPerRun(1, func() {
		for range allocCalls {
			work()
		}
	})
	if n != 0 {
		t.Errorf("%v allocations in %d calls, want 0", n, allocCalls)
	}
}

// allocFrames returns the golden frames and a few larger ones.
func allocFrames() []Frame {
	frames := []Frame{
		v1(TypeTaskSubmit, strings.Repeat("x", 32<<10)),
		v2(TypeRequest, 1, strings.Repeat("x", 32<<10)).to("a").with(strings.Repeat("Name: value\r\n", 100)),
	}
	for _, file := range goldenFiles() {
		for _, v := range file.vectors {
			frames = append(frames, v.frame)
		}
	}
	return frames
}

var sink int // keeps results alive, so that no call is optimised away

func TestAllocDecode(t *testing.T) {
	var stream []byte
	for _, f := range allocFrames() {
		stream = AppendFrame(stream, &f)
	}
	var bad [][]byte
	for _, file := range badFiles() {
		for _, v := range file.vectors {
			bad = append(bad, v.bytes)
		}
	}
	checkAllocs(t, func() {
		for rest := stream; len(rest) > 0; {
			f, n, err := Decode(rest)
			if n == 0 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			sink += len(f.Payload) + FrameBytes(rest)
			rest = rest[n:]
		}
		for have := range 200 { // a frame torn at every byte
			_, n, _ := Decode(stream[:have])
			sink += n
		}
		for _, src := range bad {
			_, n, _ := Decode(src)
			sink += n
		}
	})
}

func TestAllocAppend(t *testing.T) {
	frames := allocFrames()
	dst := make([]byte, 0, 256<<10)
	checkAllocs(t, func() {
		dst = dst[:0]
		for i := range frames {
			f := &frames[i]
			dst = AppendFrame(dst, f)
			if f.Version == Version1 {
				dst = AppendHeaderV1(dst, f.Type, len(f.Payload))
			} else {
				dst = AppendHeaderV2(dst, f, len(f.Payload))
			}
		}
		sink += len(dst)
	})
}

func TestAllocValidate(t *testing.T) {
	var subjects, headers [][]byte
	for _, f := range allocFrames() {
		subjects, headers = append(subjects, f.Subject), append(headers, f.Headers)
	}
	for _, file := range badFiles() {
		for _, v := range file.vectors {
			if f, _, err := Decode(v.bytes); err == nil {
				subjects, headers = append(subjects, f.Subject), append(headers, f.Headers)
			}
		}
	}
	checkAllocs(t, func() {
		for i := range subjects {
			if ValidateSubject(subjects[i]) != nil {
				sink++
			}
			if ValidateHeaders(headers[i]) != nil {
				sink++
			}
		}
	})
}

func TestAllocError(t *testing.T) {
	messages := []string{"", "no reply within 30s", "a \"b\" \\ \r\n\x00", "caf\u00e9 \U0001F600 \u2028", "\xff\xfe \xc3", strings.Repeat("x\xff\"", 1000)}
	var asBytes [][]byte
	for _, m := range messages {
		asBytes = append(asBytes, []byte(m))
	}
	code, textCode := []byte("400"), []byte("E\xff42")
	all := ErrorCodes()
	dst := make([]byte, 0, 64<<10)
	checkAllocs(t, func() {
		for i, message := range messages {
			dst = AppendError(dst[:0], all[i], message, true)
			dst = AppendError(dst, all[i], asBytes[i], false)
			dst = AppendRetryError(dst, all[i], message, false, 4200)
			dst = AppendServiceError(dst, code, asBytes[i])
			dst = AppendServiceError(dst, textCode, asBytes[i])
			sink += len(dst) + len(all[i].Name()) + len(TypeTaskSubmit.String())
		}
	})
}
