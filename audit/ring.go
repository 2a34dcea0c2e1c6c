package audit

import (
	"encoding/binary"
	"sync/atomic"
)

// Ring takes the records of one loop to the log. The loop writes, the log's goroutine reads, and neither waits for the
// other: what there is no room for is counted, and shows in the log as a gap. A request in flight has room reserved for its
// outcome, so that this is never lost.
//
// Its methods are for the loop, except where their comment says otherwise.
type Ring struct {
	// Set once.
	buffer       []byte // its length is a power of two
	loop         uint16
	payloadBytes int
	patient      bool // by the policy requests are not served that cannot be recorded
	log          *Log

	// Written by the loop alone. Positions count bytes since the start.
	head     uint64 // where the next record goes
	shown    uint64 // up to where the log's goroutine may read
	tailSeen uint64
	reserved int // bytes, for outcomes
	records  uint64

	scratch [frameBytes + requestBytes]byte
	outcome [frameBytes + outcomeBytes]byte

	_         [64]byte // what follows is written by both sides: it has cache lines of its own
	published atomic.Uint64
	_         [56]byte
	tail      atomic.Uint64 // up to where the log's goroutine has taken
	_         [56]byte
	lost      atomic.Uint64 // requests since the last gap was recorded: while it is not 0, none are taken
	lostTotal atomic.Uint64
	full      atomic.Uint64 // times that the ring was found full after it was not
	recorded  atomic.Uint64 // records
}

const framedOutcome = frameBytes + outcomeBytes

func newRing(log *Log, loop, bytes int) *Ring {
	size := 1
	for size < bytes {
		size *= 2
	}
	return &Ring{
		buffer: make([]byte, size), loop: uint16(loop), log: log,
		payloadBytes: log.cfg.PayloadBytes, patient: log.cfg.OnFull != Drop,
	}
}

// RecordsPayload reports whether headers and payloads are recorded.
func (r *Ring) RecordsPayload() bool { return r.payloadBytes > 0 }

// Waits reports whether clients are to be paused while their requests cannot be recorded. It may be called from any goroutine.
func (r *Ring) Waits() bool { return r.log.cfg.OnFull == Block }

// Takes reports whether a request of these sizes may be served: it can be recorded, or it may be served all the same.
func (r *Ring) Takes(subjectBytes, contentBytes int) bool {
	if !r.patient {
		return true
	}
	return !r.log.failing.Load() && r.HasRoom(subjectBytes, contentBytes)
}

// HasRoom reports whether a request of these sizes can be recorded in the ring, whatever the disk does.
func (r *Ring) HasRoom(subjectBytes, contentBytes int) bool {
	return r.lost.Load() == 0 && r.fits(frameBytes+requestBytes+subjectBytes+min(contentBytes, r.payloadBytes)+framedOutcome)
}

// Roomy reports whether clients that were paused may go on: the log's goroutine has caught up.
func (r *Ring) Roomy() bool {
	return !r.log.failing.Load() && r.lost.Load() == 0 && r.fits(len(r.buffer)/2)
}

// Begin records a request that is taken into flight, and reports whether it could: then End must follow with the same id. It
// borrows the slices of q, cuts headers and payload to what is to be recorded, and sets their flag.
func (r *Ring) Begin(q *Request) bool {
	r.cut(q)
	if !r.put(kindRequest, q, &Outcome{}, framedOutcome) {
		return false
	}
	r.reserved += framedOutcome
	return true
}

// End records the outcome of a request.
func (r *Ring) End(id uint64, o Outcome) {
	r.reserved -= framedOutcome
	putOutcome(&r.outcome, r.loop, id, &o)
	r.copyIn(r.outcome[:])
	r.appended()
}

// Answered records a request with its outcome: one that never was in flight.
func (r *Ring) Answered(q *Request, o Outcome) {
	r.cut(q)
	r.put(kindAnswered, q, &o, 0)
}

// Flush lets the log's goroutine read what was recorded. It is to be called at the end of each pass of the loop.
func (r *Ring) Flush() {
	if r.shown == r.head {
		return
	}
	r.shown = r.head
	r.recorded.Store(r.records)
	r.published.Store(r.head)
	if r.log.parked.Load() || r.used() > len(r.buffer)/2 {
		r.log.wake()
	}
}

