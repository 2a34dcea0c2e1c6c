package load

import (
	"errors"
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// Expect says what the payload of an answer has to be.
type Expect uint8

const (
	// ExpectLearned is whatever the first answer of all does: ExpectEcho, ExpectPart or ExpectOK.
	ExpectLearned Expect = iota
	// ExpectEcho is the payload of the request, and nothing else.
	ExpectEcho
	// ExpectPart is anything that has the payload of the request in it.
	ExpectPart
	// ExpectOK is anything but the payload of another request.
	ExpectOK
)

// String returns the name of e, as ParseExpect takes it.
func (e Expect) String() string { return [...]string{"learn", "echo", "part", "ok"}[e] }

// ParseExpect is the inverse of [Expect.String].
func ParseExpect(name string) (Expect, error) {
	for e := ExpectLearned; e <= ExpectOK; e++ {
		if e.String() == name {
			return e, nil
		}
	}
	return 0, fmt.Errorf("%q is none of learn, echo, part and ok", name)
}

const (
	// TimeoutMax is the longest Spec.Timeout.
	TimeoutMax = time.Minute
	// WindowMax is how many requests a connection can have in flight.
	WindowMax = 1 << 16
	// PayloadBytesMax leaves room for the header and subject of either version.
	PayloadBytesMax = codec.FrameBytesMax - codec.HeaderBytesV2 - codec.SubjectBytesMax

	connectionsMax = 1 << 16
)

// Spec says what load to put on.
type Spec struct {
	Socket       string     // of the gateway
	Type         codec.Type // PING, TASK_SUBMIT, TASK_QUERY, TASK_CANCEL, and in version 2 REQUEST and PUBLISH
	Version      byte       // of the frames: 1 or 2
	Subject      string     // version 2: of the frames; empty: the route's
	Connections  int
	Window       int // requests that each connection may have in flight
	PayloadBytes int // 0 for PING of version 1, which has none
	Workers      int // threads; at most Connections
	Expect       Expect

	Duration time.Duration // how long requests are sent; 0: Count says it
	Count    int64         // how many requests are sent, by all connections together; 0: Duration says it
	Rate     float64       // requests per second, by all connections together; 0: closed loop
	Warmup   int64         // requests before that, closed loop, which are checked but not counted
	Timeout  time.Duration // an answer that takes longer, from when its request was sent, has failed, and its connection with it; at most TimeoutMax
}

// Validate returns every problem of s, joined.
func (s *Spec) Validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	v2 := s.Version == codec.Version2
	switch s.Type {
	case codec.TypePing:
		check(v2 || s.PayloadBytes == 0, "a ping of version 1 has no payload: use version 2 for %d bytes", s.PayloadBytes)
	case codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel:
	case codec.TypeRequest, codec.TypePublish:
		check(v2, "version 1 has no %v", s.Type)
		check(s.Subject != "", "%v needs a subject", s.Type)
	default:
		check(false, "%v is not a type whose answers can be checked", s.Type)
	}
	check(s.Version == codec.Version1 || v2, "version %d is neither 1 nor 2", s.Version)
	check(s.Subject == "" || v2, "version 1 has no subject")
	check(len(s.Subject) <= codec.SubjectBytesMax, "the subject has over %d bytes", codec.SubjectBytesMax)
	check(s.Connections >= 1 && s.Connections <= connectionsMax, "%d connections: want 1 to %d", s.Connections, connectionsMax)
	check(s.Window >= 1 && s.Window <= WindowMax, "window %d: want 1 to %d", s.Window, WindowMax)
	check(s.Workers >= 1 && s.Workers <= s.Connections, "%d workers: want 1 to the number of connections", s.Workers)
	check(s.PayloadBytes >= 0 && s.PayloadBytes <= PayloadBytesMax, "payload of %d bytes: want 0 to %d", s.PayloadBytes, PayloadBytesMax)
	check(s.Duration > 0 != (s.Count > 0), "want a duration or a number of requests over 0")
	check(s.Rate >= 0 && s.Rate <= 1e9, "rate %v: want 0 to 1e9", s.Rate)
	check(s.Warmup >= 0, "warm-up of %d requests", s.Warmup)
	check(s.Timeout > 0 && s.Timeout <= TimeoutMax, "timeout %v: want over 0, at most %v", s.Timeout, TimeoutMax)
	return errors.Join(problems...)
}
