package engine

import (
	"sync/atomic"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// counters are one loop's part of Stats. Only the loop writes them.
type counters struct {
	requests  [TypeCount]atomic.Uint64
	responses [CodeCount]atomic.Uint64
	durations [TypeCount]latency

	clientBytesIn       atomic.Uint64
	clientBytesOut      atomic.Uint64
	clientBytesBuffered atomic.Uint64
	clientBytesDropped  atomic.Uint64
	slowClientsClosed   atomic.Uint64
	clientsKilled       atomic.Uint64

	paused        atomic.Int64 // sessions, now
	pausedNanos   atomic.Uint64
	pauses        [PauseCount]atomic.Uint64
	frameTimeouts atomic.Uint64

	inflightRefused     atomic.Uint64
	connInflightRefused atomic.Uint64
	upstreamFullRefused atomic.Uint64
	noReplyRefused      atomic.Uint64
	lateReplies         atomic.Uint64
	abandoned           atomic.Uint64
	internalErrors      atomic.Uint64
	jetStreamHeldBytes  atomic.Uint64
	jetStreamResends    atomic.Uint64
	jetStreamRefused    atomic.Uint64
	breakerRefused      atomic.Uint64
	breakerTransitions  [BreakerStateCount]atomic.Uint64
	traceSpans          atomic.Uint64
	traceDropped        atomic.Uint64
}

type latency struct {
	buckets [LatencyBuckets]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// observe records how long a request of a type took, in nanoseconds.
func (c *counters) observe(label uint8, took int64) {
	d := &c.durations[label]
	d.buckets[latencyBucket(took)].Add(1)
	if took > 0 {
		d.sum.Add(uint64(took))
	}
}

// latencyBucket returns the index of the first bucket whose bound is at least took. Most requests
// take tens to hundreds of microseconds, so the search begins there.
func latencyBucket(took int64) int {
	d := time.Duration(took)
	low, high := 0, LatencyBuckets-1
	if d <= LatencyBounds[12] {
		high = 12
	} else {
		low = 13
	}
	for low < high {
		middle := int(uint(low+high) >> 1)
		if d <= LatencyBounds[middle] {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

const outcomeOK uint8 = 0

// outcomes maps an error code to its index in CodeLabels.
var outcomes = func() (table [256]uint8) {
	for i, code := range codec.ErrorCodes() {
		table[code] = uint8(i + 1)
	}
	return table
}()

func outcomeOf(code codec.ErrorCode) uint8 { return outcomes[code] }

// Labels of the client frame types: indexes into TypeLabels.
const (
	labelSubmit uint8 = iota
	labelQuery
	labelCancel
	labelStreamSubscribe
	labelPublish
	labelRequest
	labelAbort
	labelCredit
	labelSubscribe
	labelPing
	labelCapabilities
	labelInvalid
)

// labels maps a frame type to its label.
var labels = func() (table [256]uint8) {
	for i := range table {
		table[i] = labelInvalid
	}
	for t, label := range map[codec.Type]uint8{
		codec.TypeTaskSubmit: labelSubmit, codec.TypeTaskQuery: labelQuery, codec.TypeTaskCancel: labelCancel,
		codec.TypeStreamSubscribe: labelStreamSubscribe, codec.TypePublish: labelPublish, codec.TypeRequest: labelRequest,
		codec.TypeCancel: labelAbort, codec.TypeCredit: labelCredit, codec.TypeSubscribe: labelSubscribe,
		codec.TypePing: labelPing, codec.TypeCapabilities: labelCapabilities,
	} {
		table[t] = label
	}
	return table
}()

// addTo adds what the loop counted to s. It may be called from any goroutine.
func (l *loop) addTo(s *Stats) {
	c := &l.counters
	for i := range s.Requests {
		s.Requests[i] += c.requests[i].Load()
		for j := range s.Durations[i].Buckets {
			s.Durations[i].Buckets[j] += c.durations[i].buckets[j].Load()
		}
		s.Durations[i].Sum += time.Duration(c.durations[i].sum.Load())
	}
	for i := range s.Responses {
		s.Responses[i] += c.responses[i].Load()
	}
	s.ClientBytesIn += c.clientBytesIn.Load()
	s.ClientBytesOut += c.clientBytesOut.Load()
	s.ClientBytesBuffered += c.clientBytesBuffered.Load()
	s.ClientBytesDropped += c.clientBytesDropped.Load()
	s.SlowClientsClosed += c.slowClientsClosed.Load()
	s.ClientsKilled += c.clientsKilled.Load()
	s.PausedConnections += uint64(c.paused.Load())
	s.PausedTime += time.Duration(c.pausedNanos.Load())
	for i := range s.Pauses {
		s.Pauses[i] += c.pauses[i].Load()
	}
	s.FrameTimeouts += c.frameTimeouts.Load()
	s.InflightRefused += c.inflightRefused.Load()
	s.ConnInflightRefused += c.connInflightRefused.Load()
	s.UpstreamFullRefused += c.upstreamFullRefused.Load()
	s.NoReplyRefused += c.noReplyRefused.Load()
	s.LateReplies += c.lateReplies.Load()
	s.Abandoned += c.abandoned.Load()
	s.InternalErrors += c.internalErrors.Load()
	s.JetStreamHeldBytes += c.jetStreamHeldBytes.Load()
	s.JetStreamResends += c.jetStreamResends.Load()
	s.JetStreamRefused += c.jetStreamRefused.Load()
	s.BreakerRefused += c.breakerRefused.Load()
	for i := range s.BreakerTransitions {
		s.BreakerTransitions[i] += c.breakerTransitions[i].Load()
	}
	s.TraceSpans += c.traceSpans.Load()
	s.TraceDropped += c.traceDropped.Load()
	var breakers BreakerCounts
	for state := range breakers {
		breakers[state] = uint64(l.breakers.states[state].Load())
	}
	s.LoopBreakers = append(s.LoopBreakers, breakers)
	s.BreakersOpen += breakers[BreakerOpen]
	s.BreakersHalfOpen += breakers[BreakerHalfOpen]

	inflight := l.inflight()
	s.Inflight += inflight
	s.SlotsAcquired += l.slots.Counts.Acquired()
	s.SlotsReleased += l.slots.Counts.Released()
	for _, buffers := range [...]*pool.Buffers{l.buffers, l.durable.messages} {
		s.BuffersAvailable += buffers.Counts.Available()
		s.BuffersAcquired += buffers.Counts.Acquired()
		s.BuffersReleased += buffers.Counts.Released()
	}

	u := &l.link.Counters
	for i := range s.FlushBatches {
		s.FlushBatches[i] += u.Batches[i].Load()
	}
	s.FlushBatchSum += u.BatchSum.Load()
	s.UpstreamBytesIn += u.BytesIn.Load()
	s.UpstreamBytesOut += u.BytesOut.Load()
	s.UpstreamBuffered += u.Buffered.Load()
	s.UpstreamDropped += u.Dropped.Load()
	if connects := u.Connects.Load(); connects > 1 {
		s.LinkReconnects += connects - 1
	}
	s.LameDuckMoves += u.Moves.Load()
	if l.link.Ready() {
		s.LinksUp++
		if inflight > 0 {
			s.LinksActive++
		} else {
			s.LinksIdle++
		}
	}
}

// inflight returns the number of requests in flight. It may be called from any goroutine.
func (l *loop) inflight() uint64 {
	// Released first: between the two reads it can only fall behind, never overtake.
	released := l.slots.Counts.Released()
	return l.slots.Counts.Acquired() - released
}
