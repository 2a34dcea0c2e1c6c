package engine

import (
	"errors"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
)

// servedFrame is what became of the frame that is being worked on, should that work panic.
type servedFrame struct {
	handle   pool.Handle // of its slot; 0: it has none yet
	label    uint8
	sent     bool // its message may have been queued
	answered bool // without a slot
}

// read takes bytes from a client, which are borrowed, and serves every frame that they complete. The
// messages for NATS are written at the end of the pass, with those of other clients, unless there are
// enough of them already.
func (l *loop) read(s *session, data []byte) {
	l.counters.clientBytesIn.Add(uint64(len(data)))
	s.usage.read(l.now, len(data))
	l.readAt = l.now
	turn := l.turnOf(s)
	if s.in != nil {
		data = l.completePartial(s, data, &turn)
	}
	rest, more := l.serveFrames(s, data, &turn)
	if len(rest) > 0 {
		l.hold(s, rest)
	}
	if more {
		l.serveLater(s)
	}
	if l.link.Pending() && l.link.PendingBytes() >= flushBytes {
		l.link.Flush()
	}
}

const notServed = "this frame type is not served"

// framesPerTurn is how many frames of one client are served in a pass, however many it sent: no client holds up
// the others for longer than that takes. One that takes more than its share has shorter turns.
const framesPerTurn, framesPerGreedyTurn = 128, 32

// turnOf returns how many frames of s may be served now.
func (l *loop) turnOf(s *session) int {
	if l.fair.isGreedy(s) {
		return framesPerGreedyTurn
	}
	return framesPerTurn
}

// serveFrames serves frames in data until the turn of s is over, or s has to wait. It returns what is to be kept: from
// the first frame on that was not served, or an incomplete one; and whether there is more to serve in the next pass.
func (l *loop) serveFrames(s *session, data []byte, turn *int) (rest []byte, more bool) {
	for len(data) > 0 && !s.finishing && !s.doomed {
		if s.paused != 0 {
			return data, false
		}
		f, n, err := codec.Decode(data)
		if n == 0 {
			if err == nil {
				return data, false
			}
			l.rejectStream(s, &f, err)
			return nil, false
		}
		if *turn == 0 {
			return data, true
		}
		if !l.admit(s, &f, err) {
			return data, false
		}
		*turn--
		data = data[n:]
	}
	return nil, false
}

// admit serves a whole frame, unless it has to wait.
func (l *loop) admit(s *session, f *codec.Frame, malformed error) bool {
	if !l.mayHave(s, len(f.Payload)) {
		return false
	}
	waits := l.serve(s, f, malformed)
	if l.traced != nil {
		l.endFrameTrace()
	}
	l.giveReserved(s)
	return !waits
}

// serveHeld serves what was read of s before it was paused, as far as its turn goes.
func (l *loop) serveHeld(s *session) {
	held, at := s.in, s.inAt
	s.in, s.inAt = nil, 0
	l.readAt = s.inReadAt
	turn := l.turnOf(s)
	rest, more := l.serveFrames(s, held.B[at:], &turn)
	if len(rest) == 0 {
		l.buffers.Release(held)
		return
	}
	s.in, s.inAt = held, len(held.B)-len(rest)
	if more {
		l.serveLater(s)
		return
	}
	if s.paused == 0 {
		// It is read again, and what is read is put behind the part of a frame that is left.
		held.B, s.inAt = held.B[:copy(held.B, rest)], 0
		l.notePartial(s)
	}
}

// completePartial moves bytes from data into the frame that s has a part of, as many as that frame
// still needs, and serves it if they complete it. It returns the rest of data.
func (l *loop) completePartial(s *session, data []byte, turn *int) []byte {
	for len(data) > 0 && s.in != nil && s.paused == 0 {
		take := min(max(bytesWanted(s.in.B)-len(s.in.B), 1), len(data))
		s.in.B = append(s.in.B, data[:take]...)
		data = data[take:]
		f, n, err := codec.Decode(s.in.B)
		switch {
		case n > 0:
			if !l.admit(s, &f, err) {
				s.inReadAt = l.now
				return data
			}
			*turn--
			if s.in != nil {
				l.buffers.Release(s.in)
				s.in = nil
			}
		case err != nil:
			l.rejectStream(s, &f, err)
		}
	}
	return data
}

