package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// sendCommand sends requests as any client program would.
type sendCommand struct {
	gatewayFlags
	Type    string        `short:"t" default:"submit" enum:"submit,query,cancel,publish,request" placeholder:"TYPE" env:"IPC_SEND_TYPE" help:"submit, query, cancel (the gateway's routes say where they go), request or publish (to --subject) [${default}]."`
	Wire    int           `default:"2" placeholder:"1|2" env:"IPC_SEND_WIRE" help:"Version of the wire protocol [${default}]; 1 knows only submit, query and cancel, without subject and headers."`
	Subject string        `short:"s" placeholder:"SUBJECT" env:"IPC_SEND_SUBJECT" help:"NATS subject; for submit, query and cancel instead of the route's."`
	Header  []string      `short:"H" sep:"none" placeholder:"'NAME: VALUE'" env:"IPC_SEND_HEADER" help:"NATS header to send along; may be repeated."`
	Timeout time.Duration `default:"0s" placeholder:"DURATION" env:"IPC_SEND_TIMEOUT" help:"Deadline of the request, from 1ms; without it the gateway's own applies."`
	Count   int           `short:"n" default:"1" env:"IPC_SEND_COUNT" help:"Send it so many times, each after the answer to the one before [${default}]."`
	NoReply bool          `env:"IPC_SEND_NO_REPLY" help:"With --type publish: ask for no answer, not even an error."`
	Verbose bool          `short:"v" env:"IPC_SEND_VERBOSE" help:"Print the answer's type, time and headers on standard error."`
	Payload string        `arg:"" help:"What to send; - reads it from standard input."`
}

// Help is what "send --help" says before the flags.
func (s *sendCommand) Help() string {
	return `The answer's payload goes to standard output. An error answer goes to standard error, with its name, code, and whether the request may have reached NATS.

Examples:

    ipc-gateway send '{"task":"x"}'
    ipc-gateway send --type request --subject demo.echo -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' -v hello
    ipc-gateway send --type publish --subject events.done --no-reply '{"id":7}'
    date | ipc-gateway send --wire 1 --type query -

Exit codes: 0 answered, 1 an error answer or no gateway, 2 called wrongly.`
}

// sendGrace is how much longer than the request's deadline the answer may take to come: the gateway
// answers TIMEOUT at the deadline.
const sendGrace = 5 * time.Second

// Run sends the frame as often as asked and prints what comes back.
func (s *sendCommand) Run(a *app) error {
	frame, err := s.frame(a.stdin)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	conn, _, err := s.connect(a)
	if err != nil {
		return err
	}
	defer conn.Close()

	var failed error
	for range s.Count {
		if frame.Version == codec.Version2 {
			frame.CorrelationID++
		}
		if s.Timeout > 0 {
			if err := conn.SetDeadline(time.Now().Add(s.Timeout + sendGrace)); err != nil {
				return err
			}
		}
		if err := s.sendOne(a, conn, frame); errors.Is(err, errConnection) {
			return err
		} else if err != nil {
			fmt.Fprintf(a.stderr, "ipc-gateway: %v\n", err)
			failed = &exitError{code: exitFailure}
		}
	}
	if s.NoReply {
		// The gateway reads in order: its pong means that it has read all that was sent.
		frame := codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: math.MaxUint64}
		_, err := ping(conn, &frame)
		return err
	}
	return failed
}

// errConnection marks errors after which nothing more can be sent.
var errConnection = errors.New("no answer")

func (s *sendCommand) sendOne(a *app, conn *client.Conn, frame *codec.Frame) error {
	start := time.Now()
	if err := conn.Send(frame); err != nil {
		return fmt.Errorf("%w: %w", errConnection, err)
	}
	if s.NoReply {
		return nil
	}
	answer, err := conn.Receive()
	if err != nil {
		return fmt.Errorf("%w: %w", errConnection, err)
	}
	if s.Verbose {
		fmt.Fprintf(a.stderr, "< %s in %v\n", answer.Type, rounded(time.Since(start)))
		for line := range strings.Lines(string(answer.Headers)) {
			fmt.Fprintf(a.stderr, "< %s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	if refusal := answerError(&answer, codec.TypeResponseOK); refusal != nil && answer.Version != frame.Version {
		return fmt.Errorf("%w: %w", errConnection, refusal) // a connection that is not taken hears so in version 1
	}
	if answer.CorrelationID != frame.CorrelationID {
		return fmt.Errorf("the answer is to request %d, not to %d", answer.CorrelationID, frame.CorrelationID)
	}
	if err := answerError(&answer, codec.TypeResponseOK); err != nil {
		return err
	}
	if len(answer.Payload) == 0 {
		return nil // as that of a PUBLISH: an empty line would say less than nothing
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", answer.Payload)
	return err
}

// sendTypes are the values of --type.
var sendTypes = map[string]codec.Type{
	"submit": codec.TypeTaskSubmit, "query": codec.TypeTaskQuery, "cancel": codec.TypeTaskCancel,
	"publish": codec.TypePublish, "request": codec.TypeRequest,
}

// frame builds the frame to send from the flags, or says which of them do not go together. Subject
// and headers are sent as they are given: the gateway's judgement of them is worth seeing.
func (s *sendCommand) frame(stdin io.Reader) (*codec.Frame, error) {
	f := &codec.Frame{Version: byte(s.Wire), Type: sendTypes[s.Type], Subject: []byte(s.Subject), Payload: []byte(s.Payload)}
	toSubject := f.Type == codec.TypePublish || f.Type == codec.TypeRequest
	switch {
	case s.Wire != codec.Version1 && s.Wire != codec.Version2:
		return nil, fmt.Errorf("--wire %d: want 1 or 2", s.Wire)
	case s.Wire == codec.Version1 && (toSubject || s.Subject != "" || len(s.Header) > 0):
		return nil, errors.New("--wire 1 has no publish, request, --subject and --header: leave it out")
	case toSubject && s.Subject == "":
		return nil, fmt.Errorf("--type %s needs a --subject", s.Type)
	case s.NoReply && f.Type != codec.TypePublish:
		return nil, errors.New("--no-reply goes with --type publish only")
	case s.Count < 1:
		return nil, fmt.Errorf("--count %d: want at least 1", s.Count)
	case s.Timeout < 0 || s.Timeout > math.MaxUint32*time.Millisecond, s.Timeout > 0 && s.Timeout < time.Millisecond:
		return nil, fmt.Errorf("--timeout %v: want at least 1ms, and less than 50 days", s.Timeout)
	}
	if s.Wire == codec.Version2 {
		f.TimeoutMs = uint32(s.Timeout.Milliseconds())
	}
	if s.NoReply {
		f.Flags = codec.FlagNoReply
	}
	for _, header := range s.Header {
		name, value, found := strings.Cut(header, ":")
		if !found {
			return nil, fmt.Errorf("--header %q: want 'Name: value'", header)
		}
		f.Headers = append(f.Headers, name+": "+strings.TrimSpace(value)+"\r\n"...)
	}
	if s.Payload == "-" {
		payload, err := io.ReadAll(io.LimitReader(stdin, codec.FrameBytesMax+1))
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		f.Payload = payload
	}
	return f, nil
}
