// Package engine turns bytes from a local client into a NATS message, and the reply back into
// bytes, on one event loop and without allocating.
//
// # Life of a request
//
//  1. frame    a pass reads from each client that is ready; codec.Decode returns views  pass.go, read.go, room.go
//  2. admit    version, flags, correlation id, subject, limits; or the refusal         read.go, publish.go, permit.go, reach.go, breaker.go
//  3. publish  the loop's table gives a slot, the link appends PUB to its batch        publish.go, upstream/link.go
//  4. flush    the batch is written at the end of the pass, once for all its clients   pass.go
//  5. deliver  the reply finds its slot by index and generation, or is late            upstream/parser.go, deliver.go
//  6. answer   the frame is appended to the session's buffer; the slot is released     answer.go, order.go
//  7. write    one write per client and pass                                           flush.go
//
// # Threads
//
// A loop is one goroutine of gnet's (with Config.CPUs: one pinned thread), and owns its sessions,
// slots, buffers, deadlines and link. Nothing of that is touched by anybody else, so nothing of it
// is locked. Other goroutines come in through loop.post, which queues a function and wakes the loop.
// They are: the accept loop (accept.go), the ticker, which wakes loops for deadlines (ticker.go),
// nats.go's (package upstream), and whoever calls Gateway. Counters are atomic, written by their loop
// and read by anybody. What loops count together is few and atomic: the budget of requests in flight
// (budget.go), and the numbers of a rule for peers that has such limits (peerstate.go).
//
// gnet gives the loop its goroutine, and opens and closes the NATS connections (handler.go). The loop waits on an epoll
// instance of its own, for clients, NATS and wakes together (watch.go), and serves in one pass all that is ready. It
// goes back to gnet only when that is to do something. What a pass has to close is marked, and closed at its end
// (session.go). What clients send that wait for each answer is peeked, so as not to wake them in vain (peek.go).
//
// # Buffers
//
//   - What a client sent is in the loop's read buffer, borrowed until it is served. Only the
//     incomplete frame at its end is copied, into session.in.
//   - A message to NATS is copied into the link's batch, which the link owns.
//   - A reply is in the loop's other read buffer (or, if it came in parts, in the link's parser), borrowed
//     until Deliver returns.
//   - An answer is copied into session.out, or before its turn into request.answer. Both come from the
//     loop's pool.Buffers and go back once written; an idle session holds none.
//
// # Audit
//
// With Config.Audit each loop copies what it does into a ring of its own (audit.go), which a goroutine of package audit
// empties: a request when it is taken into flight, and when it is over.
//
// # Limits
//
//	what                              Config field               at the bound the client sees
//	connections                       MaxConnections             an OVERLOADED frame, then EOF
//	connections of a rule's clients   PeerRule.Connections       an OVERLOADED frame, then EOF
//	frames to NATS a second, a rule   PeerRule.RequestsPerSecond RATE_LIMITED
//	requests in flight, a rule        PeerRule.Inflight          it is paused; OVERLOADED, sent:false
//	requests in flight, all loops     MaxInflight                it is paused; OVERLOADED, sent:false
//	requests in flight, a connection  MaxInflightPerConnection   it is paused; OVERLOADED, sent:false
//	bytes that wait for a client      MaxClientBufferBytes       it is paused; the connection is closed
//	bytes that wait for their turn    4 * MaxClientBufferBytes   it is paused; OVERLOADED, sent:true (order.go)
//	time in which it takes nothing    ClientWriteTimeout         the connection is closed (stuck.go)
//	bytes that wait for NATS, a loop  MaxUpstreamBufferBytes     it is paused; OVERLOADED, sent:false
//	bytes kept for JetStream, a loop  MaxHeldBytes               it is paused; OVERLOADED, sent:false
//	time to complete a frame          FrameTimeout               INVALID_PAYLOAD, then EOF
//	failures of a subject in a row    BreakerThreshold           UNAVAILABLE with retry_after_ms (breaker.go)
//	records that wait for the disk    Audit.RingBytes            by Audit.OnFull: nothing; it is paused; UNAVAILABLE
//	a frame                           codec.FrameBytesMax        FRAME_TOO_LARGE, then EOF
//	a message                         the server's max_payload   FRAME_TOO_LARGE
//
// Where it says paused, waiting can help: nothing is read from the client (pause.go) until there is room again
// (room.go), or until Config.PauseMax or the deadline of its frame has passed. In a pass each client has a turn of a few frames,
// and where others suffer from one that takes far more, it is held to a share (fair.go).
//
// # Takeover
//
// Another process can go on with the socket and the clients of this one (handover.go, takeover.go). Each connection is
// passed when nothing of it is in flight, with what was read and not served, and what is still to be written. Whose it is
// meanwhile no clock decides, see handoverwire.go.
package engine
