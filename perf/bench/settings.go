package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// settings is what the command line says.
type settings struct {
	repeats     int
	duration    time.Duration // of each run
	connections []int         // of gateway vs direct
	goClients   bool          // clients of the gateway in Go too
	shared      bool          // those, and direct's beside them, are connections in one process
	payload     int           // bytes
	version     int           // of the frames
	loops       int           // of the gateway; 0: its default
}

// payloadBytesMin is what load needs to tell requests apart.
const payloadBytesMin = 16

func parse(args []string) (*settings, error) {
	s := &settings{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.repeats, "repeats", 5, "measured runs of each kind")
	seconds := flags.Float64("seconds", 3, "length of a run")
	connections := flags.String("conns", "1,16,64", "connections of gateway vs direct; the goals are about 16 and 64")
	flags.BoolVar(&s.goClients, "go", true, "also measure clients of the gateway that are written in Go")
	flags.BoolVar(&s.shared, "shared", false, "clients in Go: all connections of a side in one process, instead of a program for each")
	flags.IntVar(&s.payload, "payload", 256, "bytes of a request's payload")
	flags.IntVar(&s.version, "version", codec.Version1, "frames of clients in Go to the gateway: 1 is TASK_SUBMIT, 2 is REQUEST")
	flags.IntVar(&s.loops, "loops", 0, "event loops of the gateway; 0: its default")
	quick := flags.Bool("quick", false, "2 repeats of 0.5 s, to see that all works: the figures are worth little")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	if *quick {
		s.repeats, *seconds = 2, 0.5
	}
	s.duration = time.Duration(*seconds * float64(time.Second))
	var err error
	if s.connections, err = parseCounts(*connections); err != nil {
		return nil, err
	}
	return s, s.validate()
}

func parseCounts(list string) ([]int, error) {
	var counts []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1024 {
			return nil, fmt.Errorf("-conns %s: %q is not a number from 1 to 1024", list, text)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

func (s *settings) validate() error {
	switch {
	case s.repeats < 1 || s.repeats > 1000:
		return fmt.Errorf("-repeats %d is not from 1 to 1000", s.repeats)
	case s.duration < 50*time.Millisecond || s.duration > time.Minute:
		return fmt.Errorf("-seconds %v is not from 0.05 to 60", s.duration.Seconds())
	case s.payload < payloadBytesMin || s.payload > 512<<10:
		return fmt.Errorf("-payload %d is not from %d to %d", s.payload, payloadBytesMin, 512<<10)
	case s.version != codec.Version1 && s.version != codec.Version2:
		return fmt.Errorf("-version %d is neither 1 nor 2", s.version)
	case s.loops < 0:
		return fmt.Errorf("-loops %d is less than 0", s.loops)
	}
	return nil
}

// command is the command line that makes the same runs.
func (s *settings) command() string {
	counts := make([]string, len(s.connections))
	for i, n := range s.connections {
		counts[i] = strconv.Itoa(n)
	}
	return fmt.Sprintf("go run ./perf/bench -repeats %d -seconds %v -conns %s -go=%t -shared=%t -payload %d -version %d -loops %d",
		s.repeats, s.duration.Seconds(), strings.Join(counts, ","), s.goClients, s.shared, s.payload, s.version, s.loops)
}

// frame names what is sent to the gateway.
func (s *settings) frame() string {
	if s.version == codec.Version2 {
		return "v2 REQUEST"
	}
	return "v1 TASK_SUBMIT"
}

// spread names the clients of a side.
func (s *settings) spread() string {
	if s.shared {
		return "connections in one process"
	}
	return "programs"
}

// clients says how the connections of a side are spread over processes.
func (s *settings) clients() string {
	if s.shared {
		return "all clients of a side in one process"
	}
	return "each client a program of its own"
}
