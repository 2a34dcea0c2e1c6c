// Command natsd is a NATS server on a free loopback port, so that a comparison needs none
// installed. It prints "ready" and its URL, then for each line on stdin how many messages its clients have published so
// far, and runs until it is killed.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

const readyTimeout = 10 * time.Second

func main() {
	store := flag.String("jetstream", "", "folder of JetStream, with a stream of the subject perf.js in memory")
	certificate := flag.String("tls", "", "want TLS, and write the certificate to this file")
	flag.Parse()
	if err := run(*store, *certificate); err != nil {
		fmt.Fprintln(os.Stderr, "natsd:", err)
		os.Exit(1)
	}
}

func run(store, certificate string) error {
	options := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: store != "", StoreDir: store}
	if certificate != "" {
		var err error
		if options.TLSConfig, err = newTLS(certificate); err != nil {
			return err
		}
		options.TLS, options.TLSTimeout = true, readyTimeout.Seconds()
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(readyTimeout) {
		return fmt.Errorf("no port to listen on")
	}
	if store != "" {
		if err := addStream(s); err != nil {
			return err
		}
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

// streamMessagesMax keeps the stream small: what is measured is storing, not keeping.
const streamMessagesMax = 10_000

// addStream makes the stream that messages are published to.
func addStream(s *server.Server) error {
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := conn.JetStream()
	if err != nil {
		return err
	}
	_, err = stream.AddStream(&nats.StreamConfig{Name: "PERF", Subjects: []string{"perf.js"}, Storage: nats.MemoryStorage, MaxMsgs: streamMessagesMax})
	return err
}

// newTLS makes a certificate for loopback and writes it to path, for those who are to trust it.
func newTLS(path string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
