package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/codec"
)

// auditReplayCommand sends recorded requests again.
type auditReplayCommand struct {
	auditFile
	auditFilters
	To       string  `required:"" placeholder:"SOCKET" env:"IPC_AUDIT_REPLAY_TO" help:"Socket of the gateway to send them to."`
	Rate     float64 `placeholder:"R" env:"IPC_AUDIT_REPLAY_RATE" help:"Send so many a second."`
	Speed    float64 `placeholder:"X" env:"IPC_AUDIT_REPLAY_SPEED" help:"Send at the times that are recorded, X times as fast."`
	Inflight int     `default:"256" placeholder:"N" env:"IPC_AUDIT_REPLAY_INFLIGHT" help:"Requests that may wait for their answers at the same time [${default}]."`
}

// Help is what "audit replay --help" says before the flags.
func (*auditReplayCommand) Help() string {
	return `Sends the requests in the log again in the order in which they came, as fast as they are answered unless --rate or --speed says otherwise, and compares the code of each outcome with the recorded one. Requests whose headers or payload are not recorded whole cannot be sent: let serve record them with --audit-payload. Those without an outcome, or whose client went away, and publishes that want no answer are sent and not compared.

It executes the requests again: think of what that does.

Examples:

    ipc-gateway audit replay /var/log/ipc-gateway/audit --to /run/staging/gateway.sock --since 10m --speed 2
    ipc-gateway audit replay audit.00000007.zst --to /tmp/test.sock --subject 'orders.*' --rate 100

Exit codes: 0 all outcomes are as recorded, 1 some are not, or it could not be tried, 2 called wrongly.`
}

// Bounds of --rate and --speed: with others the times at which requests are due are none that a clock can have.
const (
	paceMin = 1e-6
	paceMax = 1e9
)

// Run replays the log and says how it went.
func (c *auditReplayCommand) Run(a *app) error {
	filter, err := c.compile(time.Now())
	if err != nil {
		return err
	}
	within := func(x float64) bool { return x == 0 || x >= paceMin && x <= paceMax } // not so NaN
	switch {
	case !within(c.Rate) || !within(c.Speed) || c.Rate > 0 && c.Speed > 0:
		return usageErrorf("--rate %v, --speed %v: want one of them, from %v to %v", c.Rate, c.Speed, paceMin, float64(paceMax))
	case c.Inflight < 1:
		return usageErrorf("--inflight %d: want at least 1", c.Inflight)
	}
	dialing, cancelDial := context.WithTimeout(context.Background(), dialTimeout)
	defer cancelDial()
	conn, err := client.Dial(dialing, c.To)
	if err != nil {
		return err
	}
	ctx, cancel := a.untilSignal(true)
	defer cancel()
	r := newReplay(ctx, a, conn, c)
	var failed error
	err = audit.Read(ctx, c.File, false, &audit.Visitor{
		InOrder: true,
		Request: func(q *audit.Request, o *audit.Outcome) error {
			if !filter.takes(q, o) {
				return nil
			}
			return r.request(q, o)
		},
		Gap: func(g audit.Gap) error {
			if filter.takesTime(g.Time) {
				r.missing += g.Requests
			}
			return nil
		},
		Problem: a.auditProblem(&failed),
	})
	if err == nil {
		err = r.finish()
	}
	_ = conn.Close()
	r.report()
	if err == nil && (failed != nil || r.different > 0) {
		err = &exitError{code: exitFailure}
	}
	return err
}

// replay is one that goes on. One goroutine sends, another one receives.
type replay struct {
	ctx      context.Context
	app      *app
	conn     *client.Conn
	rate     float64
	speed    float64
	window   chan struct{} // holds an entry for each request that is not answered
	received chan error    // what ended the receiver
	ended    chan struct{} // closed when it has ended

	started     time.Time
	firstTime   int64 // of the log
	sent        uint64
	unrecorded  uint64 // not sent: what they were is not recorded whole
	notForNATS  uint64 // not sent: the gateway answers them by itself
	missing     uint64
	notCompared uint64

	// mu guards what follows.
	mu        sync.Mutex
	expected  map[uint64]expectation // by correlation id
	inOrder   []expectation          // of version 1
	same      uint64
	different uint64
}

// expectation is what an answer is compared with.
type expectation struct {
	what    string
	outcome string // as recorded
	compare bool
}

func newReplay(ctx context.Context, a *app, conn *client.Conn, c *auditReplayCommand) *replay {
	r := &replay{
		ctx: ctx, app: a, conn: conn, rate: c.Rate, speed: c.Speed, window: make(chan struct{}, c.Inflight),
		received: make(chan error, 1), ended: make(chan struct{}), expected: map[uint64]expectation{},
	}
	go r.receive()
	return r
}

var errInterrupted = errors.New("interrupted")

// request sends a request when its time has come.
func (r *replay) request(q *audit.Request, o *audit.Outcome) error {
	frame, ok := r.frame(q)
	if !ok {
		return nil
	}
	if err := r.await(q.Time); err != nil {
		return err
	}
	r.sent++
	if frame.Version == codec.Version2 {
		frame.CorrelationID = r.sent
	}
	wantsAnswer := frame.Flags&codec.FlagNoReply == 0
	compare := wantsAnswer && o != nil && o.Code != audit.CodeAbandoned
	if !compare {
		r.notCompared++
	}
	if wantsAnswer {
		if err := r.acquire(); err != nil {
			return err
		}
		r.expect(frame, expectation{fmt.Sprintf("%s %v %s", timeText(q.Time), frame.Type, q.Subject), outcomeName(o), compare})
	}
	return r.conn.Send(frame)
}

