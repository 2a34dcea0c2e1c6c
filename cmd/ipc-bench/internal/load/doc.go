// Package load puts requests on a gateway's Unix socket, checks every answer against its request and counts how
// long each took.
//
// A [Load] has workers, each a goroutine on a thread of its own with an epoll set and a share of the connections:
// so a worker's work for a request is one read, one write and no allocation, and what the client costs stays small
// against what is measured. [Result.CPUShare] says how small.
//
// # Closed and open loop
//
// Without [Spec.Rate] each connection keeps its window of requests in flight, and a request follows an answer. A
// server that stalls then stalls the client too, and the requests that would have come meanwhile are missing from
// the latencies. With a rate, requests are sent by the clock, whatever is still unanswered, and each is measured from
// the time at which it should have been sent.
//
// # What is checked
//
//	v1           answers come in the order of the requests
//	v2           the correlation id is that of a request in flight
//	PING         the answer is PONG; v2: with the ping's payload
//	PUBLISH      the answer is RESPONSE_OK
//	all others   the answer is RESPONSE_OK, and as [Spec.Expect] says it has the request's payload, which
//	             carries the numbers of connection and request; one with other numbers is always wrong
package load
