// Command ring is the best sidecar that one would write around nats.go: nobody waits for an answer. A goroutine for each
// client publishes its requests as they come, with a reply subject that names the client and the request; one
// subscription takes all replies and puts each in its place in the client's ring; what is complete at the front of the
// ring is written to the client, in order, by a second goroutine.
//
// It prints "ready" once it listens, answers perf/internal/meter, and runs until it is killed.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/broker"
	"github.com/aigroup/ipc-gateway/perf/internal/meter"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// inflightMax is how many requests of one client wait for their answers at most; a power of two.
const inflightMax = 1024

func main() {
	var b broker.Broker
	b.AddFlags(flag.CommandLine)
	subject := flag.String("subject", "perf.echo", "subject of the requests")
	socket := flag.String("socket", "", "Unix socket to listen on")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "ring:", run(&b, *subject, *socket))
	os.Exit(1)
}

func run(b *broker.Broker, subject, socket string) error {
	conn, err := b.Connect(nats.Name("perf ring"))
	if err != nil {
		return err
	}
	s := &sidecar{conn: conn, subject: subject, inbox: nats.NewInbox() + "."}
	if _, err := conn.Subscribe(s.inbox+">", s.deliver); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println(report.Ready)
	meter.Serve()
	for number := 0; ; number++ {
		accepted, err := listener.Accept()
		if err != nil {
			return err
		}
		c := &client{conn: accepted, filled: make(chan struct{}, 1), room: make(chan struct{}, 1), gone: make(chan struct{})}
		s.clients.Store(number, c)
		go c.write()
		go func() {
			if err := s.read(c, number); err != nil {
				fmt.Fprintln(os.Stderr, "ring:", err)
			}
			s.clients.Delete(number)
			close(c.gone)
		}()
	}
}

type sidecar struct {
	conn    *nats.Conn
	subject string
	inbox   string   // the front of all reply subjects
	clients sync.Map // number to *client
}

type client struct {
	conn   net.Conn
	filled chan struct{} // there is something in out
	room   chan struct{} // there is room in the ring
	gone   chan struct{} // closed when nothing more is read

	mu         sync.Mutex
	ring       [inflightMax]*nats.Msg // replies by request number modulo its size; nil: not there yet
	next, head uint64                 // the next request; the oldest without its answer in out
	out        []byte
}

// read publishes the requests of a client until it has gone.
func (s *sidecar) read(c *client, number int) error {
	in := bufio.NewReaderSize(c.conn, 64<<10)
	reply := strconv.AppendInt([]byte(s.inbox), int64(number), 10)
	reply = append(reply, '.')
	var frame []byte
	for {
		header, err := in.Peek(codec.HeaderBytesV1)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint32(header))
		if length < codec.HeaderBytesV1 || length > codec.FrameBytesMax {
			return fmt.Errorf("a frame of %d bytes", length)
		}
		if cap(frame) < length {
			frame = make([]byte, length)
		}
		frame = frame[:length]
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		seq := c.reserve()
		subject := string(strconv.AppendUint(reply[:len(reply):len(reply)], seq, 10))
		if err := s.conn.PublishRequest(s.subject, subject, frame[codec.HeaderBytesV1:]); err != nil {
			return err
		}
	}
}

// reserve takes the next place in the ring, and waits for one.
func (c *client) reserve() uint64 {
	for {
		c.mu.Lock()
		if c.next-c.head < inflightMax {
			seq := c.next
			c.next++
			c.mu.Unlock()
			return seq
		}
		c.mu.Unlock()
		<-c.room
	}
}

// deliver puts a reply in its place, and all that are complete now in the client's output.
func (s *sidecar) deliver(m *nats.Msg) {
	first, second, _ := strings.Cut(m.Subject[len(s.inbox):], ".")
	number, err := strconv.Atoi(first)
	if err != nil {
		return
	}
	seq, err := strconv.ParseUint(second, 10, 64)
	if err != nil {
		return
	}
	found, ok := s.clients.Load(number)
	if !ok {
		return // it has gone
	}
	c := found.(*client)
	c.mu.Lock()
	c.ring[seq%inflightMax] = m
	for at := &c.ring[c.head%inflightMax]; *at != nil; at = &c.ring[c.head%inflightMax] {
		c.out = codec.AppendHeaderV1(c.out, codec.TypeResponseOK, len((*at).Data))
		c.out = append(c.out, (*at).Data...)
		*at = nil
		c.head++
	}
	some := len(c.out) > 0
	c.mu.Unlock()
	if some {
		signal(c.filled)
		signal(c.room)
	}
}

// signal wakes who waits, or will.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// write writes what is complete, until the client has gone.
func (c *client) write() {
	defer c.conn.Close()
	var out []byte
	for {
		select {
		case <-c.filled:
		case <-c.gone:
			return
		}
		c.mu.Lock()
		out, c.out = c.out, out[:0]
		c.mu.Unlock()
		if _, err := c.conn.Write(out); err != nil {
			return
		}
	}
}
