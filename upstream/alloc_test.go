//go:build !race

package upstream

import (
	"bytes"
	"io"
	"testing"
)

// One run of many calls: an average would round down to nothing.
func TestPublishFlushAndParseDoNotAllocate(t *testing.T) {
	l, loop, server := openLink(t, 1<<20)
	loop.delivered = nil
	taken := make([]byte, 64<<10)
	subject, headers := []byte("app.subject"), []byte("Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n")
	payload := bytes.Repeat([]byte("p"), 256)
	reply := []byte("HMSG _INBOX.test.00000000007 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\nMSG _INBOX.test.00000000008 1 5\r\nhello\r\n")
	work := func() {
		for i := range 10_000 {
			for token := range uint64(4) {
				if _, err := l.Publish(subject, headers, payload, token, true); err != nil {
					t.Fatal(err)
				}
				if _, err := l.Publish(subject, nil, payload, token, false); err != nil {
					t.Fatal(err)
				}
			}
			pending := l.PendingBytes()
			l.Flush()
			if _, err := io.ReadFull(server, taken[:pending]); err != nil {
				t.Fatal(err)
			}
			cut := i % len(reply)
			l.wire.Received(reply[:cut])
			l.wire.Received(reply[cut:])
		}
	}
	// The count is of the whole process. The runtime's own, as for a thread more on a busy machine, do not come every time.
	fewest := testing.AllocsPerRun(1, work)
	for tries := 1; fewest != 0 && tries < 20; tries++ {
		fewest = min(fewest, testing.AllocsPerRun(1, work))
	}
	if fewest != 0 {
		t.Errorf("%v allocations in 80,000 messages out and 20,000 in, want 0", fewest)
	}
}
