package pool

import (
	"math/rand/v2"
	"testing"
)

type request struct {
	id   int
	link *int
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

func TestTableHandsOutEverySlotOnceAndThenRefuses(t *testing.T) {
	table := NewTable[request](3)
	seen := map[uint32]bool{}
	var last Handle
	for range 3 {
		h, r := table.Acquire()
		if r == nil || h == 0 || seen[h.Index()] {
			t.Fatalf("Acquire = %x, %v; seen %v", h, r, seen)
		}
		seen[h.Index()] = true
		last = h
	}
	if h, r := table.Acquire(); r != nil || h != 0 {
		t.Fatalf("an exhausted table handed out %x", h)
	}
	if table.Counts.Available() != 0 || table.Acquired() != 3 {
		t.Errorf("available %d, acquired %d; want 0, 3", table.Counts.Available(), table.Acquired())
	}
	table.Release(last)
	if h, _ := table.Acquire(); h.Index() != last.Index() || h == last {
		t.Errorf("after releasing %x, Acquire = %x; want the same index in a new generation", last, h)
	}
}

func TestStaleHandlesFindNothing(t *testing.T) {
	table := NewTable[request](2)
	h, r := table.Acquire()
	n := 7
	r.id, r.link = 7, &n
	if table.Get(h) != r {
		t.Fatal("a live handle does not find its slot")
	}
	table.Release(h)
	for _, stale := range []Handle{h, 0, h + 1<<32, 1, 0xffffffff, Handle(^uint64(0))} {
		if got := table.Get(stale); got != nil {
			t.Errorf("Get(%x) found a slot", stale)
		}
	}
	if _, again := table.Acquire(); again.id != 0 || again.link != nil {
		t.Errorf("the slot was not zeroed: %+v", again)
	}
	mustPanic(t, "a second release", func() { table.Release(h) })
	mustPanic(t, "At on a free slot", func() { table.At(1) })
}

// Goal: the table agrees with a plain map under a random order of operations.
func TestTableAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	table := NewTable[request](64)
	model := map[Handle]int{}
	var gone []Handle
	for i := range 100_000 {
		if rng.IntN(2) == 0 {
			h, r := table.Acquire()
			if (r == nil) != (len(model) == 64) {
				t.Fatalf("step %d: Acquire = %v with %d out", i, r, len(model))
			}
			if r != nil {
				r.id = i
				model[h] = i
			}
		} else {
			for h := range model {
				table.Release(h)
				delete(model, h)
				gone = append(gone, h)
				break
			}
		}
		for h, id := range model {
			if r := table.Get(h); r == nil || r.id != id {
				t.Fatalf("step %d: Get(%x) = %v, want id %d", i, h, r, id)
			}
			break
		}
		if len(gone) > 0 {
			if h := gone[rng.IntN(len(gone))]; table.Get(h) != nil {
				t.Fatalf("step %d: released handle %x found a slot", i, h)
			}
		}
	}
	visited := 0
	table.Each(func(h Handle, r *request) {
		if visited++; model[h] != r.id {
			t.Errorf("Each visited %x with id %d, want %d", h, r.id, model[h])
		}
	})
	if visited != len(model) {
		t.Errorf("Each visited %d slots of %d", visited, len(model))
	}
	c := &table.Counts
	if out := c.Acquired() - c.Released(); out != uint64(len(model)) || int(c.Available()) != 64-len(model) {
		t.Errorf("acquired %d, released %d, available %d with %d out", c.Acquired(), c.Released(), c.Available(), len(model))
	}
}
