package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// stampBytes is the front of each payload: the worker's number and the request's, so that an
// answer that went astray is noticed.
const stampBytes = 16

// payload is the payload of one worker's requests. All but the stamp stays the same.
type payload struct {
	worker uint64
	bytes  []byte
}

func newPayload(worker, size int) payload {
	p := payload{uint64(worker), make([]byte, size)}
	for i := range p.bytes {
		p.bytes[i] = 'a' + byte(i%26)
	}
	binary.BigEndian.PutUint64(p.bytes, p.worker)
	return p
}

// stamp makes the payload that of request seq and returns it, valid until the next stamp.
func (p *payload) stamp(seq uint64) []byte {
	binary.BigEndian.PutUint64(p.bytes[8:], seq)
	return p.bytes
}

// check returns nil if answer is what an echo makes of request seq.
func (p *payload) check(answer []byte, seq uint64) error {
	if bytes.Equal(answer, p.stamp(seq)) {
		return nil
	}
	if len(answer) != len(p.bytes) {
		return fmt.Errorf("request %d: the answer has %d bytes, not %d", seq, len(answer), len(p.bytes))
	}
	worker, number := binary.BigEndian.Uint64(answer), binary.BigEndian.Uint64(answer[8:])
	if worker != p.worker || number != seq {
		return fmt.Errorf("request %d of worker %d got the answer to request %d of worker %d", seq, p.worker, number, worker)
	}
	return fmt.Errorf("request %d: the answer is not what was sent", seq)
}
