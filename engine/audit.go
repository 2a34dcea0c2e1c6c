package engine

import (
	"errors"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/pool"
	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/upstream"
)

// What goes into the audit log: every frame that is answered, and publishes that want no answer. A request in flight has two
// records, one when it is taken and one when it is over, so that nothing of it is kept here meanwhile. Who is refused
// as a whole connection has sent no request, and is not in it.

// auditFull is what clients are told whose requests cannot be recorded.
const auditFull = "the audit log takes no more records, and requests are not served without one"

// auditCodes maps an outcome to its code in the log.
var auditCodes = func() (table [CodeCount]byte) {
	for i, code := range codec.ErrorCodes() {
		table[i+1] = byte(code)
	}
	return table
}()

// openAudit opens the log, if there is to be one. REQUIRES: the loops do not run yet.
func (g *Gateway) openAudit() (err error) {
	if g.cfg.Audit.Path == "" {
		return nil
	}
	if g.auditLog, err = audit.Open(g.cfg.Audit, len(g.loops), g.clock.Now, g.log); err != nil {
		return err
	}
	for i, l := range g.loops {
		l.audit = g.auditLog.Ring(i)
	}
	return nil
}

// closeAudit writes what the log still has to take. REQUIRES: the loops are stopped.
func (g *Gateway) closeAudit() error {
	if g.auditLog == nil {
		return nil
	}
	return g.auditLog.Close()
}

// auditTakes reports whether f may be served: it can be recorded, or need not be. REQUIRES: there is a log.
func (l *loop) auditTakes(f *codec.Frame) bool {
	return l.audit.Takes(len(l.subjectOf(f)), len(f.Headers)+len(f.Payload))
}

// auditServes reports whether f, which is not to wait, may be served. A log that begins to fail after auditMustWait has looked, which it may at any
// time, does not count: else f would be refused without having waited. REQUIRES: there is a log.
func (l *loop) auditServes(f *codec.Frame) bool {
	if l.audit.Waits() && l.gates&pausedAudit == 0 {
		return l.audit.HasRoom(len(l.subjectOf(f)), len(f.Headers)+len(f.Payload))
	}
	return l.auditTakes(f)
}

// auditMustWait reports whether f is to wait for room in the log. REQUIRES: there is one.
func (l *loop) auditMustWait(f *codec.Frame) bool {
	if l.gates&pausedAudit == 0 && l.audit.Waits() && !l.auditTakes(f) {
		l.gates |= pausedAudit
	}
	return l.gates&pausedAudit != 0
}

// auditTaken records a request that was taken into flight. REQUIRES: there is a log.
func (l *loop) auditTaken(h pool.Handle, r *request, s *session, f *codec.Frame) {
	if l.audit.Begin(l.auditRequest(uint64(h), s, f)) {
		r.watched |= watchedByAudit
	}
}

// auditOver records the outcome of a request whose beginning is recorded. REQUIRES: there is a log.
func (l *loop) auditOver(h pool.Handle, r *request, code byte, answerBytes int) {
	r.watched &^= watchedByAudit
	l.audit.End(uint64(h), audit.Outcome{Code: code, AnswerBytes: uint32(answerBytes), Duration: l.now - r.readAt})
}

// auditAnswered records a frame that was answered at once, or was not to be answered. REQUIRES: there is a log.
func (l *loop) auditAnswered(s *session, f *codec.Frame, outcome uint8, answerBytes int) {
	l.audit.Answered(l.auditRequest(0, s, f), audit.Outcome{Code: auditCodes[outcome], AnswerBytes: uint32(answerBytes), Duration: l.now - l.readAt})
}

// auditRequest returns what the log says of f, which it borrows. It is valid until the next call.
func (l *loop) auditRequest(id uint64, s *session, f *codec.Frame) *audit.Request {
	q := &l.auditScratch
	*q = audit.Request{
		Time: l.gateway.clock.Wall(l.readAt), ID: id, Client: s.id, CorrelationID: f.CorrelationID,
		UID: s.peer.uid, GID: s.peer.gid, PID: s.peer.pid, TimeoutMs: f.TimeoutMs, Version: f.Version, Type: byte(f.Type),
		Subject: l.subjectOf(f), Headers: f.Headers, Payload: f.Payload,
	}
	if f.Flags&codec.FlagNoReply != 0 {
		q.Flags |= audit.FlagNoReply
	}
	if len(f.Subject) == 0 {
		q.Flags |= audit.FlagRouted
	}
	if l.traced != nil {
		q.TraceID, q.SpanID = l.traced.Trace, l.traced.Span
	} else if c, ok := trace.ParseHeaders(f.Headers); ok {
		q.TraceID, q.SpanID = c.Trace, c.Span
	}
	return q
}

// subjectOf returns the subject that f goes to: its own, or that of its route.
func (l *loop) subjectOf(f *codec.Frame) []byte {
	if label := labels[f.Type]; len(f.Subject) == 0 && forNATS[f.Type] {
		return l.policy.routes[label].subject
	}
	return f.Subject
}

// outcomeOfPublish is the outcome of a publish without an answer that the link took, or did not take because of err.
func outcomeOfPublish(err error) uint8 {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, upstream.ErrNoHeaders):
		return outcomeOf(codec.CodeInvalidPayload)
	case errors.Is(err, upstream.ErrTooLarge):
		return outcomeOf(codec.CodeFrameTooLarge)
	case errors.Is(err, upstream.ErrFull):
		return outcomeOf(codec.CodeOverloaded)
	}
	return outcomeOf(codec.CodeUnavailable)
}
