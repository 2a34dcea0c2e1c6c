// Package control serves the operator of a running gateway: HTTP/1.1 with JSON on a Unix socket that
// only the gateway's own user and root may use. It is off the data path. What it asks of an event loop it
// waits for a bounded time, so that it answers while the gateway drains, without NATS, and when a loop is
// stuck.
//
//	GET  /v1/status     version, pid, uptime, ready or why not, sums over all loops
//	POST /v1/reload     reads the configuration again
//
// Every answer is a JSON object. One with a status other than 200 has the field "error", which says what to
// do.
package control
