package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// pingCommand measures round trips that end in the gateway: NATS has no part in them.
type pingCommand struct {
	gatewayFlags
	Count    int           `short:"n" default:"4" env:"IPC_PING_COUNT" help:"Number of pings [${default}]; 0: until interrupted."`
	Interval time.Duration `short:"i" default:"200ms" env:"IPC_PING_INTERVAL" help:"Pause between two pings [${default}]."`
	Size     int           `short:"s" default:"0" env:"IPC_PING_SIZE" help:"Payload bytes of each ping [${default}]."`
}

// Help is what "ping --help" says before the flags.
func (p *pingCommand) Help() string {
	return `The gateway answers by itself, so this shows that it is alive and what the way to it costs, whether NATS is there or not.

Examples:

    ipc-gateway ping
    ipc-gateway ping -n 1000 -i 0s -s 256

Exit codes: 0 every ping was answered, 1 one was not, or there is no gateway.`
}

// Run sends one ping after another and prints a line for each, then the least, mean and greatest time.
func (p *pingCommand) Run(a *app) error {
	if p.Count < 0 || p.Interval < 0 || p.Size < 0 || p.Size > codec.FrameBytesMax-codec.HeaderBytesV2 {
		return usageErrorf("--count, --interval and --size cannot be negative, and --size is at most %d", codec.FrameBytesMax-codec.HeaderBytesV2)
	}
	conn, path, err := p.connect(a)
	if err != nil {
		return err
	}
	defer conn.Close()

	interrupted := a.signals()
	frame := codec.Frame{Version: codec.Version2, Type: codec.TypePing, Payload: bytes.Repeat([]byte{'p'}, p.Size)}
	var times roundTrips
	for p.Count == 0 || times.count < p.Count {
		frame.CorrelationID++
		took, err := ping(conn, &frame)
		if err != nil {
			return fmt.Errorf("ping %d: %w", frame.CorrelationID, err)
		}
		times.add(took)
		fmt.Fprintf(a.stdout, "pong from %s: id=%d payload=%d time=%v\n", path, frame.CorrelationID, p.Size, rounded(took))
		if times.count == p.Count {
			break
		}
		select {
		case <-interrupted:
			p.Count = times.count
		case <-time.After(p.Interval):
		}
	}
	fmt.Fprintf(a.stdout, "%d pings answered, min/avg/max = %v/%v/%v\n", times.count, rounded(times.least), rounded(times.mean()), rounded(times.greatest))
	return nil
}

// ping does one round trip and checks that what came back is what was sent.
func ping(conn *client.Conn, frame *codec.Frame) (time.Duration, error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	sent := time.Now()
	answer, err := conn.Do(frame)
	took := time.Since(sent)
	if err != nil {
		return 0, err
	}
	if err := answerError(&answer, codec.TypePong); err != nil {
		return 0, err
	}
	if answer.CorrelationID != frame.CorrelationID || !bytes.Equal(answer.Payload, frame.Payload) {
		return 0, fmt.Errorf("the pong (id %d, %d bytes) is not that of this ping (%d bytes)", answer.CorrelationID, len(answer.Payload), len(frame.Payload))
	}
	return took, nil
}

type roundTrips struct {
	count                int
	sum, least, greatest time.Duration
}

func (r *roundTrips) add(d time.Duration) {
	if r.count == 0 || d < r.least {
		r.least = d
	}
	r.greatest = max(r.greatest, d)
	r.sum += d
	r.count++
}

// mean is of at least one round trip: a ping that is not answered ends the command.
func (r *roundTrips) mean() time.Duration { return r.sum / time.Duration(r.count) }

// rounded shows a time to a tenth of a microsecond.
func rounded(d time.Duration) time.Duration { return d.Round(100 * time.Nanosecond) }
