package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
)

// auditCommand is what can be done with an audit log.
type auditCommand struct {
	Cat    auditCatCommand    `cmd:"" help:"Print the requests in an audit log, as JSON, one a line."`
	Verify auditVerifyCommand `cmd:"" help:"Check that an audit log is whole and was not changed."`
	Replay auditReplayCommand `cmd:"" help:"Send the requests in an audit log again, and compare the outcomes."`
}

// Help is what "audit --help" says before the commands.
func (*auditCommand) Help() string {
	return `Reads the log that serve writes with --audit FILE: give these commands the same FILE, or one of its segments. They need no gateway, and disturb none that is writing.`
}

// auditFile names the log.
type auditFile struct {
	File string `arg:"" help:"The log, as --audit names it, or one of its segments."`
}

// auditFilters choose requests.
type auditFilters struct {
	Since   string   `placeholder:"TIME" env:"IPC_AUDIT_SINCE" help:"Requests from then on: 2026-01-31T15:04:05Z, or how long ago, as 10m."`
	Until   string   `placeholder:"TIME" env:"IPC_AUDIT_UNTIL" help:"Requests before then."`
	UID     []uint32 `name:"uid" placeholder:"N" env:"IPC_AUDIT_UID" help:"Requests of these users."`
	Subject []string `placeholder:"SUBJECT" env:"IPC_AUDIT_SUBJECT" help:"Requests to these subjects, which may have wildcards."`
	Outcome []string `placeholder:"NAME" env:"IPC_AUDIT_OUTCOME" help:"Requests that ended so: OK, the name of an error, ABANDONED (the client went away) or UNKNOWN (no outcome is recorded)."`
}

// Names of outcomes that are none of the protocol.
const (
	outcomeAbandoned = "ABANDONED"
	outcomeUnknown   = "UNKNOWN"
)

// outcomeName returns the name of an outcome, which is nil if it is not known.
func outcomeName(o *audit.Outcome) string {
	switch {
	case o == nil:
		return outcomeUnknown
	case o.Code == audit.CodeAbandoned:
		return outcomeAbandoned
	}
	return codec.ErrorCode(o.Code).Name()
}

// auditFilter is auditFilters in the form that they are used in.
type auditFilter struct {
	since, until int64 // nanoseconds since 1970; 0: no bound
	uids         []uint32
	subjects     []string
	outcomes     []string
}

func (f *auditFilters) compile(now time.Time) (filter auditFilter, err error) {
	if filter.since, err = parseWhen("since", f.Since, now); err != nil {
		return filter, err
	}
	if filter.until, err = parseWhen("until", f.Until, now); err != nil {
		return filter, err
	}
	for _, subject := range f.Subject {
		if err := codec.ValidatePattern([]byte(subject)); err != nil {
			return filter, usageErrorf("--subject %q: %s", subject, strings.TrimPrefix(err.Error(), "codec: "))
		}
		filter.subjects = append(filter.subjects, subject)
	}
	known := []string{"OK", outcomeAbandoned, outcomeUnknown}
	for _, code := range codec.ErrorCodes() {
		known = append(known, code.Name())
	}
	for _, outcome := range f.Outcome {
		outcome = strings.ToUpper(outcome)
		if !slices.Contains(known, outcome) {
			return filter, usageErrorf("--outcome %s: want %s", outcome, strings.Join(known, ", "))
		}
		filter.outcomes = append(filter.outcomes, outcome)
	}
	filter.uids = f.UID
	return filter, nil
}

// parseWhen reads a time, or how long ago it was. Empty text is no time.
func parseWhen(flag, text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago).UnixNano(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t.UnixNano(), nil
		}
	}
	return 0, usageErrorf("--%s %q: want a time such as 2026-01-31T15:04:05Z or 2026-01-31, or how long ago, as 10m", flag, text)
}

func (f *auditFilter) takesTime(at int64) bool {
	return (f.since == 0 || at >= f.since) && (f.until == 0 || at < f.until)
}

func (f *auditFilter) takes(q *audit.Request, o *audit.Outcome) bool {
	matches := func(pattern string) bool { return subjectMatches(pattern, string(q.Subject)) }
	return f.takesTime(q.Time) &&
		(len(f.uids) == 0 || slices.Contains(f.uids, q.UID)) &&
		(len(f.outcomes) == 0 || slices.Contains(f.outcomes, outcomeName(o))) &&
		(len(f.subjects) == 0 || slices.ContainsFunc(f.subjects, matches))
}

