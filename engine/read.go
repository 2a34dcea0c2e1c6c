package engine

import (
	"errors"

	"github.com/aigroup/ipc-gateway/codec"
)

// servedFrame is the frame that is being worked on, for the answer should that work panic.
type servedFrame struct {
	version       byte
	label         uint8
	correlationID uint64
}

// read takes bytes from a client, which are borrowed, and serves every frame that they complete. The
// messages for NATS are written at the end of the pass, with those of other clients, unless there are
// enough of them already.
func (l *loop) read(s *session, data []byte) {
	l.counters.clientBytesIn.Add(uint64(len(data)))
	s.usage.read(l.now, len(data))
	if s.in != nil {
		data = l.completePartial(s, data)
	}
	l.serveAll(s, data)
	if l.link.Pending() && l.link.PendingBytes() >= flushBytes {
		l.link.Flush()
	}
}

const notServed = "this frame type is not served"

// serveAll serves the frames in data, and keeps the rest: an incomplete frame, or all from the one
// on at which s was paused.
func (l *loop) serveAll(s *session, data []byte) {
	for len(data) > 0 && !s.finishing && !s.doomed {
		if s.paused != 0 {
			l.hold(s, data)
			return
		}
		f, n, err := codec.Decode(data)
		if n == 0 {
			if err != nil {
				l.rejectStream(s, &f, err)
				return
			}
			l.hold(s, data)
			return
		}
		l.serve(s, &f, err)
		data = data[n:]
	}
}

// completePartial moves bytes from data into the frame that s has a part of, as many as that frame
// still needs, and serves it if they complete it. It returns the rest of data.
func (l *loop) completePartial(s *session, data []byte) []byte {
	for len(data) > 0 && s.in != nil {
		take := min(max(bytesWanted(s.in.B)-len(s.in.B), 1), len(data))
		s.in.B = append(s.in.B, data[:take]...)
		data = data[take:]
		f, n, err := codec.Decode(s.in.B)
		switch {
		case n > 0:
			l.serve(s, &f, err)
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

// serve answers a whole frame, or takes it into flight. malformed is codec's verdict on a frame
// that could be skipped but not read.
func (l *loop) serve(s *session, f *codec.Frame, malformed error) {
	label := labels[f.Type]
	l.counters.requests[label].Add(1)
	s.usage.served(f.Version)
	l.serving = servedFrame{f.Version, label, f.CorrelationID}
	defer l.recoverFrame(s)
	if malformed != nil {
		l.refusePublish(s, f, label, codec.CodeInvalidPayload, "subject and header lengths exceed the frame")
		return
	}
	if f.Version == codec.Version2 && !l.admissible(s, f, label) {
		return
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
}

// admissible checks what every version 2 frame has to keep to, and answers one that does not.
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
