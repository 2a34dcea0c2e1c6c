package engine

import "math/bits"

const (
	wheelLevels    = 4
	wheelBits      = 8
	wheelSize      = 1 << wheelBits // buckets a level
	wheelMask      = wheelSize - 1
	wheelTicksMax  = 1<<(wheelLevels*wheelBits) - 1
	wheelTickNanos = 1_000_000 // a tick is 1 ms
)

// wheel is a hierarchical timing wheel for the slots of one loop: insert and remove are O(1) and
// allocate nothing. A level holds 256 buckets, each as long as a whole turn of the level below, so
// that four levels of 1 ms ticks reach 49 days. Entries of a higher level move down when the level
// below has turned once ("cascade").
type wheel struct {
	now     uint64 // tick up to which everything has fired
	count   int
	heads   [wheelLevels][wheelSize]uint32 // first node of each bucket, 0: empty
	used    [wheelLevels][wheelSize / 64]uint64
	nodes   []wheelNode // by slot index + 1; nodes[0] is unused
	expired []uint32
}

type wheelNode struct {
	next, prev uint32 // node numbers, 0: none
	tick       uint64
	level      uint8
	bucket     uint8
	armed      bool
}

func newWheel(capacity int) *wheel { return &wheel{nodes: make([]wheelNode, capacity+1)} }

// insert arms slot index to fire at the first advance to tick or later, but never in a tick that
// has already fired. The slot must not be armed.
func (w *wheel) insert(index uint32, tick uint64) {
	tick = min(max(tick, w.now+1), w.now+wheelTicksMax)
	n := index + 1
	w.nodes[n].tick = tick
	w.nodes[n].armed = true
	w.count++
	w.place(n)
}

func (w *wheel) place(n uint32) {
	node := &w.nodes[n]
	delta, level := node.tick-w.now, 0
	for delta >= wheelSize {
		delta >>= wheelBits
		level++
	}
	bucket := node.tick >> (level * wheelBits) & wheelMask
	node.level, node.bucket = uint8(level), uint8(bucket)
	head := &w.heads[level][bucket]
	node.next, node.prev = *head, 0
	if *head != 0 {
		w.nodes[*head].prev = n
	}
	*head = n
	w.used[level][bucket/64] |= 1 << (bucket % 64)
}

// remove disarms slot index, if it is armed.
func (w *wheel) remove(index uint32) {
	node := &w.nodes[index+1]
	if !node.armed {
		return
	}
	node.armed = false
	w.count--
	if node.next != 0 {
		w.nodes[node.next].prev = node.prev
	}
	if node.prev != 0 {
		w.nodes[node.prev].next = node.next
		return
	}
	w.setHead(int(node.level), uint64(node.bucket), node.next)
}

func (w *wheel) setHead(level int, bucket uint64, n uint32) {
	w.heads[level][bucket] = n
	if n == 0 {
		w.used[level][bucket/64] &^= 1 << (bucket % 64)
	}
}

// advance fires everything up to tick and returns the slots' indexes, which are disarmed. The
// slice is valid until the next call.
func (w *wheel) advance(tick uint64) []uint32 {
	w.expired = w.expired[:0]
	for w.now < tick {
		if w.count == 0 {
			w.now = tick
			break
		}
		if w.used[0] == [wheelSize / 64]uint64{} {
			// Nothing fires before the next cascade.
			w.now = min(tick, w.now|wheelMask)
			if w.now == tick {
				break
			}
		}
		w.now++
		for level := 1; level < wheelLevels && w.now&(1<<(level*wheelBits)-1) == 0; level++ {
			w.cascade(level, w.now>>(level*wheelBits)&wheelMask)
		}
		bucket := w.now & wheelMask
		for n := w.heads[0][bucket]; n != 0; n = w.nodes[n].next {
			w.nodes[n].armed = false
			w.count--
			w.expired = append(w.expired, n-1)
		}
		w.setHead(0, bucket, 0)
	}
	return w.expired
}

// cascade moves the entries of a bucket to the levels below.
func (w *wheel) cascade(level int, bucket uint64) {
	n := w.heads[level][bucket]
	w.setHead(level, bucket, 0)
	for n != 0 {
		next := w.nodes[n].next
		w.place(n)
		n = next
	}
}

// next returns the next tick at which advance has something to do: fire or cascade. ok is false if
// nothing is armed.
func (w *wheel) next() (tick uint64, ok bool) {
	if w.count == 0 {
		return 0, false
	}
	for level := range wheelLevels {
		shift := level * wheelBits
		turn := w.now >> shift
		if after, found := w.nextUsed(level, turn&wheelMask); found {
			candidate := (turn + after) << shift
			if !ok || candidate < tick {
				tick, ok = candidate, true
			}
		}
	}
	return tick, ok
}

// nextUsed returns how many buckets after the given one the next used one is, 1 to wheelSize.
func (w *wheel) nextUsed(level int, bucket uint64) (after uint64, found bool) {
	for step := uint64(1); step <= wheelSize; {
		at := (bucket + step) & wheelMask
		if word := w.used[level][at/64] >> (at % 64); word != 0 {
			step += uint64(bits.TrailingZeros64(word))
			return step, step <= wheelSize
		}
		step += 64 - at%64
	}
	return 0, false
}