// subjectMatches reports whether subject is one of those that a valid pattern stands for.
func subjectMatches(pattern, subject string) bool {
	for {
		want, restOfPattern, morePattern := strings.Cut(pattern, ".")
		if want == ">" {
			return subject != ""
		}
		have, restOfSubject, moreSubject := strings.Cut(subject, ".")
		if want != have && (want != "*" || have == "") || morePattern != moreSubject {
			return false
		}
		if !morePattern {
			return true
		}
		pattern, subject = restOfPattern, restOfSubject
	}
}

// auditCatCommand prints a log.
type auditCatCommand struct {
	auditFile
	auditFilters
	Follow bool `short:"f" env:"IPC_AUDIT_CAT_FOLLOW" help:"Go on with what is written to the log, until interrupted; wait for one that is not there yet."`
}

// Help is what "audit cat --help" says before the flags.
func (*auditCatCommand) Help() string {
	return `Prints an object for each request, in the order in which they were answered; those without an outcome come last. Where requests could not be recorded it prints {"time":...,"loop":...,"gap":N}.

Examples:

    ipc-gateway audit cat /var/log/ipc-gateway/audit --since 1h --outcome TIMEOUT,UNAVAILABLE
    ipc-gateway audit cat /var/log/ipc-gateway/audit --follow --subject 'orders.>' | jq -c '[.time,.uid,.outcome]'

Exit codes: 0 printed, 1 some of the log cannot be read (the rest is printed), 2 called wrongly.`
}

// auditLine is a request as it is printed.
type auditLine struct {
	Time          string  `json:"time"`
	Loop          uint16  `json:"loop"`
	Client        uint64  `json:"client"`
	UID           uint32  `json:"uid"`
	GID           uint32  `json:"gid"`
	PID           int32   `json:"pid"`
	Version       byte    `json:"version"`
	Type          string  `json:"type"`
	Subject       string  `json:"subject"`
	NoReply       bool    `json:"no_reply,omitempty"`
	CorrelationID uint64  `json:"correlation_id"`
	TraceID       string  `json:"trace_id,omitempty"`
	SpanID        string  `json:"span_id,omitempty"`
	TimeoutMs     uint32  `json:"timeout_ms,omitempty"`
	HeaderBytes   uint32  `json:"header_bytes"`
	PayloadBytes  uint32  `json:"payload_bytes"`
	AnswerBytes   uint32  `json:"answer_bytes"`
	Outcome       string  `json:"outcome"`
	Code          *byte   `json:"code,omitempty"`
	DurationNs    *int64  `json:"duration_ns,omitempty"`
	Headers       *string `json:"headers,omitempty"`
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
}

// timeText has all nine digits, so that lines can be sorted.
func timeText(ns int64) string {
	return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z")
}

func newAuditLine(q *audit.Request, o *audit.Outcome) *auditLine {
	line := &auditLine{
		Time: timeText(q.Time), Loop: q.Loop, Client: q.Client, UID: q.UID, GID: q.GID, PID: q.PID, Version: q.Version,
		Type: codec.Type(q.Type).String(), Subject: string(q.Subject), NoReply: q.Flags&audit.FlagNoReply != 0,
		CorrelationID: q.CorrelationID, TimeoutMs: q.TimeoutMs, HeaderBytes: q.HeaderBytes, PayloadBytes: q.PayloadBytes,
		Outcome: outcomeName(o),
	}
	if q.TraceID != [16]byte{} {
		line.TraceID, line.SpanID = hex.EncodeToString(q.TraceID[:]), hex.EncodeToString(q.SpanID[:])
	}
	if o != nil {
		line.AnswerBytes, line.DurationNs = o.AnswerBytes, &o.Duration
		if o.Code != audit.CodeAbandoned {
			line.Code = &o.Code
		}
	}
	if q.Flags&audit.FlagRecorded == 0 {
		return line
	}
	if len(q.Headers) > 0 {
		headers := string(q.Headers)
		line.Headers = &headers
	}
	if utf8.Valid(q.Payload) {
		payload := string(q.Payload)
		line.Payload = &payload
	} else {
		line.PayloadBase64 = q.Payload
	}
	return line
}

type gapLine struct {
	Time string `json:"time"`
	Loop uint16 `json:"loop"`
	Gap  uint64 `json:"gap"`
}

// Run prints the log.
func (c *auditCatCommand) Run(a *app) error {
	filter, err := c.compile(time.Now())
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	emit := func(line any) error {
		err := encoder.Encode(line)
		if c.Follow {
			err = errors.Join(err, out.Flush())
		}
		return err
	}
	var failed error
	ctx, cancel := a.untilSignal(c.Follow)
	defer cancel()
	err = audit.Read(ctx, c.File, c.Follow, &audit.Visitor{
		Request: func(q *audit.Request, o *audit.Outcome) error {
			if !filter.takes(q, o) {
				return nil
			}
			return emit(newAuditLine(q, o))
		},
		Gap: func(g audit.Gap) error {
			if !filter.takesTime(g.Time) {
				return nil
			}
			return emit(gapLine{timeText(g.Time), g.Loop, g.Requests})
		},
		Waiting: func(err error) {
			fmt.Fprintf(a.stderr, "ipc-gateway: the log is not there yet, it is waited for: %v\n", err)
		},
		Problem: a.auditProblem(&failed),
	})
	return errors.Join(err, out.Flush(), failed)
}

