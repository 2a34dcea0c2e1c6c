package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/alecthomas/kong"

	"github.com/aigroup/ipc-gateway/cmd/ipc-bench/internal/load"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
)

// loadFlags say what is sent where.
type loadFlags struct {
	Socket  string        `short:"s" placeholder:"PATH" help:"The gateway's Unix socket [/tmp/beamline-gateway.sock] ($$IPC_SOCKET_PATH)."`
	Payload int           `short:"p" default:"-1" placeholder:"BYTES" help:"Payload bytes of a request [64; 0 for a ping of version 1, which has none]."`
	Window  int           `short:"w" placeholder:"N" help:"Requests in flight on each connection [1; with --rate at most 512]."`
	Type    string        `enum:"ping,submit,query,cancel,request,publish" default:"submit" placeholder:"TYPE" help:"ping (answered by the gateway itself), submit, query, cancel (go where its routes say), request or publish (to --subject) [${default}]."`
	Subject string        `short:"S" placeholder:"SUBJECT" help:"NATS subject; needs version 2."`
	Wire    int           `name:"version" short:"v" placeholder:"1|2" help:"Version of the wire protocol [1, or 2 where a flag needs it]."`
	Rate    float64       `placeholder:"R" help:"Send R requests a second by the clock, answered or not, and measure each from the time when it was due: an open loop."`
	Warmup  int64         `default:"1000" placeholder:"N" help:"Requests before, checked but not measured [${default}]."`
	Timeout time.Duration `default:"40s" help:"An answer that takes longer, from when its request was sent, has failed [${default}]; at most 1m."`
	Expect  string        `enum:"learn,echo,part,ok" default:"learn" placeholder:"WHAT" help:"Payload of an answer: echo (the request's), part (has the request's in it), ok (anything but that of another request), learn (as the first answer does) [${default}]."`
	Workers int           `default:"1" placeholder:"N" help:"Threads of the client [${default}]: more, if it says that it was the bottleneck."`
	JSON    outputFlag    `name:"json" placeholder:"FILE" help:"Also write the result as JSON: as the last line, or with --json=FILE to a file."`
	HDR     string        `name:"hdr" placeholder:"FILE" help:"Write the whole histogram, in microseconds, in HdrHistogram's text format: a line for each value that was recorded."`
}

// types are the values of --type.
var types = map[string]codec.Type{
	"ping": codec.TypePing, "submit": codec.TypeTaskSubmit, "query": codec.TypeTaskQuery, "cancel": codec.TypeTaskCancel,
	"request": codec.TypeRequest, "publish": codec.TypePublish,
}

const (
	payloadBytesDefault = 64
	// windowOpenLoop is half of what the gateway lets a connection have in flight by default.
	windowOpenLoop = 512
)

// spec makes of the flags what they mean.
func (f *loadFlags) spec(a *app, connections int) (*load.Spec, error) {
	expect, err := load.ParseExpect(f.Expect)
	if err != nil {
		return nil, err
	}
	s := &load.Spec{
		Socket: f.socket(a), Type: types[f.Type], Version: byte(f.Wire), Subject: f.Subject, Connections: connections, Window: f.Window,
		PayloadBytes: f.Payload, Workers: f.Workers, Expect: expect, Rate: f.Rate, Warmup: f.Warmup, Timeout: f.Timeout,
	}
	toSubject := s.Type == codec.TypeRequest || s.Type == codec.TypePublish || s.Subject != ""
	if f.Wire == 0 {
		s.Version = codec.Version1
		if toSubject || s.Type == codec.TypePing && f.Payload > 0 {
			s.Version = codec.Version2
		}
	} else if f.Wire != codec.Version1 && f.Wire != codec.Version2 {
		return nil, fmt.Errorf("--version %d is neither 1 nor 2", f.Wire)
	}
	if f.Payload == -1 {
		s.PayloadBytes = payloadBytesDefault
		if s.Type == codec.TypePing && s.Version == codec.Version1 {
			s.PayloadBytes = 0
		}
	}
	if f.Window == 0 {
		s.Window = 1
		if f.Rate > 0 {
			s.Window = windowOpenLoop
		}
	}
	if s.Type == codec.TypePublish {
		s.Expect = load.ExpectOK // the gateway answers it, and has nothing to say
	}
	if s.Type == codec.TypePing {
		s.Expect = load.ExpectEcho
	}
	return s, nil
}

func (f *loadFlags) socket(a *app) string {
	for _, path := range []string{f.Socket, a.environ("IPC_SOCKET_PATH"), a.environ("CGW_IPC_SOCKET_PATH")} {
		if path != "" {
			return path
		}
	}
	return engine.DefaultConfig().SocketPath
}

// outputFlag is a flag with or without a file's name.
type outputFlag struct {
	wanted bool
	path   string // empty: standard output
}

// Decode implements kong.MapperValue.
func (o *outputFlag) Decode(ctx *kong.DecodeContext) error {
	o.wanted = true
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		return nil
	}
	return ctx.Scan.PopValueInto("file", &o.path)
}

// IsBool lets the flag stand alone.
func (o *outputFlag) IsBool() bool { return true }

// seconds is a flag in seconds, as the predecessor had it, or with a unit.
type seconds time.Duration

// Decode implements kong.MapperValue.
func (s *seconds) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("seconds", &text); err != nil {
		return err
	}
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		*s = seconds(number * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	*s = seconds(d)
	return err
}
