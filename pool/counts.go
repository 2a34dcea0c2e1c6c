package pool

import "sync/atomic"

// Counts is the accounting of one pool. The loop that owns the pool writes it; anybody may read it.
// Acquired - Released is what is out now; on an idle gateway the two are equal.
type Counts struct {
	acquired  atomic.Uint64
	released  atomic.Uint64
	available atomic.Int64
}

// Acquired is the number of acquisitions since the start.
func (c *Counts) Acquired() uint64 { return c.acquired.Load() }

// Released is the number of releases since the start.
func (c *Counts) Released() uint64 { return c.released.Load() }

// Available is the number of slots that can be acquired now, or of buffers that wait to be reused.
func (c *Counts) Available() uint64 { return uint64(max(c.available.Load(), 0)) }
