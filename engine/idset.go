package engine

import (
	"math/bits"
	"math/rand/v2"
)

// idSet finds the request that uses a correlation id on a session: an open-addressed hash table of
// slot indexes, for all sessions of a loop. It is at most half full, never grows, and leaves no
// tombstones behind. The ids themselves stay in the slots.
type idSet struct {
	entries []uint32 // slot index + 1; 0: empty
	mask    uint64
	seed    uint64 // clients choose the ids, so they must not be able to choose the buckets
}

// idKey is what an entry stands for.
type idKey struct{ session, correlationID uint64 }

func newIDSet(slots int) idSet {
	size := uint64(1) << bits.Len64(uint64(2*slots-1))
	return idSet{entries: make([]uint32, size), mask: size - 1, seed: rand.Uint64() | 1}
}

func (s *idSet) bucket(k idKey) uint64 {
	high, low := bits.Mul64(k.correlationID^s.seed, 0x9e3779b97f4a7c15^k.session)
	high2, low2 := bits.Mul64(high^low^s.seed, 0xd6e8feb86659fd93)
	return (high2 ^ low2) & s.mask
}

// find returns the slot index of k. keyOf returns the key of a slot in the set.
func (l *loop) findID(k idKey) (index uint32, found bool) {
	s := &l.ids
	for at := s.bucket(k); s.entries[at] != 0; at = (at + 1) & s.mask {
		index = s.entries[at] - 1
		if l.keyOf(index) == k {
			return index, true
		}
	}
	return 0, false
}

func (l *loop) keyOf(index uint32) idKey {
	_, r := l.slots.At(index)
	return idKey{r.session.id, r.correlationID}
}

// addID enters slot index under k, which must not be in the set.
func (l *loop) addID(k idKey, index uint32) {
	s := &l.ids
	at := s.bucket(k)
	for s.entries[at] != 0 {
		at = (at + 1) & s.mask
	}
	s.entries[at] = index + 1
}

// removeID removes the entry of slot index, which must be in the set under k, and closes the gap:
// each later entry of the run that the gap would hide from its own bucket moves into it.
func (l *loop) removeID(k idKey, index uint32) {
	s := &l.ids
	gap := s.bucket(k)
	for s.entries[gap] != index+1 {
		if s.entries[gap] == 0 {
			panic("engine: correlation id of a request is not in the set")
		}
		gap = (gap + 1) & s.mask
	}
	for at := (gap + 1) & s.mask; s.entries[at] != 0; at = (at + 1) & s.mask {
		home := s.bucket(l.keyOf(s.entries[at] - 1))
		if (at-home)&s.mask >= (at-gap)&s.mask {
			s.entries[gap] = s.entries[at]
			gap = at
		}
	}
	s.entries[gap] = 0
}
