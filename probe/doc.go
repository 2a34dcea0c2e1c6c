// Package probe tells the outside how a gateway is, on net/http.
//
//	path      status  body
//	/         200     a page for people, which shows what /status.json says
//	/status.json
//	          200     state, rates and latencies, links, breakers, and the busiest clients
//	/health   200     {"status":"healthy","message":"Alive"}             every event loop turns
//	          503     {"status":"unhealthy","message":"<which does not>"}
//	/ready    200     {"status":"healthy","message":"Ready"}             requests are served
//	          503     {"status":"unhealthy","message":"draining"}        or why else they are not
//	/metrics  200     the gateway's numbers and those of the Go runtime and the process, in
//	                  version 0.0.4 of the Prometheus text format, or if asked for as OpenMetrics 1.0.0
//
// With [WithProfiles] there are profiles of the process below /debug/pprof/, without it 404.
//
// Alive is not ready: a gateway that drains, or that has lost NATS, answers /ready with 503 and
// /health with 200, because a restart would not help it.
//
// # Where the numbers come from
//
// The package only reads. A scrape takes one [engine.Stats] and writes each family of a table,
// gatewayFamilies in metrics.go: a new metric is one line there and one in docs/metrics.md, and
// tests fail for a field of Stats that no family shows and for a family that the document lacks.
// The exposition is written anew for each scrape, so nothing here is shared between requests.
//
// # Who may see what
//
// Nobody has to tell who he is. The program names of clients, subjects, and the addresses of servers are only in answers to
// requests that come over loopback and name it as their host; payloads are nowhere.
//
// # What it costs
//
// The loops are not stopped to read their counters. The Go runtime's numbers need runtime.ReadMemStats,
// which stops the world for some tens of microseconds, and the number of open descriptors needs
// a walk over /proc/self/fd.
//
// A status asks each loop for its clients and breakers, and the NATS servers for a PONG, but at most once a second,
// however many look at the page, and never while nobody does.
//
// # What profiles cost
//
// Nothing while none is taken: contention is recorded only as long as somebody reads /debug/pprof/mutex or block.
// The heap's allocations are sampled from the start of the process on, one for each 512 KiB; a process that
// serves no profiles sets runtime.MemProfileRate to 0. The command line is not served, for it may hold secrets.
package probe
