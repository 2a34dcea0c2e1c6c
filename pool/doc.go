// Package pool holds what the data plane reuses: the fixed table of request slots, and byte buffers.
//
// Everything here belongs to one event loop. No method may be called from anywhere else, except
// the readers of [Counts], which are atomic. There are no locks.
//
// # Handles
//
// A [Handle] names a slot by index and generation. Releasing a slot ends its generation, so a
// handle that outlives its request (a late reply, a deadline that fired with the answer) finds
// nothing instead of somebody else's request.
//
// # Ownership
//
// Acquire hands out, Release takes back; in between the caller owns what it got. A slot is zeroed
// and a buffer emptied on release, so that neither keeps anything alive. Releasing twice is a bug
// of the caller and panics.
package pool
