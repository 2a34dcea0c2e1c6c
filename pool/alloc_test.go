//go:build !race

package pool

import "testing"

// One run of many calls: testing.AllocsPerRun divides integers, so a leak of one in a hundred
// calls would round down to nothing.
func TestReuseDoesNotAllocate(t *testing.T) {
	table := NewTable[request](256)
	buffers := NewBuffers(64, 1<<20, 1<<20)
	handles := make([]Handle, 0, 256)
	held := make([]*Buffer, 0, 64)
	work := func() {
		for range 10_000 {
			for len(handles) < cap(handles) {
				h, r := table.Acquire()
				r.id = 1
				handles = append(handles, h)
			}
			for _, h := range handles {
				table.Release(h)
			}
			handles = handles[:0]
			for len(held) < cap(held) {
				b := buffers.Acquire()
				b.B = append(b.B, "some bytes of a frame that came in two reads"...)
				held = append(held, b)
			}
			for _, b := range held {
				buffers.Release(b)
			}
			held = held[:0]
		}
	}
	if n := testing.AllocsPerRun(1, work); n != 0 {
		t.Errorf("%v allocations in 3.2 million calls, want 0", n)
	}
}
