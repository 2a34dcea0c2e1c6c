package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// soakClient is one connection after the other.
type soakClient struct {
	plan    *plan
	rng     *rand.Rand
	tally   *tally
	payload []byte // random; each request's is its beginning
	waiting map[uint64]int
	nextID  uint64
	wire    net.Conn // below the client.Conn of the time, for what that does not do
	out     []byte   // the frame that is being sent
}

func newClient(p *plan, number uint64, t *tally) *soakClient {
	c := &soakClient{plan: p, rng: rand.New(rand.NewPCG(1, number)), tally: t, payload: make([]byte, p.payloadBytesMax), waiting: map[uint64]int{}}
	for i := range c.payload {
		c.payload[i] = 'a' + byte(c.rng.IntN(26))
	}
	t.failedBy = map[string]int64{}
	return c
}

const (
	// answerTimeout is longer than any deadline that the gateway's routes have by default.
	answerTimeout = 60 * time.Second
	// burstsPerConnection is how many bursts a client sends that comes and goes.
	burstsPerConnection = 50
	// pingsEvery is how many requests there are for each that the gateway answers by itself.
	pingsEvery = 4
	// splitEvery is how many frames there are for each that a client that comes and goes sends in two pieces, and splitPause the time
	// between these, so that the gateway mostly sees the first one alone.
	splitEvery = 32
	splitPause = time.Millisecond
)

// run is the client's life. An error is the end of the soak: the gateway is gone.
func (c *soakClient) run(until time.Time) error {
	for time.Now().Before(until) {
		if err := c.connect(until); err != nil {
			return err
		}
	}
	return nil
}

// connect is the life of one connection.
func (c *soakClient) connect(until time.Time) error {
	wire, err := (&net.Dialer{}).DialContext(context.Background(), "unix", c.plan.socket)
	if err != nil {
		return fmt.Errorf("the gateway takes no connection: %w", err)
	}
	c.wire = wire
	conn := client.New(wire)
	defer conn.Close()
	c.tally.connections++
	for burst := 0; time.Now().Before(until) && (!c.plan.churn || burst < burstsPerConnection); burst++ {
		if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		if err := c.send(conn); err != nil {
			return err
		}
		if c.plan.churn && burst == burstsPerConnection-1 && c.rng.IntN(2) == 0 {
			return c.vanish()
		}
		if err := c.receive(conn); err != nil {
			return err
		}
	}
	return nil
}

// send sends a burst.
func (c *soakClient) send(conn *client.Conn) error {
	for range 1 + c.rng.IntN(c.plan.burst) {
		c.nextID++
		f := c.frame()
		c.waiting[c.nextID] = len(f.Payload)
		c.tally.sent++
		var err error
		if c.plan.churn && c.rng.IntN(splitEvery) == 0 {
			err = c.sendSplit(&f)
		} else {
			err = conn.Send(&f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendSplit sends a frame in two pieces.
func (c *soakClient) sendSplit(f *codec.Frame) error {
	first := c.cut(f)
	c.tally.split++
	if _, err := c.wire.Write(c.out[:first]); err != nil {
		return err
	}
	time.Sleep(splitPause)
	_, err := c.wire.Write(c.out[first:])
	return err
}

// cut encodes a frame into out, and returns a place within.
func (c *soakClient) cut(f *codec.Frame) int {
	c.out = codec.AppendFrame(c.out[:0], f)
	return 1 + c.rng.IntN(len(c.out)-1)
}

// frame is the next request: mostly small, at times as large as the plan has it.
func (c *soakClient) frame() codec.Frame {
	size := 1 + c.rng.IntN(min(len(c.payload), 256))
	if c.rng.IntN(4) == 0 {
		size = 1 + c.rng.IntN(len(c.payload))
	}
	f := codec.Frame{Version: codec.Version2, Type: codec.TypeTaskSubmit, CorrelationID: c.nextID, Payload: c.payload[:size]}
	if c.plan.subject != "" {
		f.Type, f.Subject = codec.TypeRequest, []byte(c.plan.subject)
	}
	if c.nextID%pingsEvery == 0 {
		f.Type, f.Subject = codec.TypePing, nil
	}
	return f
}

// vanish leaves without the answers, and often in the middle of a frame, which the gateway has to clean up behind.
func (c *soakClient) vanish() error {
	c.tally.abandoned += int64(len(c.waiting))
	clear(c.waiting)
	if c.rng.IntN(2) == 0 {
		return nil
	}
	c.tally.torn++
	f := c.frame()
	part := c.cut(&f)
	_, err := c.wire.Write(c.out[:part])
	return err
}

// receive takes the answers to all that waits.
func (c *soakClient) receive(conn *client.Conn) error {
	for len(c.waiting) > 0 {
		f, err := conn.Receive()
		if err != nil {
			return fmt.Errorf("%d answers are missing: %w", len(c.waiting), err)
		}
		size, asked := c.waiting[f.CorrelationID]
		delete(c.waiting, f.CorrelationID)
		if problem := c.check(&f, size, asked); problem != "" {
			c.tally.wrong++
			if c.tally.firstWrong == "" {
				c.tally.firstWrong = problem
			}
			if !asked {
				return fmt.Errorf("the connection is of no more use: %s", problem)
			}
		}
	}
	return nil
}

// check counts an answer that is right or an error, and else says what is wrong with it.
func (c *soakClient) check(f *codec.Frame, size int, asked bool) (problem string) {
	ping := f.CorrelationID%pingsEvery == 0
	echo := bytes.Equal(f.Payload, c.payload[:size])
	switch {
	case !asked:
		return fmt.Sprintf("an answer to %d, which nobody asked", f.CorrelationID)
	case f.Type == codec.TypeResponseError && !ping:
		info, err := codec.ParseError(f.Payload)
		if err != nil {
			return err.Error()
		}
		c.tally.failedBy[info.Name]++
		return ""
	case ping && f.Type == codec.TypePong && echo:
		c.tally.pongs++
		return ""
	case !ping && f.Type == codec.TypeResponseOK && (c.plan.subject == "" || echo):
		c.tally.right++
		return ""
	}
	return fmt.Sprintf("the answer to %d is %v %.40q", f.CorrelationID, f.Type, f.Payload)
}
