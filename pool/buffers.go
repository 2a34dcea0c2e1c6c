package pool

import "github.com/valyala/bytebufferpool"

// freshBytes is the capacity of a new buffer: most frames fit, and growing to it step by step would allocate at each.
const freshBytes = 512

// Buffers reuses byte buffers on one loop. A free list in front of bytebufferpool makes reuse
// certain: the pool below is a sync.Pool, which the collector empties and which loses sight of a
// buffer that was put back on another processor.
type Buffers struct {
	// Counts may be read from anywhere. Available counts the free list.
	Counts Counts

	free     []*Buffer
	kept     int // bytes of capacity in free
	bytesMax int
	keptMax  int
	pool     bytebufferpool.Pool
}

// Buffer is a reused byte slice. B may be appended to, cut and replaced; its bytes are the
// holder's from Acquire to Release.
type Buffer struct {
	B []byte

	below    *bytebufferpool.ByteBuffer
	acquired bool
}

// NewBuffers returns an empty set that keeps at most keep released buffers in its free list, each
// of at most bytesMax bytes of capacity, keptMax bytes in all. A larger one is left to the
// collector, so that one large frame does not pin its memory for ever; one too many goes back to
// bytebufferpool.
func NewBuffers(keep, bytesMax, keptMax int) *Buffers {
	return &Buffers{free: make([]*Buffer, 0, keep), bytesMax: bytesMax, keptMax: keptMax}
}

// Acquire hands out an empty buffer, which is the caller's until Release.
func (p *Buffers) Acquire() *Buffer {
	p.Counts.acquired.Add(1)
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		p.kept -= cap(b.B)
		p.Counts.available.Add(-1)
		b.acquired = true
		return b
	}
	below := p.pool.Get()
	if below.B == nil {
		below.B = make([]byte, 0, freshBytes)
	}
	return &Buffer{B: below.B, below: below, acquired: true}
}

// Release takes b back; b and every slice of b.B must not be used after that. It panics if b was
// released before.
func (p *Buffers) Release(b *Buffer) {
	if !b.acquired {
		panic("pool: buffer is released twice")
	}
	b.acquired = false
	p.Counts.released.Add(1)
	switch {
	case cap(b.B) > p.bytesMax:
		b.B, b.below = nil, nil
	case len(p.free) < cap(p.free) && p.kept+cap(b.B) <= p.keptMax:
		b.B = b.B[:0]
		p.kept += cap(b.B)
		p.free = append(p.free, b)
		p.Counts.available.Add(1)
	default:
		// bytebufferpool learns its sizes from the length that a buffer has when it comes back.
		below := b.below
		below.B = b.B
		b.B, b.below = nil, nil
		p.pool.Put(below)
	}
}
