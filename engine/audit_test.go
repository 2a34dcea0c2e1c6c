package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
)

// auditConfig is a configuration with an audit log in a folder of its own.
func auditConfig(t testing.TB, url string) Config {
	cfg := testConfig(t, url)
	cfg.Audit.Path = filepath.Join(shortTempDir(t), "audit")
	cfg.Audit.Sync = audit.SyncNone
	return cfg
}

// auditEntry is what the log says of a request, in the fewest words.
type auditEntry struct {
	request audit.Request
	outcome *audit.Outcome
}

func (e *auditEntry) String() string {
	if e.outcome == nil {
		return fmt.Sprintf("%v %s unknown", codec.Type(e.request.Type), e.request.Subject)
	}
	name := codec.ErrorCode(e.outcome.Code).Name()
	if e.outcome.Code == audit.CodeAbandoned {
		name = "ABANDONED"
	}
	return fmt.Sprintf("%v %s %s", codec.Type(e.request.Type), e.request.Subject, name)
}

// readAudit returns what a log says, in the order in which requests came, and how many are missing. The log is verified.
func readAudit(t testing.TB, path string) (entries []auditEntry, lost uint64) {
	t.Helper()
	reports, err := audit.Verify(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if len(r.Problems) > 0 {
			t.Errorf("%s: %q", r.Name, r.Problems)
		}
	}
	err = audit.Read(t.Context(), path, false, &audit.Visitor{
		InOrder: true,
		Request: func(q *audit.Request, o *audit.Outcome) error {
			e := auditEntry{request: *q, outcome: o}
			e.request.Subject, e.request.Headers, e.request.Payload = slices.Clone(q.Subject), slices.Clone(q.Headers), slices.Clone(q.Payload)
			entries = append(entries, e)
			return nil
		},
		Gap:     func(g audit.Gap) error { lost += g.Requests; return nil },
		Problem: func(segment string, err error) { t.Errorf("%s: %v", segment, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries, lost
}

// Goal: the log has every request once, of each kind and version, with who sent it and what came of it.
func TestAuditOfEachKindOfRequest(t *testing.T) {
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	answerWith(t, nc, "app.echo", echo)
	asked := make(chan *nats.Msg, 1)
	answerWith(t, nc, "app.silent", func(m *nats.Msg) { asked <- m })
	cfg := auditConfig(t, s.ClientURL())
	cfg.Audit.PayloadBytes = 20
	g := runGateway(t, cfg)
	waitReady(t, g)
	p := dial(t, g)
	began := time.Now()

	p.send(v1(codec.TypeTaskSubmit, "hello"))
	p.expectOK(1, 0, "hello")
	withHeaders := v2(codec.TypeRequest, 7, "app.echo", "a payload that is longer than is recorded")
	withHeaders.Headers = []byte("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n")
	p.send(withHeaders)
	p.expectOK(2, 7, "a payload that is longer than is recorded")
	p.send(v2(codec.TypeRequest, 8, "app.nobody", "x"))
	p.expectError(2, 8, codec.CodeNoResponders, true)
	late := v2(codec.TypeRequest, 9, "app.silent", "x")
	late.TimeoutMs = 10
	p.send(late)
	p.expectError(2, 9, codec.CodeTimeout, true)
	<-asked
	p.send(v2(codec.TypeRequest, 10, "not..valid", "x"))
	p.expectError(2, 10, codec.CodeInvalidPayload, false)
	p.send(v2(codec.TypePublish, 11, "app.event", "x"))
	p.expectOK(2, 11, "")
	quiet := v2(codec.TypePublish, 12, "app.quiet", "x")
	quiet.Flags = codec.FlagNoReply
	refused := v2(codec.TypePublish, 13, "not..valid", "x")
	refused.Flags = codec.FlagNoReply
	p.send(quiet, refused, v1(codec.TypePing, ""))
	p.receive()
	p.send(v2(codec.TypeRequest, 14, "app.silent", "x"))
	<-asked
	_ = p.Close()
	eventually(t, "the client is gone", func() bool { return g.Stats().Connections == 0 })
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}

	entries, lost := readAudit(t, cfg.Audit.Path)
	var got []string
	for i := range entries {
		got = append(got, entries[i].String())
	}
	want := []string{
		"TASK_SUBMIT " + DefaultSubject + " OK", "REQUEST app.echo OK", "REQUEST app.nobody NO_RESPONDERS", "REQUEST app.silent TIMEOUT",
		"REQUEST not..valid INVALID_PAYLOAD", "PUBLISH app.event OK", "PUBLISH app.quiet OK", "PUBLISH not..valid INVALID_PAYLOAD",
		"PING  OK", "REQUEST app.silent ABANDONED",
	}
	if !slices.Equal(got, want) || lost != 0 {
		t.Fatalf("%d are missing, and there are:\n%s\nwant:\n%s", lost, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range entries {
		q := &entries[i].request
		if q.UID != uint32(os.Getuid()) || q.GID != uint32(os.Getgid()) || q.PID != int32(os.Getpid()) || q.Client == 0 ||
			q.Time < began.UnixNano() || q.Time > time.Now().UnixNano() {
			t.Errorf("%s: %+v", &entries[i], *q)
		}
	}
	traced := &entries[1]
	if q := &traced.request; fmt.Sprintf("%x", q.TraceID) != "4bf92f3577b34da6a3ce929d0e0e4736" || fmt.Sprintf("%x", q.SpanID) != "00f067aa0ba902b7" || q.CorrelationID != 7 || q.Version != 2 ||
		q.HeaderBytes != 70 || q.PayloadBytes != 41 || len(q.Headers) != 20 || len(q.Payload) != 0 || traced.outcome.AnswerBytes < 41 || traced.outcome.Duration <= 0 {
		t.Errorf("%+v %+v", *q, *traced.outcome)
	}
	if d := time.Duration(entries[3].outcome.Duration); d < 10*time.Millisecond {
		t.Errorf("a timeout of 10ms took %v", d)
	}
	if string(entries[0].request.Payload) != "hello" || entries[0].request.Flags&audit.FlagRouted == 0 || entries[6].request.Flags&audit.FlagNoReply == 0 {
		t.Errorf("%+v, %+v", entries[0], entries[6])
	}
	if got := g.Stats().Audit; got.Records != uint64(len(entries)+6) || got.Bytes == 0 || got.Lost != 0 {
		t.Errorf("%+v", got)
	}
}

// fullAudit starts a gateway whose audit log is on a disk that is full, or skips the test. more gives the disk room.
func fullAudit(t *testing.T, policy audit.OnFull, change func(*Config)) (g *Gateway, cfg Config, more func()) {
	t.Helper()
	s := runNATS(t, nil)
	nc := responder(t, s.ClientURL())
	answerWith(t, nc, DefaultSubject, echo)
	cfg = auditConfig(t, s.ClientURL())
	dir := filepath.Dir(cfg.Audit.Path)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cfg.Audit.OnFull, cfg.Audit.RingBytes = policy, 256<<10
	change(&cfg)
	g = runGateway(t, cfg)
	waitReady(t, g)
	return g, cfg, func() {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
	}
}

// fillAudit sends requests until check says that it is enough.
func fillAudit(t *testing.T, p *peer, check func() bool) (sent int) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !check(); sent++ {
		if time.Now().After(deadline) {
			t.Fatal("the audit log does not fill up")
		}
		p.send(v1(codec.TypeTaskSubmit, "x"))
		p.expectOK(1, 0, "x")
	}
	return sent
}

// Goal: with drop, a full disk hurts nobody: what is not recorded is counted, and the log says so where it is missing.
func TestAuditThatDrops(t *testing.T) {
	g, cfg, more := fullAudit(t, audit.Drop, func(*Config) {})
	p := dial(t, g)
	sent := fillAudit(t, p, func() bool { return g.Stats().Audit.Lost > 100 })
	more()
	eventually(t, "the gap is written", func() bool { return g.Stats().Audit.Gaps > 0 && g.Stats().Audit.Lag == 0 })
	p.send(v1(codec.TypeTaskSubmit, "x"))
	p.expectOK(1, 0, "x")
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, lost := readAudit(t, cfg.Audit.Path)
	if len(entries)+int(lost) != sent+1 || lost < 100 || lost != g.Stats().Audit.Lost {
		t.Errorf("%d requests, %d in the log, %d missing by its gaps, %+v", sent+1, len(entries), lost, g.Stats().Audit)
	}
}

// Goal: with fail, no request is served that cannot be recorded: it is refused, and its client told why, until the disk has room.
func TestAuditThatFails(t *testing.T) {
	g, cfg, more := fullAudit(t, audit.Fail, func(*Config) {})
	p := dial(t, g)
	var refused codec.ErrorInfo
	served := 0
	for refused.Message == "" {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		f := p.receive()
		if f.Type == codec.TypeResponseOK {
			served++
			continue
		}
		info, err := codec.ParseError(f.Payload)
		if err != nil {
			t.Fatal(err)
		}
		refused = info
	}
	if refused.Code != int(codec.CodeUnavailable) || refused.Sent || !strings.Contains(refused.Message, "audit log") {
		t.Errorf("%+v", refused)
	}
	p.send(v1(codec.TypePing, ""))
	if f := p.receive(); f.Type != codec.TypePong {
		t.Errorf("a ping is answered %v", f.Type)
	}
	more()
	eventually(t, "requests are served again", func() bool {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		return p.receive().Type == codec.TypeResponseOK
	})
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	entries, lost := readAudit(t, cfg.Audit.Path)
	recorded := 0
	for i := range entries {
		if strings.HasSuffix(entries[i].String(), " OK") && entries[i].request.Type == byte(codec.TypeTaskSubmit) {
			recorded++
		}
	}
	if recorded != served+1 {
		t.Errorf("%d were served, %d of them are in the log, %d are missing", served+1, recorded, lost)
	}
}

// Goal: with block, clients wait while the disk is full, and are served when it has room, none refused and none missing.
func TestAuditThatBlocks(t *testing.T) {
	g, cfg, more := fullAudit(t, audit.Block, func(c *Config) { c.PauseMax = time.Hour })
	p := dial(t, g)
	const n = 3000
	p.sendAside(repeat(n, func(int) codec.Frame { return v1(codec.TypeTaskSubmit, "x") })...)
	answered := make(chan error, 1)
	go func() {
		for range n {
			if f, err := p.tryReceive(); err != nil || f.Type != codec.TypeResponseOK {
				answered <- fmt.Errorf("%v %s, %w", f.Type, f.Payload, err)
				return
			}
		}
		answered <- nil
	}()
	eventually(t, "the client is paused", func() bool { return pauses(g, pausedAudit) > 0 && g.Stats().Audit.Lag > 0 })
	other := dial(t, g)
	other.send(v1(codec.TypePing, ""))
	other.receive()
	more()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, lost := readAudit(t, cfg.Audit.Path); len(entries) != n+1 || lost != 0 {
		t.Errorf("%d in the log, %d missing", len(entries), lost)
	}
}

// Goal: who was blocked for longer than pause_max is refused, and told why.
func TestAuditThatBlocksTooLong(t *testing.T) {
	g, _, more := fullAudit(t, audit.Block, func(c *Config) { c.PauseMax = 50 * time.Millisecond })
	p := dial(t, g)
	var info codec.ErrorInfo
	for info.Message == "" {
		p.send(v1(codec.TypeTaskSubmit, "x"))
		if f := p.receive(); f.Type != codec.TypeResponseOK {
			info, _ = codec.ParseError(f.Payload)
		}
	}
	if info.Code != int(codec.CodeUnavailable) || info.Sent || !strings.Contains(info.Message, "audit log") || pauses(g, pausedAudit) == 0 {
		t.Errorf("%+v, pauses %v", info, g.Stats().Pauses)
	}
	more()
}

// Goal: a log that cannot be opened keeps the gateway from starting.
func TestAuditThatCannotBeOpened(t *testing.T) {
	cfg := testConfig(t, "nats://127.0.0.1:1")
	cfg.Audit.Path = filepath.Join(shortTempDir(t), "missing", "audit")
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "audit log") {
		t.Errorf("Start: %v", err)
	}
}

// BenchmarkAudit measures what the audit log adds to a request in its loop: without one, with one, and with one that records
// payloads of 512 bytes.
func BenchmarkAudit(b *testing.B) {
	for _, c := range []struct {
		name    string
		on      bool
		payload int
	}{{"off", false, 0}, {"on", true, 0}, {"payload", true, 512}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			cfg := auditConfig(b, "nats://127.0.0.1:1")
			if !c.on {
				cfg.Audit.Path = ""
			}
			cfg.Audit.PayloadBytes, cfg.Audit.Keep = c.payload, 1
			g, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			if err := g.openAudit(); err != nil {
				b.Fatal(err)
			}
			l := g.loops[0]
			s := &session{loop: l, id: 1, rule: l.policy.peers.others}
			f := v2(codec.TypeRequest, 1, "app.echo", strings.Repeat("x", 512))
			n := 0
			for b.Loop() {
				h, r := l.slots.Acquire()
				r.session, r.startedAt = s, l.now
				if l.audit != nil {
					l.auditTaken(h, r, s, &f)
				}
				if r.watched&watchedByAudit != 0 {
					l.auditOver(h, r, 0, 100)
				}
				l.slots.Release(h)
				if n++; n%32 == 0 && l.audit != nil {
					l.audit.Flush()
				}
				if n%4096 == 0 && c.on { // the disk is not what is measured
					b.StopTimer()
					eventually(b, "all is written", func() bool { return l.audit.Idle() })
					b.StartTimer()
				}
			}
			if !c.on {
				return
			}
			if lost := g.auditLog.Stats().Lost; lost != 0 {
				b.Errorf("%d requests are missing", lost)
			}
			if err := g.closeAudit(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
