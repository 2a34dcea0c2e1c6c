package trace

import (
	crypto "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
)

// IDs makes the ids of traces and spans, and the choices of which requests begin one. It belongs to one goroutine.
type IDs struct{ source *rand.ChaCha8 }

// NewIDs returns a source of ids with a seed of its own.
func NewIDs() *IDs {
	var seed [32]byte
	_, _ = crypto.Read(seed[:]) // it ends the program rather than fail
	return &IDs{rand.NewChaCha8(seed)}
}

// NewTrace returns an id for a trace.
func (s *IDs) NewTrace() (id ID) {
	for id == (ID{}) {
		binary.BigEndian.PutUint64(id[:], s.source.Uint64())
		binary.BigEndian.PutUint64(id[8:], s.source.Uint64())
	}
	return id
}

// NewSpan returns an id for a span.
func (s *IDs) NewSpan() (id SpanID) {
	for id == (SpanID{}) {
		binary.BigEndian.PutUint64(id[:], s.source.Uint64())
	}
	return id
}

// Threshold is a probability in the form that Picks compares with.
type Threshold uint64

// NewThreshold returns the threshold of a probability of 0 to 1.
func NewThreshold(probability float64) Threshold { return Threshold(probability * (1 << 63)) }

// Picks returns true with the probability of t.
func (s *IDs) Picks(t Threshold) bool { return s.source.Uint64()>>1 < uint64(t) }
