package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Enroll gives conn to the loop, with w as what its events belong to. It returns once Wire.Opened
// has run. The loop owns conn from then on, and also if there is an error.
type Enroll func(conn net.Conn, w *Wire) error

// handshakeFailed is what is told of an attempt that nats.go gave up.
const handshakeFailed = "the handshake with NATS failed"

// dialer is the nats.go CustomDialer of one link: it opens the socket, gets the server's first INFO,
// does TLS if it is wanted, and puts the connection into the loop.
type dialer struct {
	cfg    *Config
	link   *Link
	enroll Enroll

	wanted context.Context // ends when the link is no longer wanted

	leaving atomic.Bool // the link leaves servers that are about to shut down: another of them will not do
	retired atomic.Bool // the link has moved to the wires of another dialer: no more of ours are wanted
	latest  atomic.Pointer[Wire]

	previous *tap                 // nats.go forgets to close a connection whose handshake failed
	dialed   map[string]time.Time // when each server was last tried
}

// SkipTLSHandshake tells nats.go that TLS is done here.
func (d *dialer) SkipTLSHandshake() bool { return true }

// dialError marks what the dialer has told of already. nats.go hands it back from a goroutine of its
// own, maybe when the next attempt has begun, which it must not be taken for.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// Dial implements nats.CustomDialer. nats.go calls it from one goroutine at a time.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.previous != nil {
		d.closePrevious()
		d.link.status.attemptEnded(handshakeFailed)
	}
	if d.retired.Load() {
		return nil, &dialError{net.ErrClosed}
	}
	if err := d.pace(address); err != nil {
		return nil, &dialError{err}
	}
	d.link.status.attempt()
	t, err := d.dial(network, address)
	if err != nil {
		d.link.status.attemptFailed(err.Error())
		return nil, &dialError{err}
	}
	d.previous = t
	return t, nil
}

// closePrevious closes the connection that was opened last. REQUIRES: nats.go does not dial.
func (d *dialer) closePrevious() {
	if d.previous != nil {
		_ = d.previous.Close()
		d.previous = nil
	}
}

// pace waits until the last attempt at the same server is ReconnectWait ago. nats.go only pauses
// once it has tried all servers in vain: if two of them take a connection and break it right after
// the handshake, it would go from one to the other as fast as it can.
func (d *dialer) pace(address string) error {
	now := time.Now()
	for other, at := range d.dialed {
		if now.Sub(at) >= d.cfg.ReconnectWait {
			delete(d.dialed, other)
		}
	}
	if last, recent := d.dialed[address]; recent {
		select {
		case <-time.After(last.Add(d.cfg.ReconnectWait).Sub(now)):
		case <-d.wanted.Done():
			return net.ErrClosed
		}
	}
	d.dialed[address] = time.Now()
	return nil
}

func (d *dialer) dial(network, address string) (*tap, error) {
	deadline := time.Now().Add(d.cfg.ConnectTimeout)
	conn, err := (&net.Dialer{Deadline: deadline}).DialContext(d.wanted, network, address)
	if err != nil {
		return nil, cause(err)
	}
	_ = conn.SetDeadline(deadline)
	// Whoever ends the link does not wait for a server that says nothing.
	wanted := context.AfterFunc(d.wanted, func() { _ = conn.SetDeadline(time.Unix(0, 1)) })
	secured, info, err := d.handshake(conn, address)
	if !wanted() && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	if server, err := parseInfo(firstLine(info)); err == nil && server.LameDuckMode && d.leaving.Load() {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to %s: the server is shutting down", address)
	}
	_ = conn.SetDeadline(time.Time{})

	t := newTap(conn.LocalAddr(), conn.RemoteAddr(), d.link.handler.Wake)
	w := &Wire{link: d.link, dial: d, tap: t, server: address, prelude: info}
	if secured != nil {
		raw := conn
		w.hangUp = func() { _ = raw.SetDeadline(time.Now().Add(hangUpTime)) }
		if conn, err = bridge(raw, secured, d.link.status.serverError); err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", address, err)
		}
	}
	if err := d.enroll(conn, w); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	d.latest.Store(w)
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
	line, rest, _ := bytes.Cut(info, []byte("\n"))
	parsed, err := parseInfo(line)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("the server's INFO cannot be read: %w", err)
	case !parsed.TLSRequired && !d.cfg.usesTLS():
		return nil, info, nil
	case len(rest) > 0: // as -ERR 'maximum connections exceeded'
		return nil, nil, fmt.Errorf("the server says %.100q where it should begin TLS", rest)
	}
	secured, err = d.startTLS(conn, address)
	return secured, info, err
}

func firstLine(info []byte) []byte {
	line, _, _ := bytes.Cut(info, []byte("\n"))
	return line
}

// readInfo reads the line that a server sends first, and what comes along with it: a server that
// wants us waits then, one that does not may say so at once.
func readInfo(conn io.Reader) ([]byte, error) {
	reader := bufio.NewReader(io.LimitReader(conn, lineBytesMax))
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for the server's INFO: %w", cause(err))
	}
	if !strings.HasPrefix(string(line), "INFO ") {
		return nil, errors.New("this is not a NATS server: it does not begin with INFO")
	}
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
		return nil, fmt.Errorf("TLS handshake: %w", cause(err))
	}
	return secured, nil
}

// cause takes off an error what is different each time, so that each failure would look like news: our
// own port, and the time.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "read" || op.Op == "write") {
		return op.Err
	}
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		reason := lookup.Err // may be that of a socket to the name server, with both addresses before the last colon
		return fmt.Errorf("looking up %s: %s", lookup.Name, strings.TrimSpace(reason[strings.LastIndex(reason, ":")+1:]))
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return fmt.Errorf("x509: a certificate has expired or is not yet valid: it is for %s to %s",
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return err
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

// hangUpTime is how long a TLS connection that the loop has closed may take to send what was written
// before. A server that is stuck would keep it open for ever.
const hangUpTime = time.Second

// bridge gives the loop a plain socket for a TLS connection: one end of a socket pair, whose other
// end two goroutines copy from and to secured. They end when either side closes; failed is told of
// an error that the loop would see as a mere EOF. On error both connections are closed.
func bridge(raw net.Conn, secured *tls.Conn, failed func(reason string)) (net.Conn, error) {
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
		in := &errorKeeper{Reader: secured}
		_, _ = io.Copy(outer, in)
		if err := in.err; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			failed(cause(err).Error()) // as the server's alert about our certificate
		}
	}()
	go func() {
		defer end()
		_, _ = io.Copy(secured, outer)
	}()
	return inner, nil
}

// errorKeeper remembers why reading ended.
type errorKeeper struct {
	io.Reader
	err error
}

func (k *errorKeeper) Read(p []byte) (n int, err error) {
	n, err = k.Reader.Read(p)
	if err != nil {
		k.err = err
	}
	return n, err
}

// fileConn makes a net.Conn of a socket descriptor, which it takes over.
func fileConn(fd int, name string) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() //nolint:errcheck // FileConn works on a duplicate.
	return net.FileConn(f)
}
