// Command natsd is a NATS server on a free loopback port, so that a comparison needs none
// installed. It prints "ready" and its URL, then for each line on stdin how many messages its clients have published so
// far, and runs until it is killed.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "natsd:", err)
		os.Exit(1)
	}
}

func run() error {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("no port to listen on")
	}
	fmt.Println(report.Ready, s.ClientURL())
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		state, err := s.Varz(nil)
		if err != nil {
			return err
		}
		fmt.Println(state.InMsgs)
	}
	s.WaitForShutdown()
	return nil
}