// auditProblem returns what tells of a segment that cannot be read to its end, and sets failed.
func (a *app) auditProblem(failed *error) func(segment string, err error) {
	return func(segment string, err error) {
		fmt.Fprintf(a.stderr, "ipc-gateway: %s: %v; see ipc-gateway audit verify\n", segment, err)
		*failed = &exitError{code: exitFailure}
	}
}

// untilSignal returns a context that SIGINT or SIGTERM ends, if they are to be waited for.
func (a *app) untilSignal(wanted bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	if wanted {
		signals := a.signals()
		go func() {
			select {
			case <-signals:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	return ctx, cancel
}

// auditVerifyCommand checks a log.
type auditVerifyCommand struct {
	auditFile
	Anchor []string `placeholder:"N:HASH" env:"IPC_AUDIT_VERIFY_ANCHOR" help:"Also check that segment N has this hash, as an earlier call printed it; may be repeated."`
}

// Help is what "audit verify --help" says before the flags.
func (*auditVerifyCommand) Help() string {
	return `Reads every record of every segment, and checks their checksums, the hash of each closed segment, and that each one continues those before it. So it finds what was changed, cut off, swapped or taken out; gateways that open the log later do not make that undone. A log whose gateway was killed, and that a later one has closed, is "recovered" and not "whole": whether the kill is all that cut its end does not show. Nor does it if somebody writes all of the log anew, or takes out the newest segments with their mark (FILE.NNNNNNNN.end). Who notes the last hash that this prints somewhere else, and gives it back as --anchor, finds those too.

Examples:

    ipc-gateway audit verify /var/log/ipc-gateway/audit
    ipc-gateway audit verify /var/log/ipc-gateway/audit --anchor 17:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Exit codes: 0 the log is whole or recovered, 1 it is not, or cannot be read, 2 called wrongly.`
}

// Run checks the log and prints a line for each segment.
func (c *auditVerifyCommand) Run(a *app) error {
	anchors, err := c.anchors()
	if err != nil {
		return err
	}
	reports, err := audit.Verify(c.File, anchors)
	if err != nil {
		return err
	}
	var problems int
	var requests, lost uint64
	var recovered int
	for i := range reports {
		r := &reports[i]
		requests, lost, problems = requests+r.Requests, lost+r.Lost, problems+len(r.Problems)
		if r.Recovered {
			recovered++
		}
		fmt.Fprintf(a.stdout, "%s: %s\n", r.Name, segmentState(r))
		for _, problem := range r.Problems {
			fmt.Fprintf(a.stdout, "    PROBLEM: %s\n", problem)
		}
	}
	total := fmt.Sprintf("%d segments, %d requests, %d more are missing by the log's own gaps", len(reports), requests, lost)
	switch {
	case problems > 0:
		fmt.Fprintf(a.stdout, "NOT WHOLE: %d problems in %s\n", problems, total)
		return &exitError{code: exitFailure}
	case recovered > 0:
		fmt.Fprintf(a.stdout, "recovered: %s; %d segments lost their end, as by a kill\n", total, recovered)
	default:
		fmt.Fprintf(a.stdout, "whole: %s\n", total)
	}
	return nil
}

func segmentState(r *audit.SegmentReport) string {
	text := fmt.Sprintf("%d requests since %s", r.Requests, r.Created.UTC().Format(time.RFC3339))
	switch {
	case r.Hash == "" && r.Live:
		return text + ", being written"
	case r.Hash == "":
		return text + ", not closed"
	}
	text += fmt.Sprintf(", closed %s, hash %d:%s", r.Closed.UTC().Format(time.RFC3339), r.Number, r.Hash)
	if r.Recovered {
		text += fmt.Sprintf(", its gateway was killed: a later one closed it and cut off %d bytes", r.Cut)
	}
	return text
}

func (c *auditVerifyCommand) anchors() (map[uint64]string, error) {
	anchors := map[uint64]string{}
	for _, text := range c.Anchor {
		number, hash, _ := strings.Cut(text, ":")
		n, err := strconv.ParseUint(number, 10, 64)
		if err == nil {
			hash, err = audit.ParseHash(hash)
		}
		if err != nil {
			return nil, usageErrorf("--anchor %q: want the number of a segment and its hash, as audit verify prints them", text)
		}
		anchors[n] = hash
	}
	return anchors, nil
}
