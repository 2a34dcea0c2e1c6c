package pool

import "testing"

func TestBuffersReuseUpToTheirCaps(t *testing.T) {
	buffers := NewBuffers(2, 1024, 1<<20)
	a, b, c := buffers.Acquire(), buffers.Acquire(), buffers.Acquire()
	a.B = append(a.B, make([]byte, 100)...)
	b.B = append(b.B, make([]byte, 100_000)...)
	c.B = append(c.B, 1)

	buffers.Release(b)
	if got := buffers.Counts.Available(); got != 0 || b.B != nil {
		t.Errorf("an oversized buffer was kept: available %d", got)
	}
	buffers.Release(a)
	if got := buffers.Acquire(); got != a || len(got.B) != 0 || cap(got.B) < 100 {
		t.Errorf("Acquire = %p with %d of %d bytes, want %p emptied", got, len(got.B), cap(got.B), a)
	}
	buffers.Release(a)
	buffers.Release(c)
	d := &Buffer{acquired: true, below: buffers.pool.Get()}
	buffers.Counts.acquired.Add(1)
	buffers.Release(d)
	if got := buffers.Counts.Available(); got != 2 {
		t.Errorf("available = %d, want the cap of 2", got)
	}
	if n := &buffers.Counts; n.Acquired() != n.Released() {
		t.Errorf("acquired %d, released %d", n.Acquired(), n.Released())
	}
	mustPanic(t, "a second release", func() { buffers.Release(a) })
}

func TestBuffersKeepNoMoreBytesThanAllowed(t *testing.T) {
	buffers := NewBuffers(10, 1024, 1500)
	a, b := buffers.Acquire(), buffers.Acquire()
	a.B, b.B = make([]byte, 0, 1000), make([]byte, 0, 1000)
	buffers.Release(a)
	buffers.Release(b)
	if got := buffers.Counts.Available(); got != 1 {
		t.Errorf("available = %d after two releases of 1000 bytes with 1500 to keep, want 1", got)
	}
	buffers.Acquire()
	c := buffers.Acquire()
	c.B = make([]byte, 0, 1000)
	buffers.Release(c)
	if got := buffers.Counts.Available(); got != 1 {
		t.Errorf("available = %d once the first was taken again, want 1", got)
	}
}
