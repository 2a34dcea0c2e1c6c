package engine

import (
	"math/rand/v2"
	"testing"

	"github.com/aigroup/ipc-gateway/pool"
)

// Goal: the set knows exactly the ids that are in it, however full it is and wherever they collide. Method: a map
// decides; ids in a row, far apart and at the ends, of few sessions, are added and removed at random. The seed is printed.
func TestIDSetKnowsItsIDs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, slots := range []int{1, 3, 64, 1000} {
		l := &loop{slots: pool.NewTable[request](slots), ids: newIDSet(slots)}
		sessions := []*session{{id: 1}, {id: 2}, {id: 1 << 60}}
		type entry struct {
			key    idKey
			handle pool.Handle
		}
		var in []entry
		known := map[idKey]uint32{}
		check := func(k idKey) {
			index, found := l.findID(k)
			if want, ok := known[k]; found != ok || found && index != want {
				t.Fatalf("%d slots: id %+v: slot %d, %v; want %d, %v", slots, k, index, found, want, ok)
			}
		}
		for range 20_000 {
			s := sessions[random.IntN(len(sessions))]
			id := uint64(random.IntN(2 * slots))
			switch random.IntN(4) {
			case 0:
				id = -id
			case 1:
				id <<= 32
			}
			k := idKey{s.id, id}
			check(k)
			if _, there := known[k]; !there && len(in) < slots && random.IntN(3) != 0 {
				h, r := l.slots.Acquire()
				r.session, r.correlationID = s, id
				l.addID(k, h.Index())
				known[k] = h.Index()
				in = append(in, entry{k, h})
			} else if len(in) > 0 {
				at := random.IntN(len(in))
				e := in[at]
				l.removeID(e.key, e.handle.Index())
				l.slots.Release(e.handle)
				delete(known, e.key)
				in[at] = in[len(in)-1]
				in = in[:len(in)-1]
				check(e.key)
			}
			if len(in) > 0 {
				check(in[random.IntN(len(in))].key)
			}
		}
		for _, e := range in {
			l.removeID(e.key, e.handle.Index())
		}
		for _, e := range l.ids.entries {
			if e != 0 {
				t.Fatalf("%d slots: an empty set has an entry", slots)
			}
		}
	}
}

// BenchmarkIDSet is what the set costs a request: its id is looked up, added, and removed when its answer comes, with
// some thousand others in between.
func BenchmarkIDSet(b *testing.B) {
	for _, ids := range []struct {
		name string
		of   func(i uint64) uint64
	}{
		{"in a row", func(i uint64) uint64 { return i }},
		{"random", func(i uint64) uint64 { return i * 0x9e3779b97f4a7c15 }},
	} {
		b.Run(ids.name, func(b *testing.B) {
			b.ReportAllocs()
			const slots, inflight = 65536, 2048
			l := &loop{slots: pool.NewTable[request](slots), ids: newIDSet(slots)}
			sessions := make([]*session, 16)
			for i := range sessions {
				sessions[i] = &session{id: uint64(i + 1)}
			}
			var ring [inflight]pool.Handle
			for i := range uint64(b.N) {
				if i >= inflight {
					h := ring[i%inflight]
					l.removeID(l.keyOf(h.Index()), h.Index())
					l.slots.Release(h)
				}
				s := sessions[i%16]
				k := idKey{s.id, ids.of(i / 16)}
				if _, found := l.findID(k); found {
					b.Fatal("in use")
				}
				h, r := l.slots.Acquire()
				r.session, r.correlationID = s, k.correlationID
				l.addID(k, h.Index())
				ring[i%inflight] = h
			}
		})
	}
}
