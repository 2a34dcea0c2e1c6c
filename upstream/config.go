package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"time"
)

// Config says how to reach NATS. Start from [Default].
type Config struct {
	// URLs are tried in random order: nats://[user:password@|token@]host[:port] or tls://...
	URLs []string
	// CredsFile is a file with a user JWT and its NKey seed, read at each connect. Empty: none.
	CredsFile string
	// NKeyFile is a file with an NKey seed, read at the start. Empty: none.
	NKeyFile string
	// CAFile is a PEM file with the authorities to trust instead of the system's. Implies TLS.
	CAFile string
	// CertFile and KeyFile are the PEM files of a client certificate, read at each connect. They imply TLS.
	CertFile, KeyFile string
	// TLSFirst starts with the TLS handshake instead of waiting for the server's INFO.
	TLSFirst bool
	// Name is shown in the server's list of connections.
	Name string
	// InboxPrefix starts the subjects that replies come on; the account must be allowed to subscribe below it.
	InboxPrefix string
	// ConnectTimeout bounds one attempt to connect, TLS handshake included.
	ConnectTimeout time.Duration
	// PingInterval and MaxPingsOut decide when a silent server counts as lost: after at most
	// PingInterval * (MaxPingsOut + 1), with the defaults 6 s.
	PingInterval time.Duration
	MaxPingsOut  int
	// ReconnectWait is the pause after all servers were tried once, plus up to ReconnectJitter. Both
	// double each time that all were tried in vain, up to eightfold.
	ReconnectWait   time.Duration
	ReconnectJitter time.Duration
}

// inboxPrefixBytesMax leaves room for the longest subject that codec lets through on a protocol
// line, which nats-server limits to 4096 bytes by default (max_control_line).
const inboxPrefixBytesMax = 128

// Default returns the configuration for a server on this machine.
func Default() Config {
	return Config{
		URLs:            []string{"nats://127.0.0.1:4222"},
		Name:            "ipc-gateway",
		InboxPrefix:     "_INBOX",
		ConnectTimeout:  2 * time.Second,
		PingInterval:    2 * time.Second,
		MaxPingsOut:     2,
		ReconnectWait:   250 * time.Millisecond,
		ReconnectJitter: 250 * time.Millisecond,
	}
}

// Validate returns every problem of c, joined. Passwords are masked in the messages.
func (c *Config) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }

	if len(c.URLs) == 0 {
		bad("nats url is empty: name a server, as nats://127.0.0.1:4222")
	}
	for _, s := range c.URLs {
		if err := checkURL(s); err != nil {
			problems = append(problems, err)
		}
	}
	if c.CredsFile != "" && c.NKeyFile != "" {
		bad("nats creds %q and nats nkey %q exclude each other", c.CredsFile, c.NKeyFile)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("nats cert %q and nats key %q go together: name both or neither", c.CertFile, c.KeyFile)
	}
	for _, f := range []struct{ name, path string }{
		{"creds", c.CredsFile}, {"nkey", c.NKeyFile}, {"ca", c.CAFile}, {"cert", c.CertFile}, {"key", c.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.ReadFile(f.path); err != nil {
			bad("nats %s: %w", f.name, err)
		}
	}
	if len(c.InboxPrefix) > inboxPrefixBytesMax {
		bad("nats inbox prefix is %d bytes long: want at most %d", len(c.InboxPrefix), inboxPrefixBytesMax)
	}
	if strings.ContainsAny(c.InboxPrefix, " \t\r\n*>") || c.InboxPrefix == "" || strings.Contains("."+c.InboxPrefix+".", "..") {
		bad("nats inbox prefix %q is not a subject prefix, as _INBOX", c.InboxPrefix)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
		low   time.Duration
	}{
		{"connect timeout", c.ConnectTimeout, time.Millisecond},
		{"ping interval", c.PingInterval, time.Millisecond},
		{"reconnect wait", c.ReconnectWait, time.Millisecond},
		{"reconnect jitter", c.ReconnectJitter, 0},
	} {
		if d.value < d.low || d.value > time.Hour {
			bad("nats %s is %v: want %v to 1h", d.name, d.value, d.low)
		}
	}
	if c.MaxPingsOut < 1 || c.MaxPingsOut > 100 {
		bad("nats max pings out is %d: want 1 to 100", c.MaxPingsOut)
	}
	return errors.Join(problems...)
}

// reconnectDelay returns the pause after all servers were tried for the rounds-th time.
func (c *Config) reconnectDelay(rounds int) time.Duration {
	doublings := min(max(rounds-1, 0), 3)
	return (c.ReconnectWait + rand.N(c.ReconnectJitter+1)) << doublings
}

// checkURL accepts what nats.go accepts, less WebSocket, which the loop does not speak.
func checkURL(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("nats url has an empty entry: write nats://host:4222, several separated by single commas")
	}
	u, err := parseURL(s)
	if err != nil {
		// The parser's error repeats the URL, and with it the password.
		return fmt.Errorf("nats url %q cannot be parsed: want nats://[user:password@]host[:port]; write a comma in a password as %%2C, "+
			"for commas separate URLs", RedactURL(s))
	}
	switch {
	case u.Scheme != "nats" && u.Scheme != "tls":
		return fmt.Errorf("nats url %q: scheme %q is not supported: want nats:// or tls://", RedactURL(s), u.Scheme)
	case u.Hostname() == "":
		return fmt.Errorf("nats url %q names no host", RedactURL(s))
	}
	return nil
}

// parseURL parses s, which may lack its scheme.
func parseURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err == nil && !strings.HasPrefix(u.Host, "[") && strings.Count(u.Host, ":") > 1 {
		return nil, errors.New("upstream: more than one colon in the host")
	}
	return u, err
}

// RedactURL masks the password, or the token that stands in for the user name, for logs. Of what is no URL it shows nothing
// behind the first colon of the authority: that may be a part of a password, which its owner did not know to escape.
func RedactURL(s string) string {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		scheme, rest = "", s
	} else {
		scheme += "://"
	}
	if _, err := parseURL(s); err != nil {
		user, _, found := strings.Cut(rest, ":")
		if at := strings.LastIndexByte(user, '@'); at >= 0 {
			user = "***" + user[at:]
		}
		if found {
			user += ":***"
		}
		return scheme + user
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return s
	}
	user, _, hasPassword := strings.Cut(rest[:at], ":")
	if !hasPassword {
		return scheme + "***" + rest[at:]
	}
	return scheme + user + ":***" + rest[at:]
}

// usesTLS reports whether c asks for TLS whatever the server says.
func (c *Config) usesTLS() bool {
	if c.CAFile != "" || c.CertFile != "" || c.TLSFirst {
		return true
	}
	for _, s := range c.URLs {
		if strings.HasPrefix(s, "tls://") {
			return true
		}
	}
	return false
}
