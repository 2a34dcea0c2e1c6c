// Package upstream is one event loop's connection to NATS.
//
// The connection lives in the loop: a [Link] appends messages to a batch, the loop writes the batch
// to the socket, and the bytes that come back are parsed in place, in the loop's read buffer. What
// is not a reply to one of our requests is none of the loop's business and goes to nats.go, which
// is the control plane: it dials, authenticates, keeps alive, discovers servers, and reconnects.
//
//	loop   Link  <── bytes ── socket ── bytes ──> NATS
//	         │ ▲ control bytes, both ways
//	        [tap]                                  a net.Conn, as nats.go sees it
//	         ▲ │
//	       nats.go   CONNECT, SUB inbox, PING, PONG; INFO, -ERR
//
// # Threads
//
// The methods of [Link] and [Wire] run on the loop, except where their comment says otherwise. The
// tap is where the two worlds meet: it has a mutex, which is taken for control bytes only (a PING
// every few seconds), never for a request. The loop never calls nats.go: nats.go holds its lock
// while it dials, and dialing waits for the loop.
//
// # Epochs
//
// A [Wire] is one connection; a Link outlives many. What a Wire had not written when it closed never
// reached NATS, and the Link says so: offsets count every byte ever queued, and a message whose last
// byte is beyond what was written cannot have been executed.
//
// # Lame ducks
//
// A server that is about to shut down says so. Control then makes a second nats.go connection, to
// another server, and once that one knows of the inbox has the loop publish there. The old wire lives
// on until what was published on it is answered, or the server cuts it; see move.go and lameduck.go.
package upstream
