package codec

import (
	"strings"
	"testing"
)

func benchFrames() map[string]Frame {
	payload := strings.Repeat("x", 256)
	return map[string]Frame{
		"v1":         v1(TypeTaskSubmit, payload),
		"v2":         v2(TypeRequest, 1, payload).to("orders.create"),
		"v2-headers": v2(TypeRequest, 1, payload).to("orders.create").with(traceparent + "Nats-Msg-Id: 42\r\n"),
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, f := range benchFrames() {
		b.Run(name, func(b *testing.B) {
			src := AppendFrame(nil, &f)
			b.ReportAllocs()
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				if _, n, err := Decode(src); n != len(src) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for name, f := range benchFrames() {
		b.Run(name, func(b *testing.B) {
			dst := AppendFrame(nil, &f)
			b.ReportAllocs()
			b.SetBytes(int64(len(dst)))
			for b.Loop() {
				dst = AppendFrame(dst[:0], &f)
			}
		})
	}
}

func BenchmarkValidateSubject(b *testing.B) {
	subject := []byte("beamline.router.v1.decide")
	b.ReportAllocs()
	b.SetBytes(int64(len(subject)))
	for b.Loop() {
		if err := ValidateSubject(subject); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidateHeaders(b *testing.B) {
	headers := []byte(traceparent + "Nats-Msg-Id: 42\r\n")
	b.ReportAllocs()
	b.SetBytes(int64(len(headers)))
	for b.Loop() {
		if err := ValidateHeaders(headers); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendError(b *testing.B) {
	for name, message := range map[string]string{"plain": "no reply within 30s", "escaped": "say \"no\"\\\t\xff caf\u00e9"} {
		b.Run(name, func(b *testing.B) {
			dst := AppendError(nil, CodeTimeout, message, true)
			b.ReportAllocs()
			b.SetBytes(int64(len(dst)))
			for b.Loop() {
				dst = AppendError(dst[:0], CodeTimeout, message, true)
			}
		})
	}
}
