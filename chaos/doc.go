// Package chaos runs the real programs as processes and breaks them by a seeded schedule, while a checker keeps
// the history of every request. It has tests only:
//
//	make chaos                                                     one minute
//	go test ./chaos -run TestChaos -chaos.time=2h -timeout 0 -v    hours
//	go test ./chaos -run TestChaos -chaos.time=20s -chaos.seed=7   a schedule again
//	go test ./chaos -run TestChaos -chaos.time=1m -chaos.race      a gateway built with the race detector
//	go test ./chaos -run TestChaos -chaos.time=1m -chaos.only=kill some of the faults
//
// # What runs
//
//	clients ──unix──▶ gateway ──TCP──▶ proxies ──TCP──▶ three nats-servers ◀── responder
//
// The gateway is ipc-gateway serve; it and the nats-servers, which hold a stream with three replicas, are
// processes that can be killed and frozen. Clients, hostile clients, proxies and the responder are in the test.
//
// # What is checked
//
//   - Each whole request on a connection that stays gets exactly one answer, within answerWithin.
//   - Version 1 answers come in order; a version 2 answer has the id of a request that waits for one.
//   - RESPONSE_OK has what the responder sent, and the responder has seen the request.
//   - What was answered with sent:false, and a frame that was never completed, was never executed or stored.
//   - No request is executed twice.
//   - A message that JetStream has acknowledged is stored once, one that it has refused is not; no message is stored twice.
//   - A connection ends only if its client, or a fault, ended it; a gateway that was killed is replaced at its path.
//   - Once the faults are over, requests of each kind succeed again.
//   - Then nothing is left: no connection, nothing in flight, slots and buffers all released, and goroutines,
//     descriptors and memory are as they were after the warm-up.
//
// A request whose connection ended before its answer is unknown: it may have been executed, once.
//
// # Rounds
//
// A run is cut into rounds of -chaos.round. Each has a seed of its own, counted up from -chaos.seed, and ends with all
// the checks, so that a run of hours needs the memory of one round, and a failure is repeated with the seed of its
// round. A seed repeats the faults and what the clients do, not what the schedulers of three programs make of it.
//
// # Another fault
//
// A fault is a function in faults_test.go and a line in the table there.
package chaos
