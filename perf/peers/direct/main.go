// Command direct is programs that use nats.go, with its defaults: each has connections of its own, keeps requests in
// flight on them or publishes, or connects anew for each request, checks every answer, and reports what the programs did together as a line of JSON.
// With -programs it starts that many copies of itself. With -unix they reach NATS through a Unix socket.
//
// Each goroutine is closed-loop: a request follows an answer. The first wrong answer or broken
// connection ends the run of its program, and direct exits with 1.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/broker"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// settings is what the command line says.
type settings struct {
	mode        string
	broker      broker.Broker
	unix        string // path of a Unix socket behind which the server is; empty: broker says where it is
	subject     string
	programs    int // processes that make the load; 1: this one
	program     int // number of this one among them; notOne if it is not one of them
	connections int // of all programs together; of connect at the same time
	window      int // requests in flight on each connection; of publish and connect 1
	payload     int // bytes
	duration    time.Duration
	controlled  bool
	args        []string // all of it
}

// notOne is the number of a program that somebody else than direct has started.
const notOne = -1

func parse(args []string) (*settings, error) {
	s := &settings{args: args}
	flags := flag.NewFlagSet("direct", flag.ContinueOnError)
	flags.StringVar(&s.mode, "mode", "request", "request; connect: a connection for each request; publish; jetstream: publish, and wait for the acknowledgements")
	s.broker.AddFlags(flags)
	flags.StringVar(&s.unix, "unix", "", "reach the server through this Unix socket")
	flags.StringVar(&s.subject, "subject", "perf.echo", "subject")
	flags.IntVar(&s.programs, "programs", 1, "programs, processes of their own, that make the load")
	flags.IntVar(&s.program, "program", notOne, "be this one of the -programs, from 0, and report to the one that starts them")
	flags.IntVar(&s.connections, "conns", 1, "connections of all programs together: where they are no multiple of -programs, some programs have one more")
	flags.IntVar(&s.window, "window", 1, "requests in flight on each connection")
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
	case !slices.Contains([]string{"request", "connect", "publish", "jetstream"}, s.mode):
		return fmt.Errorf("-mode %q is not request, connect, publish or jetstream", s.mode)
	case s.programs < 1:
		return fmt.Errorf("-programs %d is less than 1", s.programs)
	case s.program < notOne || s.program >= s.programs:
		return fmt.Errorf("-program %d is not one of %d", s.program, s.programs)
	case s.connections < s.programs:
		return fmt.Errorf("-conns %d is less than one for each of %d programs", s.connections, s.programs)
	case s.window < 1:
		return fmt.Errorf("-window %d is less than 1", s.window)
	case (s.mode == "connect" || s.mode == "publish") && s.window != 1:
		return fmt.Errorf("-window %d: of %s it is 1", s.window, s.mode)
	case s.payload < stampBytes || s.payload > 1<<20:
		return fmt.Errorf("-payload %d is not from %d, the bytes that tell one request from another, to 1 MiB", s.payload, stampBytes)
	case s.duration <= 0:
		return fmt.Errorf("-seconds must be over 0")
	}
	return nil
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		// A flag that does not exist has already been named, with the usage.
		fmt.Fprintln(os.Stderr, "direct:", err)
		os.Exit(2)
	}
	if err := run(s, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "direct:", err)
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

// run connects, puts the load on, and writes the report to out: a share if it is for another direct.
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
