package engine

import (
	"math/bits"
	"math/rand/v2"
)

// idSet finds the request that uses a correlation id on a session: an open-addressed hash table of
// slot indexes, for all sessions of a loop. It is at most half full, never grows, and leaves no
// tombstones behind. The ids themselves stay in the slots.
//
// Clients number their requests, most of them one by one: idsInLine ids in a row have their buckets in one cache line.
type idSet struct {
	entries []idEntry
	mask    uint32
	seed    uint64 // clients choose the ids, so they must not be able to choose the buckets
}

// idEntry is a slot index + 1, and in the upper half the hash of its key, whose lowest bits are the bucket; 0 is empty.
type idEntry uint64

// idsInLine entries of 8 bytes fill 64 bytes.
const idsInLine = 8

// idKey is what an entry stands for.
type idKey struct{ session, correlationID uint64 }

func newIDSet(slots int) idSet {
	size := max(uint32(1)<<bits.Len32(uint32(2*slots-1)), idsInLine)
	return idSet{entries: make([]idEntry, size), mask: size - 1, seed: rand.Uint64() | 1}
}

func (s *idSet) hash(k idKey) uint32 {
	high, low := bits.Mul64(k.correlationID/idsInLine^s.seed, 0x9e3779b97f4a7c15^k.session)
	high2, low2 := bits.Mul64(high^low^s.seed, 0xd6e8feb86659fd93)
	return uint32(high2^low2)&^(idsInLine-1) | uint32(k.correlationID%idsInLine)
}

// findID returns the slot index of k.
func (l *loop) findID(k idKey) (index uint32, found bool) {
	s := &l.ids
	hash := s.hash(k)
	for at := hash & s.mask; s.entries[at] != 0; at = (at + 1) & s.mask {
		e := s.entries[at]
		if uint32(e>>32) == hash && l.keyOf(uint32(e)-1) == k {
			return uint32(e) - 1, true
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
	hash := s.hash(k)
	at := hash & s.mask
	for s.entries[at] != 0 {
		at = (at + 1) & s.mask
	}
	s.entries[at] = idEntry(hash)<<32 | idEntry(index+1)
}

// removeID removes the entry of slot index, which must be in the set under k, and closes the gap:
// each later entry of the run that the gap would hide from its own bucket moves into it.
func (l *loop) removeID(k idKey, index uint32) {
	s := &l.ids
	gap := s.hash(k) & s.mask
	for uint32(s.entries[gap]) != index+1 {
		if s.entries[gap] == 0 {
			panic("engine: correlation id of a request is not in the set")
		}
		gap = (gap + 1) & s.mask
	}
	for at := (gap + 1) & s.mask; s.entries[at] != 0; at = (at + 1) & s.mask {
		home := uint32(s.entries[at]>>32) & s.mask
		if (at-home)&s.mask >= (at-gap)&s.mask {
			s.entries[gap] = s.entries[at]
			gap = at
		}
	}
	s.entries[gap] = 0
}
