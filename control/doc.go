// Package control serves the operator of a running gateway: HTTP/1.1 with JSON on a Unix socket that
// only the gateway's own user and root may use. It is off the data path. What it asks of an event loop it
// waits for a bounded time, so that it answers while the gateway drains, without NATS, and when a loop is
// stuck.
//
//	GET  /v1/status     version, pid, uptime, ready or why not, sums over all loops
//	GET  /v1/clients    who is connected, with what each has used so far
//	GET  /v1/links      the connections to NATS
//	GET  /v1/routes     where frames go
//	GET  /v1/breakers   the circuit breakers of subjects on which requests fail
//	GET  /v1/config     the settings that count now, and where each comes from
//	GET  /v1/errors     errors that clients were answered with: counts, and the latest
//	POST /v1/kill       closes the connection of ?client=ID at once
//	POST /v1/drain      begins a graceful shutdown; with ?wait=true tells how it goes
//	POST /v1/reload     reads the configuration again
//	POST /v1/takeover   hands over to the caller, on its connection
//
// Every answer is a JSON object, and that of a drain that is waited for is one after the other. One with a status from
// 400 on has the field "error", which says what to do.
package control
