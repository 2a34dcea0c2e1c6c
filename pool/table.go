package pool

import "fmt"

// Handle names one use of one slot: the generation in the upper half, the index in the lower.
// The zero Handle is never handed out.
type Handle uint64

// Index returns the slot's index, for use with [Table.At].
func (h Handle) Index() uint32 { return uint32(h) }

func (h Handle) generation() uint32 { return uint32(h >> 32) }

// Table is a fixed set of slots of type T. Slots are handed out last in, first out, so that a
// lightly loaded table touches few pages however large it is.
type Table[T any] struct {
	// Counts may be read from anywhere.
	Counts Counts

	slots []slot[T]
	free  []uint32 // released indexes, a stack
	fresh uint32   // slots from here on were never handed out
}

type slot[T any] struct {
	generation uint32 // odd while acquired
	value      T
}

// NewTable returns a table of capacity slots, which must be 1 to 2^31. The memory is reserved at
// once and only becomes resident as slots are used.
func NewTable[T any](capacity int) *Table[T] {
	if capacity < 1 || capacity > 1<<31 {
		panic(fmt.Sprintf("pool: table capacity %d is out of range", capacity))
	}
	t := &Table[T]{slots: make([]slot[T], capacity), free: make([]uint32, 0, capacity)}
	t.Counts.available.Store(int64(capacity))
	return t
}

// Acquire hands out a zeroed slot, which is the caller's until Release. It returns 0 and nil when
// all slots are out.
func (t *Table[T]) Acquire() (Handle, *T) {
	var index uint32
	if n := len(t.free); n > 0 {
		index = t.free[n-1]
		t.free = t.free[:n-1]
	} else if int(t.fresh) < len(t.slots) {
		index = t.fresh
		t.fresh++
	} else {
		return 0, nil
	}
	s := &t.slots[index]
	s.generation++
	t.Counts.acquired.Add(1)
	t.Counts.available.Add(-1)
	return Handle(uint64(s.generation)<<32 | uint64(index)), &s.value
}

// Get returns the slot of h, or nil if h was released or never was a handle of this table. It may
// be given any number that came from outside.
func (t *Table[T]) Get(h Handle) *T {
	index := h.Index()
	if int(index) >= len(t.slots) {
		return nil
	}
	s := &t.slots[index]
	if s.generation != h.generation() || s.generation&1 == 0 {
		return nil
	}
	return &s.value
}

// At returns the acquired slot at index and its handle. It panics if the slot is not acquired:
// only the table's owner has indexes, in lists that it must keep right.
func (t *Table[T]) At(index uint32) (Handle, *T) {
	s := &t.slots[index]
	if s.generation&1 == 0 {
		panic(fmt.Sprintf("pool: slot %d is used after its release", index))
	}
	return Handle(uint64(s.generation)<<32 | uint64(index)), &s.value
}

// Release zeroes the slot of h and takes it back. It panics if h was released before.
func (t *Table[T]) Release(h Handle) {
	if t.Get(h) == nil {
		panic(fmt.Sprintf("pool: slot %d (generation %d) is released twice", h.Index(), h.generation()))
	}
	index := h.Index()
	s := &t.slots[index]
	var zero T
	s.value = zero
	s.generation++
	t.free = append(t.free, index)
	t.Counts.released.Add(1)
	t.Counts.available.Add(1)
}

// Each calls f for every acquired slot. f may release the slot that it is given.
func (t *Table[T]) Each(f func(Handle, *T)) {
	for index := range t.slots[:t.fresh] {
		s := &t.slots[index]
		if s.generation&1 == 1 {
			f(Handle(uint64(s.generation)<<32|uint64(index)), &s.value)
		}
	}
}

// Acquired returns the number of slots that are out now.
func (t *Table[T]) Acquired() int { return int(t.fresh) - len(t.free) }
