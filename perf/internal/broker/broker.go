// Package broker connects the programs of a comparison to its NATS server.
package broker

import (
	"flag"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Broker is where the server is.
type Broker struct {
	URL string
	CA  string // file with the certificate to trust; empty: no TLS
}

// AddFlags adds the flags that say so.
func (b *Broker) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&b.URL, "nats-url", nats.DefaultURL, "NATS server")
	flags.StringVar(&b.CA, "nats-ca", "", "file with the certificate to trust")
}

// Connect connects.
func (b *Broker) Connect(options ...nats.Option) (*nats.Conn, error) {
	if b.CA != "" {
		options = append(options, nats.RootCAs(b.CA))
	}
	conn, err := nats.Connect(b.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("NATS server at %s: %w", b.URL, err)
	}
	return conn, nil
}
