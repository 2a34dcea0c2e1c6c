// Command load keeps a number of requests in flight, checks every answer, and reports rate, latency
// and its own CPU time as a line of JSON. With -programs it has the connections opened by that many
// copies of itself, and reports what they did together.
//
//	gateway  requests through a gateway's Unix socket
//	direct   the same requests through nats.go, one connection and one synchronous request each
//	ping     PING to a gateway's Unix socket, or to perf/echo
//
// Each connection is closed-loop: a request follows an answer. The first wrong answer, error answer
// or broken connection ends the run of its program, and load exits with 1.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// settings is what the command line says.
type settings struct {
	mode        string
	socket      string // of gateway and ping
	natsURL     string // of direct
	subject     string // of direct, and of version 2 frames
	programs    int    // processes that make the load; 1: this one
	program     int    // number of this one among them; notOne if it is not one of them
	connections int    // of each program
	window      int    // requests in flight on each connection; 1 for direct
	version     int    // of the frames of gateway: 1 TASK_SUBMIT, 2 REQUEST
	payload     int    // bytes
	duration    time.Duration
	controlled  bool
	args        []string // all of it
}

// notOne is the number of a load that somebody else than a load has started.
const notOne = -1

func parse(args []string) (*settings, error) {
	s := &settings{args: args}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&s.mode, "mode", "gateway", "gateway, direct or ping")
	flags.StringVar(&s.socket, "socket", "/tmp/beamline-gateway.sock", "Unix socket of gateway and ping")
	flags.StringVar(&s.natsURL, "nats-url", "nats://127.0.0.1:4222", "NATS server of direct")
	flags.StringVar(&s.subject, "subject", "perf.echo", "subject of direct and of version 2 frames")
	flags.IntVar(&s.programs, "programs", 1, "programs, processes of their own, that make the load")
	flags.IntVar(&s.program, "program", notOne, "be this one of the -programs, from 0, and report to the load that starts them")
	flags.IntVar(&s.connections, "conns", 1, "connections of each program")
	flags.IntVar(&s.window, "window", 1, "requests in flight on each connection")
	flags.IntVar(&s.version, "version", 1, "frames of gateway: 1 is TASK_SUBMIT, 2 is REQUEST")
	flags.IntVar(&s.payload, "payload", 256, fmt.Sprintf("payload bytes, at least %d", stampBytes))
	seconds := flags.Float64("seconds", 3, "how long")
	flags.BoolVar(&s.controlled, "controlled", false,
		`print "ready" when connected, wait for a line on stdin, print "done" after the last answer, and keep the connections until stdin ends; then report`)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	s.duration = time.Duration(*seconds * float64(time.Second))
	return s, s.validate()
}

func (s *settings) validate() error {
	switch {
	case s.mode != "gateway" && s.mode != "direct" && s.mode != "ping":
		return fmt.Errorf("-mode %q is not gateway, direct or ping", s.mode)
	case s.programs < 1:
		return fmt.Errorf("-programs %d is less than 1", s.programs)
	case s.program < notOne || s.program >= s.programs:
		return fmt.Errorf("-program %d is not one of %d", s.program, s.programs)
	case s.connections < 1:
		return fmt.Errorf("-conns %d is less than 1", s.connections)
	case s.window < 1:
		return fmt.Errorf("-window %d is less than 1", s.window)
	case s.mode == "direct" && s.window != 1:
		return fmt.Errorf("-window %d: direct waits for each answer, its window is 1", s.window)
	case s.version != codec.Version1 && s.version != codec.Version2:
		return fmt.Errorf("-version %d is neither 1 nor 2", s.version)
	case s.payload < stampBytes:
		return fmt.Errorf("-payload %d has no room for the %d bytes that tell one request from another", s.payload, stampBytes)
	case codec.HeaderBytesV2+len(s.subject)+s.payload > codec.FrameBytesMax:
		return fmt.Errorf("-payload %d does not fit a frame", s.payload)
	case s.duration <= 0:
		return fmt.Errorf("-seconds must be over 0")
	}
	return nil
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		// A flag that does not exist has already been named, with the usage.
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	if err := run(s, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// clients make the load. They are connected and warmed up when they are handed out.
type clients interface {
	// measure puts the load on and returns when the last answer is there.
	measure() error
	// shares tells what came of it, a share for each process.
	shares() ([]*share, error)
	Close()
}

func open(s *settings) (clients, error) {
	if s.programs > 1 && s.program == notOne {
		return startPrograms(s)
	}
	return connect(s)
}

// run connects, puts the load on, and writes the report to out: a share if it is for another load.
func run(s *settings, in io.Reader, out io.Writer) error {
	c, err := open(s)
	if err != nil {
		return err
	}
	defer c.Close()
	control := bufio.NewReader(in)
	if s.controlled {
		fmt.Fprintln(out, report.Ready)
		if _, err := control.ReadString('\n'); err != nil {
			return fmt.Errorf("waiting for the start: %w", err)
		}
	}
	if err := c.measure(); err != nil {
		return err
	}
	if s.controlled {
		fmt.Fprintln(out, report.Done)
		if _, err := io.Copy(io.Discard, control); err != nil {
			return fmt.Errorf("waiting for the end: %w", err)
		}
	}
	shares, err := c.shares()
	if err != nil {
		return err
	}
	all := summarize(s, shares)
	var result any = all
	if s.program != notOne {
		result = shares[0]
	}
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return err
	}
	if all.Errors > 0 {
		return errors.New(all.FirstError)
	}
	return nil
}
