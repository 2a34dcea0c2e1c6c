package trace

import (
	"bytes"
	"testing"
)

// Goal: whatever the bytes, nothing panics, what is accepted comes out again, and the headers that are made have exactly the
// parent that was put in, with every other line kept.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{
		"", "traceparent: " + example + "\r\n", "A: b\r\nTraceParent:" + example + "\r\nTRACESTATE: a=b,c=d\r\n",
		"traceparent: " + example + "\r\ntraceparent: " + example + "\r\n", "traceparent:\r\n", "traceparent", "\n\r\n:", "x: y",
	} {
		f.Add([]byte(seed))
	}
	ids := NewIDs()
	f.Fuzz(func(t *testing.T, headers []byte) {
		before := bytes.Clone(headers)
		c, ok := ParseHeaders(headers)
		if ok {
			if again, ok := ParseParent(AppendParent(nil, &c)); !ok || again.Trace != c.Trace || again.Span != c.Span || again.Sampled() != c.Sampled() {
				t.Errorf("%+v comes back as %+v", c, again)
			}
		}
		own := Context{Trace: ids.NewTrace(), Span: ids.NewSpan(), Flags: FlagSampled}
		made := AppendHeaders([]byte("kept"), headers, &own, ok)
		if !bytes.HasPrefix(made, []byte("kept")) || len(made) > len("kept")+len(headers)+HeaderBytesMax {
			t.Errorf("%q is made of %q", made, headers)
		}
		if !bytes.Equal(before, headers) {
			t.Errorf("%q was written to", before)
		}
		if len(headers) != 0 && headers[len(headers)-1] != '\n' {
			return // the engine has refused these
		}
		if got, ok := ParseHeaders(made[len("kept"):]); !ok || got != own {
			t.Errorf("%q has the parent %+v, want %+v", made, got, own)
		}
	})
}
