// Command responder answers each request on a subject with the request's payload. It is what stands
// behind NATS in the benchmark, the same one for either way to reach it. It prints "ready" once it
// is subscribed, and runs until it is killed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/perf/internal/broker"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// gcPercent is far over the default: nats.go allocates for each message, and collecting a heap of a
// few MiB all the time would be the larger part of this process's work.
const gcPercent = 1600

func main() {
	var b broker.Broker
	b.AddFlags(flag.CommandLine)
	subject := flag.String("subject", "perf.echo", "subject to answer on")
	flag.Parse()
	debug.SetGCPercent(gcPercent)
	fmt.Fprintln(os.Stderr, "responder:", run(&b, *subject))
	os.Exit(1)
}

// run answers until the connection ends, and returns why it did.
func run(b *broker.Broker, subject string) error {
	closed := make(chan error, 1)
	conn, err := b.Connect(nats.Name("perf responder"), nats.NoReconnect(),
		nats.ClosedHandler(func(c *nats.Conn) { closed <- c.LastError() }))
	if err != nil {
		return err
	}
	_, err = conn.Subscribe(subject, func(request *nats.Msg) {
		if err := conn.Publish(request.Reply, request.Data); err != nil {
			fmt.Fprintln(os.Stderr, "responder:", err)
		}
	})
	if err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	fmt.Println(report.Ready)
	return errors.Join(errors.New("the connection to NATS ended"), <-closed)
}
