package engine

import (
	"time"

	"github.com/aigroup/ipc-gateway/audit"
)

// TypeLabels names the client frame types in the order of the per-type arrays of [Stats].
// They are the values of the label "type" in the metrics. "submit", "query" and "cancel" are
// the routes TASK_SUBMIT, TASK_QUERY and TASK_CANCEL; "abort" is the frame type CANCEL;
// "invalid" collects every type that no client may send and frames that could not be read.
var TypeLabels = [TypeCount]string{
	"submit", "query", "cancel", "stream_subscribe", "publish", "request",
	"abort", "credit", "subscribe", "ping", "capabilities", "invalid",
}

// TypeCount is the number of per-type series.
const TypeCount = 12

// CodeLabels names the outcomes in the order of Stats.Responses: "ok", then the names of
// codec.ErrorCodes in ascending order of code.
var CodeLabels = [CodeCount]string{
	"OK", "INVALID_VERSION", "INVALID_TYPE", "FRAME_TOO_LARGE", "INVALID_PAYLOAD", "TIMEOUT",
	"CONNECTION_CLOSED", "OVERLOADED", "UNAVAILABLE", "NO_RESPONDERS", "UNAUTHORIZED",
	"RATE_LIMITED", "SHUTTING_DOWN", "SERVICE_ERROR", "CANCELLED", "INTERNAL",
}

// CodeCount is the number of outcomes: ok and one for each error code.
const CodeCount = 16

// LatencyBounds are the upper bounds of the buckets of a [Latency] histogram: six a decade from
// 10 us to 30 s, which keeps an interpolated p99 within a quarter of the true value.
var LatencyBounds = [LatencyBuckets - 1]time.Duration{
	10 * time.Microsecond, 15 * time.Microsecond, 20 * time.Microsecond, 30 * time.Microsecond, 50 * time.Microsecond, 70 * time.Microsecond,
	100 * time.Microsecond, 150 * time.Microsecond, 200 * time.Microsecond, 300 * time.Microsecond, 500 * time.Microsecond, 700 * time.Microsecond,
	time.Millisecond, 1500 * time.Microsecond, 2 * time.Millisecond, 3 * time.Millisecond, 5 * time.Millisecond, 7 * time.Millisecond,
	10 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond, 70 * time.Millisecond,
	100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, 700 * time.Millisecond,
	time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second,
	10 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second,
}

// LatencyBuckets counts the buckets of a [Latency] histogram, the last of which has no upper bound.
const LatencyBuckets = 41

// Latency is a histogram of request durations, from the read of the frame to its answer.
type Latency struct {
	Buckets [LatencyBuckets]uint64 // not cumulative; Buckets[i] counts durations <= LatencyBounds[i]
	Sum     time.Duration
}

// FlushBounds are the upper bounds, in messages, of the buckets of the flush batch histogram.
var FlushBounds = [FlushBuckets - 1]uint64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}

// FlushBuckets counts the buckets of the flush batch histogram, the last of which has no upper bound.
const FlushBuckets = 12

// Stats is a sum over all loops, taken without stopping them: each number is exact, but numbers
// read one after another may be a few requests apart.
type Stats struct {
	Loops int

	Requests  [TypeCount]uint64 // whole frames read, by type
	Responses [CodeCount]uint64 // answers queued for clients, by outcome
	Durations [TypeCount]Latency

	Connections        uint64 // open now
	ConnectionsTotal   uint64 // accepted since the start
	ClientsTakenOver   uint64 // clients of another process that this one went on with
	ConnectionsRefused uint64 // over MaxConnections
	AcceptErrors       uint64

	PeerConnectionsRefused  uint64 // over PeerRule.Connections
	ConnectionsUnauthorized uint64 // of those who may not connect

	Peers      []PeerStats // of the rules in Config.Peers, in that order
	OtherPeers PeerCounts  // of those who may connect and have no rule

	SlowClientsClosed   uint64
	ClientsKilled       uint64 // closed by [Gateway.Kill]
	ClientBytesIn       uint64
	ClientBytesOut      uint64
	ClientBytesBuffered uint64 // waiting for clients now
	ClientBytesDropped  uint64 // answered or held for a client that went away before it took them

	PausedConnections uint64             // clients that are not read now
	PausedTime        time.Duration      // of all clients together, up to the last second
	Pauses            [PauseCount]uint64 // by reason; see PauseLabels
	FrameTimeouts     uint64             // clients closed because they did not complete a frame

	NoReplyRefused uint64 // NO_REPLY publishes that were refused, and so vanished without an answer

	Inflight            uint64 // requests that wait for NATS now
	InflightRefused     uint64 // refused at MaxInflight
	ConnInflightRefused uint64 // refused at MaxInflightPerConnection
	UpstreamFullRefused uint64 // refused at MaxUpstreamBufferBytes
	JetStreamRefused    uint64 // refused at MaxHeldBytes
	JetStreamHeldBytes  uint64 // bytes of messages that wait for an acknowledgement now
	JetStreamResends    uint64 // copies of such messages that were sent after the first
	LateReplies         uint64 // replies whose request was already answered or gone
	Abandoned           uint64 // requests whose client went away before the answer
	InternalErrors      uint64
	SlotsAvailable      uint64
	SlotsAcquired       uint64
	SlotsReleased       uint64
	BuffersAvailable    uint64 // buffers in the loops' free lists
	BuffersAcquired     uint64
	BuffersReleased     uint64
	FlushBatches        [FlushBuckets]uint64 // messages a write to NATS carried, not cumulative
	FlushBatchSum       uint64               // messages in all those writes

	LinksUp          uint64 // links that are ready for requests
	LinksActive      uint64 // ready, with at least one request in flight
	LinksIdle        uint64 // ready, with none
	LinkReconnects   uint64
	LameDuckMoves    uint64 // times that a link left a server that was about to shut down, before being cut
	UpstreamBytesIn  uint64
	UpstreamBytesOut uint64
	UpstreamBuffered uint64 // bytes waiting for NATS now
	UpstreamDropped  uint64 // bytes of NO_REPLY publishes and requests that a lost link never took

	CircuitBreakerState uint64                    // the worst one, as a BreakerState: open, else half-open, else closed
	BreakersOpen        uint64                    // subjects whose breaker is open now, counted in each loop
	BreakersHalfOpen    uint64                    // likewise half-open
	LoopBreakers        []BreakerCounts           // of each loop
	BreakerTransitions  [BreakerStateCount]uint64 // by the state that was entered
	BreakerRefused      uint64                    // requests refused by a breaker

	Audit audit.Stats // all zero: there is no audit log

	TraceSpans   uint64 // spans of sampled requests that ended
	TraceDropped uint64 // spans that nobody will see: no room in flight or in the queue, or they could not be exported

	Draining bool
}
