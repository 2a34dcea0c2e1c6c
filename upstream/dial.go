package upstream

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Enroll gives conn to the loop, with w as what its events belong to. It returns once Wire.Opened
// has run. The loop owns conn from then on, and also if there is an error.
type Enroll func(conn net.Conn, w *Wire) error

// dialer is the nats.go CustomDialer of one link: it opens the socket, gets the server's first INFO,
// does TLS if it is wanted, and puts the connection into the loop.
type dialer struct {
	cfg    *Config
	link   *Link
	enroll Enroll

	previous *tap // nats.go forgets to close a connection whose handshake failed
}

// SkipTLSHandshake tells nats.go that TLS is done here.
func (d *dialer) SkipTLSHandshake() bool { return true }

// Dial implements nats.CustomDialer. nats.go calls it from one goroutine at a time.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.previous != nil {
		_ = d.previous.Close()
		d.previous = nil
	}
	t, err := d.dial(network, address)
	if err != nil {
		d.link.status.attemptFailed(err.Error())
		return nil, err
	}
	d.previous = t
	return t, nil
}

func (d *dialer) dial(network, address string) (*tap, error) {
	deadline := time.Now().Add(d.cfg.ConnectTimeout)
	conn, err := net.DialTimeout(network, address, d.cfg.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(deadline)
	secured, info, err := d.handshake(conn, address)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	_ = conn.SetDeadline(time.Time{})

	t := newTap(conn.LocalAddr(), conn.RemoteAddr(), d.link.handler.Wake)
	w := &Wire{link: d.link, tap: t, server: address, prelude: info}
	if secured != nil {
		if conn, err = bridge(conn, secured); err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", address, err)
		}
	}
	if err := d.enroll(conn, w); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	return t, nil
}

// handshake reads INFO and does TLS if the configuration or the server wants it. secured is nil
// without TLS.
func (d *dialer) handshake(conn net.Conn, address string) (secured *tls.Conn, info []byte, err error) {
	if d.cfg.TLSFirst {
		if secured, err = d.startTLS(conn, address); err != nil {
			return nil, nil, err
		}
		info, err = readInfo(secured)
		return secured, info, err
	}
	if info, err = readInfo(conn); err != nil {
		return nil, nil, err
	}
	parsed, err := parseInfo(info)
	if err != nil {
		return nil, nil, fmt.Errorf("the server's INFO cannot be read: %w", err)
	}
	if parsed.TLSRequired || d.cfg.usesTLS() {
		secured, err = d.startTLS(conn, address)
	}
	return secured, info, err
}

// readInfo reads the line that a server sends first. The server then waits, so that nothing behind
// the line is lost with the reader.
func readInfo(conn io.Reader) ([]byte, error) {
	reader := bufio.NewReader(io.LimitReader(conn, lineBytesMax))
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for the server's INFO: %w", err)
	}
	if !strings.HasPrefix(string(line), "INFO ") {
		return nil, errors.New("this is not a NATS server: it does not begin with INFO")
	}
	// With TLS the server says more inside; in clear text it has to be silent now.
	rest := make([]byte, reader.Buffered())
	if _, err := io.ReadFull(reader, rest); err != nil {
		return nil, err
	}
	return append(line, rest...), nil
}

func (d *dialer) startTLS(conn net.Conn, address string) (*tls.Conn, error) {
	cfg, err := d.tlsConfig(address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, cfg)
	if err := secured.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// tlsConfig reads the files anew for each connection, so that renewed certificates are picked up.
func (d *dialer) tlsConfig(address string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.serverName(address)}
	if d.cfg.CAFile != "" {
		pem, err := os.ReadFile(d.cfg.CAFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", d.cfg.CAFile)
		}
	}
	if d.cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(d.cfg.CertFile, d.cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// serverName returns the name that the certificate must have. A cluster tells its members as bare
// addresses; for those that were not configured, the first configured name counts, as in nats.go.
func (d *dialer) serverName(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil {
		return host
	}
	named := host
	for i := len(d.cfg.URLs) - 1; i >= 0; i-- {
		s := d.cfg.URLs[i]
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			continue
		}
		if u.Hostname() == host {
			return host
		}
		if net.ParseIP(u.Hostname()) == nil {
			named = u.Hostname()
		}
	}
	return named
}

// bridge gives the loop a plain socket for a TLS connection: one end of a socket pair, whose other
// end two goroutines copy from and to secured. They end when either side closes. On error both
// connections are closed.
func bridge(raw net.Conn, secured *tls.Conn) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		_ = raw.Close()
		return nil, os.NewSyscallError("socketpair", err)
	}
	inner, err1 := fileConn(fds[0], "nats-tls-loop")
	outer, err2 := fileConn(fds[1], "nats-tls-wire")
	if err := errors.Join(err1, err2); err != nil {
		for _, c := range []net.Conn{raw, inner, outer} {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, err
	}
	// raw is closed rather than secured: a close_notify would wait for a server that is stuck.
	end := func() {
		_ = outer.Close()
		_ = raw.Close()
	}
	go func() {
		defer end()
		_, _ = io.Copy(outer, secured)
	}()
	go func() {
		defer end()
		_, _ = io.Copy(secured, outer)
	}()
	return inner, nil
}

// fileConn makes a net.Conn of a socket descriptor, which it takes over.
func fileConn(fd int, name string) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() //nolint:errcheck // FileConn works on a duplicate.
	return net.FileConn(f)
}