// frame returns the frame that was recorded, if it can be sent.
func (r *replay) frame(q *audit.Request) (f *codec.Frame, ok bool) {
	f = &codec.Frame{
		Version: q.Version, Type: codec.Type(q.Type), TimeoutMs: q.TimeoutMs, Subject: q.Subject, Headers: q.Headers, Payload: q.Payload,
	}
	switch f.Type {
	case codec.TypeTaskSubmit, codec.TypeTaskQuery, codec.TypeTaskCancel, codec.TypePublish, codec.TypeRequest:
	default:
		r.notForNATS++
		return nil, false
	}
	whole := len(q.Headers) == int(q.HeaderBytes) && len(q.Payload) == int(q.PayloadBytes)
	if !whole || q.Version != codec.Version1 && q.Version != codec.Version2 {
		r.unrecorded++
		return nil, false
	}
	if q.Flags&audit.FlagNoReply != 0 {
		f.Flags = codec.FlagNoReply
	}
	if q.Flags&audit.FlagRouted != 0 {
		f.Subject = nil
	}
	return f, true
}

// await waits until a request of this time is to be sent.
func (r *replay) await(recorded int64) error {
	if r.started.IsZero() {
		r.started, r.firstTime = time.Now(), recorded
	}
	var due time.Time
	switch {
	case r.rate > 0:
		due = r.started.Add(time.Duration(float64(r.sent) / r.rate * float64(time.Second)))
	case r.speed > 0:
		due = r.started.Add(time.Duration(float64(recorded-r.firstTime) / r.speed))
	}
	select {
	case <-r.ctx.Done():
		return errInterrupted
	case <-time.After(max(time.Until(due), 0)):
		return nil
	}
}

func (r *replay) expect(f *codec.Frame, e expectation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.Version == codec.Version1 {
		r.inOrder = append(r.inOrder, e)
		return
	}
	r.expected[f.CorrelationID] = e
}

// receive takes answers until the connection ends.
func (r *replay) receive() {
	defer close(r.ended)
	for {
		answer, err := r.conn.Receive()
		if err == nil {
			err = r.answered(&answer)
		}
		if err != nil {
			r.received <- err
			return
		}
		<-r.window
	}
}

// answered compares an answer with what is recorded.
func (r *replay) answered(answer *codec.Frame) error {
	outcome := codec.CodeOK.Name()
	if answer.Type == codec.TypeResponseError {
		info, err := codec.ParseError(answer.Payload)
		if err != nil {
			return fmt.Errorf("an error answer that cannot be read: %q", answer.Payload)
		}
		outcome = info.Name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, found := r.expected[answer.CorrelationID]
	switch {
	case answer.Version == codec.Version1 && len(r.inOrder) > 0:
		e, r.inOrder = r.inOrder[0], r.inOrder[1:]
	case answer.Version == codec.Version2 && found:
		delete(r.expected, answer.CorrelationID)
	default:
		return fmt.Errorf("a %s frame came that answers no request: %.200s", answer.Type, answer.Payload)
	}
	switch {
	case !e.compare:
	case e.outcome == outcome:
		r.same++
	default:
		r.different++
		fmt.Fprintf(r.app.stdout, "%s: was %s, now %s\n", e.what, e.outcome, outcome)
	}
	return nil
}

// finish waits for the last answers, and closes the connection.
func (r *replay) finish() error {
	if r.sent > 0 {
		if err := r.settle(); err != nil {
			return err
		}
	}
	_ = r.conn.Close()
	<-r.ended
	return nil
}

// settle returns when all that was sent has arrived, and is answered.
func (r *replay) settle() error {
	if err := r.acquire(); err != nil {
		return err
	}
	// The gateway reads in order: when it answers this it has read the publishes that want no answer.
	ping := codec.Frame{Version: codec.Version2, Type: codec.TypePing, CorrelationID: r.sent + 1}
	r.expect(&ping, expectation{})
	if err := r.conn.Send(&ping); err != nil {
		return err
	}
	for range cap(r.window) {
		if err := r.acquire(); err != nil {
			return err
		}
	}
	return nil
}

// acquire waits until one more request may wait for its answer. The receiver gives that back.
func (r *replay) acquire() error {
	select {
	case r.window <- struct{}{}:
		return nil
	case <-r.ctx.Done():
		return errInterrupted
	case err := <-r.received:
		r.received <- err // for finish
		return err
	}
}

// report says how it went.
func (r *replay) report() {
	r.mu.Lock()
	defer r.mu.Unlock()
	took := time.Duration(0)
	if !r.started.IsZero() {
		took = time.Since(r.started)
	}
	fmt.Fprintf(r.app.stdout, "sent %d in %v: %d outcomes as recorded, %d different, %d not compared\n", r.sent, rounded(took), r.same, r.different, r.notCompared)
	if r.unrecorded+r.notForNATS+r.missing > 0 {
		fmt.Fprintf(r.app.stdout, "not sent: %d that are not recorded whole, %d that the gateway answers by itself, %d that are missing in the log\n",
			r.unrecorded, r.notForNATS, r.missing)
	}
}
