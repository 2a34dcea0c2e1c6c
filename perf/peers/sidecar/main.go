// Command sidecar is the sidecar that one writes in an afternoon: a goroutine for each client, which reads a version 1
// frame, makes a synchronous request of it on the one nats.go connection, and writes the answer.
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
	"time"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/broker"
	"github.com/aigroup/ipc-gateway/perf/internal/meter"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

const requestTimeout = 30 * time.Second

func main() {
	var b broker.Broker
	b.AddFlags(flag.CommandLine)
	subject := flag.String("subject", "perf.echo", "subject of the requests")
	socket := flag.String("socket", "", "Unix socket to listen on")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "sidecar:", run(&b, *subject, *socket))
	os.Exit(1)
}

func run(b *broker.Broker, subject, socket string) error {
	conn, err := b.Connect(nats.Name("perf sidecar"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println(report.Ready)
	meter.Serve()
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close()
			if err := serve(client, conn, subject); err != nil {
				fmt.Fprintln(os.Stderr, "sidecar:", err)
			}
		}()
	}
}

// serve answers the requests of one client until it has gone.
func serve(client net.Conn, conn *nats.Conn, subject string) error {
	in, out := bufio.NewReader(client), bufio.NewWriter(client)
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
		answer, err := conn.Request(subject, frame[codec.HeaderBytesV1:], requestTimeout)
		if err != nil {
			return err
		}
		if _, err := out.Write(codec.AppendHeaderV1(frame[:0], codec.TypeResponseOK, len(answer.Data))); err != nil {
			return err
		}
		if _, err := out.Write(answer.Data); err != nil {
			return err
		}
		if in.Buffered() > 0 {
			continue // its answer goes along
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}