// bytesWanted returns how many bytes of a frame must be there before more can be said about it.
func bytesWanted(partial []byte) int {
	stated := codec.FrameBytes(partial)
	switch {
	case len(partial) < 4:
		return 4
	case stated > codec.FrameBytesMax:
		return 16 // decode needs the correlation id to refuse it
	}
	return stated
}

// rejectStream answers a frame after which the stream cannot be read on, and ends the connection.
func (l *loop) rejectStream(s *session, f *codec.Frame, err error) {
	l.counters.requests[labelInvalid].Add(1)
	switch {
	case errors.Is(err, codec.ErrVersion):
		l.refuse(s, f, labelInvalid, codec.CodeInvalidVersion, "the version byte must be 1 or 2")
	case errors.Is(err, codec.ErrTooLarge):
		l.refuse(s, f, labelInvalid, codec.CodeFrameTooLarge, "a frame is at most 4194304 bytes long, header included")
	default:
		l.refuse(s, f, labelInvalid, codec.CodeInvalidPayload, "the stated length is shorter than the frame's header")
	}
	s.finish()
}

// serve answers a whole frame, or takes it into flight, unless it has to wait. malformed is codec's verdict on a frame
// that could be skipped but not read. A frame whose work panics does not wait.
func (l *loop) serve(s *session, f *codec.Frame, malformed error) (waits bool) {
	label := labels[f.Type]
	l.serving = servedFrame{label: label}
	defer l.recoverFrame(s, f)
	if malformed == nil && l.mustWait(s, f) {
		return true
	}
	l.counters.requests[label].Add(1)
	s.usage.served(f.Version)
	if malformed != nil {
		l.refusePublish(s, f, label, codec.CodeInvalidPayload, "subject and header lengths exceed the frame")
		return false
	}
	if l.policy.traces {
		l.startTrace(s, f, label)
	}
	if f.Version == codec.Version2 && !l.admissible(s, f, label) {
		return false
	}
	switch f.Type {
	case codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel:
		l.task(s, f, label, &l.policy.routes[label])
	case codec.TypePublish, codec.TypeRequest:
		l.direct(s, f, label)
	case codec.TypePing:
		l.pong(s, f, label)
	case codec.TypeCapabilities:
		l.answerFrame(s, f, label, outcomeOK, codec.TypeResponseOK, l.capabilitiesJSON())
	case codec.TypeSubscribe:
		l.subscribe(s, f, label)
	default:
		l.refuse(s, f, label, codec.CodeInvalidType, notServed)
	}
	return false
}

// admissible checks what every version 2 frame has to keep to, but for its type, and answers one that does not.
func (l *loop) admissible(s *session, f *codec.Frame, label uint8) bool {
	switch {
	case f.Flags&^codec.FlagNoReply != 0:
		l.refuse(s, f, label, codec.CodeInvalidPayload, "unknown flags: only NO_REPLY (0x0001) is defined")
		return false
	case f.Flags&codec.FlagNoReply != 0:
		if f.Type == codec.TypePublish {
			return true // it is not answered, so its correlation id means nothing
		}
		l.refuse(s, f, label, codec.CodeInvalidPayload, "NO_REPLY goes with PUBLISH only")
		return false
	}
	if !served[f.Type] {
		return true // CANCEL and CREDIT name an id that is in use, and are refused for their type
	}
	if _, inUse := l.findID(idKey{s.id, f.CorrelationID}); inUse {
		l.refuse(s, f, label, codec.CodeInvalidPayload, "the correlation id is in use by a request that is not answered yet")
		return false
	}
	return true
}

func (l *loop) pong(s *session, f *codec.Frame, label uint8) {
	payload := f.Payload
	if f.Version == codec.Version1 {
		payload = nil
	}
	l.answerFrame(s, f, label, outcomeOK, codec.TypePong, payload)
}