func (r *Ring) cut(q *Request) {
	q.Loop = r.loop
	q.HeaderBytes, q.PayloadBytes = uint32(len(q.Headers)), uint32(len(q.Payload))
	if r.payloadBytes == 0 {
		q.Headers, q.Payload = nil, nil
		return
	}
	q.Flags |= FlagRecorded
	q.Headers = q.Headers[:min(len(q.Headers), r.payloadBytes)]
	q.Payload = q.Payload[:min(len(q.Payload), r.payloadBytes-len(q.Headers))]
}

// put appends a request, if there is room for it and another number of bytes behind it.
func (r *Ring) put(kind byte, q *Request, o *Outcome, behind int) bool {
	need := frameBytes + requestBytes + len(q.Subject) + len(q.Headers) + len(q.Payload)
	if r.lost.Load() != 0 || !r.fits(need+behind) {
		r.lose()
		return false
	}
	putRequest(&r.scratch, kind, q, o)
	r.copyIn(r.scratch[:])
	r.copyIn(q.Subject)
	r.copyIn(q.Headers)
	r.copyIn(q.Payload)
	r.appended()
	return true
}

// lose counts a request that is not recorded. From then on none are until the log's goroutine has taken all that came before
// and written down how many they were: so the gap stands where they are missing.
func (r *Ring) lose() {
	r.lostTotal.Add(1)
	if r.lost.Load() == 0 {
		r.Flush() // what came before the gap is to be seen before it
	}
	if r.lost.Add(1) == 1 {
		r.full.Add(1)
		r.log.wake()
	}
}

func (r *Ring) appended() {
	r.records++
	// A long pass must not fill the ring unseen.
	if int(r.head-r.shown) > len(r.buffer)/8 {
		r.Flush()
	}
}

func (r *Ring) used() int { return int(r.head - r.tailSeen) }

// fits reports whether there is room for so many bytes beside what is reserved.
func (r *Ring) fits(bytes int) bool {
	need := bytes + r.reserved
	if r.used()+need <= len(r.buffer) {
		return true
	}
	r.tailSeen = r.tail.Load()
	return r.used()+need <= len(r.buffer)
}

// copyIn copies b behind what is there. There must be room for it.
func (r *Ring) copyIn(b []byte) {
	at := int(r.head) & (len(r.buffer) - 1)
	if n := copy(r.buffer[at:], b); n < len(b) {
		copy(r.buffer, b[n:])
	}
	r.head += uint64(len(b))
}

// take appends what the loop has published to dst, each record with its checksum, and a gap if requests were lost behind
// them; gap says so. Only the log's goroutine may call it.
func (r *Ring) take(dst []byte, now int64) (_ []byte, gap bool) {
	// In this order: what the loop appended before it lost a request is published before it is counted as lost.
	lost := r.lost.Load()
	dst = r.takePublished(dst)
	if lost == 0 || r.published.Load() != r.tail.Load() {
		return dst, false // the gap comes behind all of it
	}
	return appendGap(dst, r.loop, now, r.lost.Swap(0)), true
}

func (r *Ring) takePublished(dst []byte) []byte {
	from, to := r.tail.Load(), r.published.Load()
	start := len(dst)
	low, high := int(from)&(len(r.buffer)-1), int(to)&(len(r.buffer)-1)
	switch {
	case from == to:
		return dst
	case low < high:
		dst = append(dst, r.buffer[low:high]...)
	default:
		dst = append(append(dst, r.buffer[low:]...), r.buffer[:high]...)
	}
	r.tail.Store(to)
	for b := dst[start:]; len(b) > 0; {
		n := frameBytes + int(binary.BigEndian.Uint32(b))
		seal(b[:n])
		b = b[n:]
	}
	return dst
}

// Idle reports whether the log's goroutine has taken all that Flush let it see. It may be called from any goroutine.
func (r *Ring) Idle() bool { return !r.waiting() }

// waiting reports whether there is anything to take. It may be called from any goroutine.
func (r *Ring) waiting() bool { return r.published.Load() != r.tail.Load() || r.lost.Load() != 0 }
