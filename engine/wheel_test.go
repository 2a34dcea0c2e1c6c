package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Goal: under random inserts, removals and advances of any length, each slot fires in the first
// advance that reaches its tick, and next never names a tick later than the earliest one.
func TestWheelAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	spans := []uint64{3, 300, 70_000, 20_000_000, 5_000_000_000}
	w := newWheel(128)
	model := map[uint32]uint64{}
	for step := range 20_000 {
		index := uint32(rng.IntN(128))
		switch rng.IntN(4) {
		case 0, 1:
			if _, armed := model[index]; !armed {
				tick := w.now + rng.Uint64N(spans[rng.IntN(len(spans))])
				w.insert(index, tick)
				model[index] = min(max(tick, w.now+1), w.now+wheelTicksMax)
			}
		case 2:
			w.remove(index)
			delete(model, index)
		case 3:
			to := w.now + rng.Uint64N(spans[rng.IntN(3)])
			if rng.IntN(50) == 0 {
				to = w.now + rng.Uint64N(100_000_000)
			}
			var want []uint32
			for i, tick := range model {
				if tick <= to {
					want = append(want, i)
					delete(model, i)
				}
			}
			got := slices.Clone(w.advance(to))
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("step %d: advance(%d) fired %v, want %v", step, to, got, want)
			}
		}
		if w.count != len(model) {
			t.Fatalf("step %d: %d armed, want %d", step, w.count, len(model))
		}
		next, ok := w.next()
		if ok != (len(model) > 0) {
			t.Fatalf("step %d: next = %d, %v with %d armed", step, next, ok, len(model))
		}
		for i, tick := range model {
			if next > tick || next <= w.now {
				t.Fatalf("step %d: next = %d at %d, but slot %d is due at %d", step, next, w.now, i, tick)
			}
		}
	}
}

// Goal: following next alone, as the ticker does, fires everything exactly on its tick.
func TestWheelFollowedByNextFiresOnTime(t *testing.T) {
	w := newWheel(64)
	want := map[uint32]uint64{}
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range uint32(64) {
		want[i] = 1 + rng.Uint64N(1<<uint(4+i/3))
		w.insert(i, want[i])
	}
	steps := 0
	for tick, ok := w.next(); ok; tick, ok = w.next() {
		for _, i := range w.advance(tick) {
			if want[i] != tick {
				t.Errorf("slot %d fired at %d, want %d", i, tick, want[i])
			}
			delete(want, i)
		}
		if steps++; steps > 64*wheelLevels*2 {
			t.Fatalf("%d steps for 64 entries", steps)
		}
	}
	if len(want) != 0 {
		t.Errorf("never fired: %v", want)
	}
}
