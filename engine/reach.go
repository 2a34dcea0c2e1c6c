package engine

import (
	"bytes"

	"github.com/aigroup/ipc-gateway/codec"
)

// A NATS server does more for some headers than to pass them on: it publishes or stores something on other subjects than the
// message's own. It asks whether the gateway's user may do that, so whether the client may is for the gateway to say.
// Names are compared by case there, and the first line of a name counts; here every line does, however it is written.

// reach is what a header lets a client do beside publishing to the subject of its message.
type reach uint8

const (
	reachPublish reach = iota // to the subject that is the value
	reachRead                 // what is stored on it
	reachPurge                // the whole stream, if the value says so
)

var reachingHeaders = [...]struct {
	name  []byte
	reach reach
}{
	{[]byte("Nats-Trace-Dest"), reachPublish},      // trace events, with the headers in them
	{[]byte("Nats-Schedule-Target"), reachPublish}, // the message, when it is due
	{[]byte("Nats-Schedule-Source"), reachRead},    // stored on the target in place of the message
	{[]byte("Nats-Scheduler"), reachPublish},       // removes the schedule there, with Nats-Schedule-Next
	{[]byte("Nats-Rollup"), reachPurge},
}

var (
	reachingPrefix = []byte("Nats-") // of all of them
	rollupAll      = []byte("all")   // rolls up all subjects of the stream, not only the message's
	everySubject   = []byte(">")
)

// mayReach reports whether the client of s may do all that its valid headers ask of the NATS server.
func (l *loop) mayReach(s *session, headers []byte) bool {
	for len(headers) > 0 {
		end := bytes.IndexByte(headers, '\n')
		line := headers[:end-1]
		headers = headers[end+1:]
		if len(line) > len(reachingPrefix) && bytes.EqualFold(line[:len(reachingPrefix)], reachingPrefix) && !l.mayReachBy(s, line) {
			return false
		}
	}
	return true
}

// mayReachBy reports the same for one header line, without its CRLF. Without a value it asks for nothing.
func (l *loop) mayReachBy(s *session, line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	for i := range reachingHeaders {
		h := &reachingHeaders[i]
		if len(value) == 0 || !bytes.EqualFold(name, h.name) {
			continue
		}
		switch h.reach {
		case reachPurge:
			return !bytes.EqualFold(value, rollupAll) || s.rule.publish == nil || s.rule.publish.covers(everySubject, 0)
		case reachRead:
			return codec.ValidateSubject(value) == nil && l.permitted(s.rule.readable(), value)
		default:
			return codec.ValidateSubject(value) == nil && l.permitted(s.rule.publish, value)
		}
	}
	return true
}

// readable returns the list of what the clients may read: where they may subscribe, and if nobody has said where that is, no more
// than where they may publish.
func (r *peerRule) readable() *subjectSet {
	if r.subscribe == nil {
		return r.publish
	}
	return r.subscribe
}
