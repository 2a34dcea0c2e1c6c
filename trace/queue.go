package trace

import (
	"sync"
	"sync/atomic"
)

// queueSpans is how many ended spans wait for their export at most, in each queue. It is a power of two.
const queueSpans = 4096

// Queue hands spans from the one goroutine that calls Push to the one that calls Pop. Neither ever waits.
type Queue struct {
	spans  [queueSpans]Span
	pushed atomic.Uint64 // by Push, ever
	popped atomic.Uint64 // by Pop, ever
}

// Push copies a span into the queue. It returns false if that is full.
func (q *Queue) Push(s *Span) bool {
	pushed := q.pushed.Load()
	if pushed-q.popped.Load() == queueSpans {
		return false
	}
	q.spans[pushed%queueSpans] = *s
	q.pushed.Store(pushed + 1)
	return true
}

// Pop takes the oldest span out of the queue, into s. It returns false if there is none.
func (q *Queue) Pop(s *Span) bool {
	popped := q.popped.Load()
	if popped == q.pushed.Load() {
		return false
	}
	*s = q.spans[popped%queueSpans]
	q.popped.Store(popped + 1)
	return true
}

// Sink is where all loops of a process leave their spans. The zero value is ready for use.
type Sink struct {
	lost atomic.Uint64

	mu     sync.Mutex
	queues []*Queue
}

// NewQueue returns a queue for one more goroutine. It may be called from any goroutine.
func (s *Sink) NewQueue() *Queue {
	q := new(Queue)
	s.mu.Lock()
	s.queues = append(s.queues, q)
	s.mu.Unlock()
	return q
}

// Queues returns the queues that there are. It may be called from any goroutine.
func (s *Sink) Queues() []*Queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues[:len(s.queues):len(s.queues)]
}

// AddLost counts spans that were taken out of a queue and could not be exported.
func (s *Sink) AddLost(spans int) { s.lost.Add(uint64(spans)) }

// Lost returns how many those are.
func (s *Sink) Lost() uint64 { return s.lost.Load() }
