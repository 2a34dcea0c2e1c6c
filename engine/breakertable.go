package engine

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	// breakersMax bounds the subjects that one loop has a breaker for.
	breakersMax = 1024
	// breakerSubjectBytes is how much of a subject is kept for people to read.
	breakerSubjectBytes = 96
	// recentBuckets times recentWays is the number of subjects whose texts are kept in case that a request fails.
	recentBuckets, recentWays = 64, 4
)

// BreakerState is the state of a circuit breaker. Its numbers are those of the metric ipc_circuit_breaker_state.
type BreakerState uint8

// The states of a circuit breaker.
const (
	BreakerClosed   BreakerState = iota // requests pass; failures in a row are counted
	BreakerOpen                         // requests are refused
	BreakerHalfOpen                     // a few requests pass, as probes
)

// BreakerStateCount is the number of states.
const BreakerStateCount = 3

// BreakerStateLabels names the states in metrics and listings.
var BreakerStateLabels = [BreakerStateCount]string{"closed", "open", "half_open"}

// BreakerCounts are numbers of circuit breakers by state. Closed ones are of subjects with failures in a row, still too few to
// open them.
type BreakerCounts [BreakerStateCount]uint64

// String returns the label of s.
func (s BreakerState) String() string { return BreakerStateLabels[s] }

// breaker is what a loop knows of a subject to which requests have failed.
type breaker struct {
	subjectText
	hash       uint64 // of the subject
	until      int64  // open: when it is half-open. Half-open: when one more probe passes. Nanoseconds since Gateway.started
	loss       uint64 // the lost connection that was counted last, as breakerTable.losses
	generation uint32 // of its opening: probes of another one mean nothing
	failures   int32  // in a row
	probes     int32  // in flight
	successes  int32  // of probes
	state      BreakerState

	chain        uint16 // the next one of its bucket, or of the free ones
	older, newer uint16 // in the ring of those that are not open
}

// subjectText is the beginning of a subject, or empty if that is not known.
type subjectText struct {
	length uint8
	bytes  [breakerSubjectBytes]byte
}

func (t *subjectText) learn(subject []byte) { t.length = uint8(copy(t.bytes[:], subject)) }

func (t *subjectText) String() string { return string(t.bytes[:t.length]) }

// recentSubjects keeps the texts of the subjects that requests go to. A request itself keeps only the hash.
type recentSubjects struct {
	hashes [recentBuckets][recentWays]uint64
	texts  [recentBuckets][recentWays]subjectText
	victim uint // the way that is taken next
}

// find returns the text of the subject with a hash, or nil.
func (r *recentSubjects) find(hash uint64) *subjectText {
	bucket := hash % recentBuckets
	for way, h := range r.hashes[bucket] {
		if h == hash {
			return &r.texts[bucket][way]
		}
	}
	return nil
}

// remember keeps the text of a subject.
func (r *recentSubjects) remember(hash uint64, subject []byte) {
	if r.find(hash) != nil {
		return
	}
	bucket, way := hash%recentBuckets, r.victim%recentWays
	r.victim++
	r.hashes[bucket][way] = hash
	r.texts[bucket][way].learn(subject)
}

// subjectSeed keeps clients from choosing subjects whose hashes are equal.
var subjectSeed = maphash.MakeSeed()

func hashSubject(subject []byte) uint64 { return maphash.Bytes(subjectSeed, subject) }

// breakerTable holds the breakers of a loop by the hash of their subject. It never grows: a new breaker takes the
// place of the one that was longest not touched, unless that is open. Numbers of entries are 1 and up; entries[0] is
// the head of the ring, whose newer is the oldest entry, and whose older the newest.
type breakerTable struct {
	entries    []breaker
	buckets    [breakersMax]uint16
	free       uint16
	tracked    int
	recent     recentSubjects
	dueAt      int64  // no breaker becomes half-open before; 0: none is open
	generation uint32 // openings so far
	losses     uint64 // of connections to NATS so far

	// Written by the loop, read by anybody: breakers by state.
	states [BreakerStateCount]atomic.Int64
}

func newBreakerTable() *breakerTable {
	t := &breakerTable{entries: make([]breaker, breakersMax+1)}
	t.clear()
	return t
}

// clear removes every breaker.
func (t *breakerTable) clear() {
	clear(t.entries)
	clear(t.buckets[:])
	for n := range uint16(breakersMax) {
		t.entries[n].chain = n + 1
	}
	t.free = t.entries[0].chain
	t.tracked, t.dueAt = 0, 0
	for i := range t.states {
		t.states[i].Store(0)
	}
}

// find returns the breaker of the subject with a hash, or nil.
func (t *breakerTable) find(hash uint64) *breaker {
	for n := t.buckets[hash%breakersMax]; n != 0; n = t.entries[n].chain {
		if t.entries[n].hash == hash {
			return &t.entries[n]
		}
	}
	return nil
}

// add returns a new breaker, closed, for the subject with a hash that has none. It returns nil if all that there is
// room for are open.
func (t *breakerTable) add(hash uint64) *breaker {
	if t.free == 0 {
		oldest := t.entries[0].newer
		if oldest == 0 {
			return nil
		}
		t.remove(&t.entries[oldest])
	}
	n := t.free
	e := &t.entries[n]
	t.free = e.chain
	bucket := &t.buckets[hash%breakersMax]
	*e = breaker{hash: hash, chain: *bucket}
	if text := t.recent.find(hash); text != nil {
		e.subjectText = *text
	}
	*bucket = n
	t.tracked++
	t.states[BreakerClosed].Add(1)
	t.enter(n)
	return e
}

// remove takes a breaker out. Its memory is the next one's.
func (t *breakerTable) remove(e *breaker) {
	link := &t.buckets[e.hash%breakersMax]
	for &t.entries[*link] != e {
		link = &t.entries[*link].chain
	}
	n := *link
	*link = e.chain
	if e.state != BreakerOpen {
		t.leave(e)
	}
	t.states[e.state].Add(-1)
	t.tracked--
	*e = breaker{chain: t.free}
	t.free = n
}

// setState puts a breaker into another state.
func (t *breakerTable) setState(e *breaker, state BreakerState) {
	if e.state != BreakerOpen {
		t.leave(e)
	}
	t.states[e.state].Add(-1)
	e.state = state
	t.states[state].Add(1)
	if state != BreakerOpen {
		t.enter(t.number(e))
	}
}

// touch makes a breaker that is not open the newest one.
func (t *breakerTable) touch(e *breaker) {
	t.leave(e)
	t.enter(t.number(e))
}

func (t *breakerTable) number(e *breaker) uint16 {
	n := t.buckets[e.hash%breakersMax]
	for &t.entries[n] != e {
		n = t.entries[n].chain
	}
	return n
}

// enter puts the entry n into the ring, as the newest one.
func (t *breakerTable) enter(n uint16) {
	newest := t.entries[0].older
	t.entries[n].older, t.entries[n].newer = newest, 0
	t.entries[newest].newer = n
	t.entries[0].older = n
}

// leave takes an entry out of the ring.
func (t *breakerTable) leave(e *breaker) {
	t.entries[e.older].newer = e.newer
	t.entries[e.newer].older = e.older
}
