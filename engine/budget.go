package engine

import "sync/atomic"

// budget is the number of requests that may still be taken into flight, over all loops.
type budget struct {
	free  atomic.Int64
	chunk int64 // what a loop takes at a time

	starving atomic.Int32 // loops whose clients wait: nobody keeps what he does not use
}

// setUp shares total among loops. The chunk is small enough that what loops hold without using it
// is a small part of the total, and large enough that they seldom touch the shared number.
func (b *budget) setUp(total, loops int) {
	b.free.Store(int64(total))
	b.chunk = int64(max(1, min(64, total/(16*loops))))
}

// localBudget is one loop's part. With less than two chunks in hand it goes back to the shared
// number only when it runs out, and gives a chunk back only when it holds two: in the steady state
// requests come and go without touching what other loops touch.
type localBudget struct {
	shared *budget
	inHand int64
}

// take reserves one request, or reports that the limit is reached.
func (b *localBudget) take() bool {
	if !b.reserve() {
		return false
	}
	b.inHand--
	return true
}

// reserve reports whether the next take will succeed.
func (b *localBudget) reserve() bool {
	if b.inHand > 0 {
		return true
	}
	for {
		free := b.shared.free.Load()
		want := min(b.shared.chunk, free)
		if want <= 0 {
			return false
		}
		if b.shared.free.CompareAndSwap(free, free-want) {
			b.inHand = want
			return true
		}
	}
}

// available returns how many requests could be taken.
func (b *localBudget) available() int64 { return b.inHand + b.shared.free.Load() }

// give returns one request.
func (b *localBudget) give() {
	b.inHand++
	if b.shared.starving.Load() > 0 {
		b.giveAll()
		return
	}
	if b.inHand >= 2*b.shared.chunk {
		b.inHand -= b.shared.chunk
		b.shared.free.Add(b.shared.chunk)
	}
}

// giveAll returns what is in hand.
func (b *localBudget) giveAll() {
	if b.inHand > 0 {
		b.shared.free.Add(b.inHand)
		b.inHand = 0
	}
}
