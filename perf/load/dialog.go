package main

import (
	"encoding/binary"
	"fmt"

	"github.com/aigroup/ipc-gateway/codec"
)

// ping is PING and PONG of version 1, as bytes: there is nothing else to them.
type ping struct{ request, answer []byte }

func dialPing(s *settings, _ int) (worker, error) {
	return dialPipeline(s, &ping{
		request: codec.AppendHeaderV1(nil, codec.TypePing, 0),
		answer:  codec.AppendHeaderV1(nil, codec.TypePong, 0),
	})
}

func (p *ping) appendRequest(dst []byte, _ uint64) []byte { return append(dst, p.request...) }

func (p *ping) takeAnswer(src []byte, oldest uint64) (n int, seq uint64, err error) {
	if len(src) < len(p.answer) {
		return 0, 0, nil
	}
	if got := src[:len(p.answer)]; string(got) != string(p.answer) {
		return 0, 0, fmt.Errorf("PING %d was answered with %x", oldest, got)
	}
	return len(p.answer), oldest, nil
}

func (p *ping) answerBytesMax() int { return len(p.answer) }

// request is a request with a payload: TASK_SUBMIT in version 1, whose answers come in order, or
// REQUEST in version 2, whose answers say which request they belong to.
type request struct {
	frame   codec.Frame
	payload payload
}

func dialGateway(s *settings, number int) (worker, error) {
	r := &request{
		frame:   codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit},
		payload: newPayload(number, s.payload),
	}
	if s.version == codec.Version2 {
		r.frame = codec.Frame{Version: codec.Version2, Type: codec.TypeRequest, Subject: []byte(s.subject)}
	}
	return dialPipeline(s, r)
}

func (r *request) appendRequest(dst []byte, seq uint64) []byte {
	r.frame.Payload = r.payload.stamp(seq)
	if r.frame.Version == codec.Version2 {
		r.frame.CorrelationID = seq
	}
	return codec.AppendFrame(dst, &r.frame)
}

func (r *request) takeAnswer(src []byte, oldest uint64) (n int, seq uint64, err error) {
	f, n, err := codec.Decode(src)
	if err != nil {
		return 0, 0, fmt.Errorf("request %d: the answer is no frame: %w", oldest, err)
	}
	if n == 0 {
		return 0, 0, r.checkLength(src)
	}
	seq = oldest
	if f.Version == codec.Version2 {
		seq = f.CorrelationID
	}
	if f.Type == codec.TypeResponseError {
		return 0, 0, errorAnswer(&f, seq)
	}
	if f.Version != r.frame.Version || f.Type != codec.TypeResponseOK {
		return 0, 0, fmt.Errorf("request %d was answered with %v of version %d", seq, f.Type, f.Version)
	}
	return n, seq, r.payload.check(f.Payload, seq)
}

// checkLength refuses a frame that would not fit the read buffer: no right answer is so long.
func (r *request) checkLength(src []byte) error {
	if len(src) < 4 {
		return nil
	}
	if n := binary.BigEndian.Uint32(src); int(n) > r.answerBytesMax() {
		return fmt.Errorf("an answer of %d bytes to a payload of %d", n, len(r.payload.bytes))
	}
	return nil
}

func (r *request) answerBytesMax() int {
	return codec.HeaderBytesV2 + len(r.payload.bytes) + errorBytesMax
}

// errorBytesMax is room for an error answer, which may be longer than the right one.
const errorBytesMax = 4 << 10

func errorAnswer(f *codec.Frame, seq uint64) error {
	info, err := codec.ParseError(f.Payload)
	if err != nil {
		return fmt.Errorf("request %d: %v: %w", seq, f.Type, err)
	}
	return fmt.Errorf("request %d: %s: %s", seq, info.Name, info.Message)
}
