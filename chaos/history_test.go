package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// kind is what a client asks for.
type kind uint8

const (
	submitV1  kind = iota // TASK_SUBMIT, version 1
	pingV1                // PING, version 1
	requestV2             // REQUEST, version 2
	publishV2             // PUBLISH, version 2
	durableV2             // PUBLISH, version 2, to JetStream
	pingV2                // PING, version 2
	kinds
)

func (k kind) String() string {
	return [kinds]string{"v1 submit", "v1 ping", "v2 request", "v2 publish", "v2 jetstream publish", "v2 ping"}[k]
}

// outcome is how a request ended.
type outcome uint8

const (
	waits   outcome = iota // not answered yet
	fine                   // RESPONSE_OK or PONG
	failed                 // an error with sent:true
	refused                // an error that says that no stream has stored it
	unsent                 // an error with sent:false
	unknown                // its connection ended before the answer
	torn                   // its frame was never completed
	outcomes
)

func (o outcome) String() string {
	return [outcomes]string{"waiting", "ok", "failed, sent:true", "not stored", "failed, sent:false", "unknown", "never complete"}[o]
}

// record is the history of a request.
type record struct {
	id           uint64 // unique in the run; the beginning of its payload
	kind         kind
	outcome      outcome
	connection   uint64
	asked, ended time.Duration // since the start of the run
	answer       string        // name and message of an error
}

func (r *record) String() string {
	return fmt.Sprintf("request %016x (%v, connection %d): asked at %v, %v at %v %s", r.id, r.kind, r.connection, r.asked, r.outcome, r.ended, r.answer)
}

// history is what happened to all requests of a round. Everybody may use it at once.
type history struct {
	began time.Time

	mu       sync.Mutex
	nextID   uint64
	records  map[uint64]*record
	executed map[uint64][]time.Duration // when the responder saw an id
	problems []string
	tally    tally
}

// tally counts what happened in all rounds.
type tally struct {
	asked    [kinds]int
	ended    [outcomes]int
	errors   map[string]int // by name and sent
	executed int
	stored   int
}

func newHistory() *history {
	h := &history{began: time.Now(), tally: tally{errors: map[string]int{}}}
	h.forget()
	return h
}

// forget ends a round.
func (h *history) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records, h.executed = map[uint64]*record{}, map[uint64][]time.Duration{}
}

func (h *history) now() time.Duration { return time.Since(h.began).Round(10 * time.Microsecond) }

// ask notes a request that is about to be written. weight is 0 or heavy.
func (h *history) ask(k kind, connection, weight uint64) *record {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextID++
	r := &record{id: h.nextID | weight, kind: k, connection: connection, asked: h.now()}
	h.records[r.id] = r
	h.tally.asked[k]++
	return r
}

// end notes how r ended.
func (h *history) end(r *record, o outcome, answer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.outcome, r.ended, r.answer = o, h.now(), answer
	h.tally.ended[o]++
}

// streamRefusals are the errors of JetStream that a publisher may be told here. Each says that the message is not stored.
var streamRefusals = map[string]bool{
	"10023": true, // insufficient resources: a server's limit
	"10167": true, // too many requests: a server that was frozen has got too much at once
}

// fail notes the error that r was answered with. A client that does nothing wrong gets only some of them.
func (h *history) fail(r *record, payload []byte) {
	info, err := codec.ParseError(payload)
	if err != nil {
		h.problem(r, "an error that cannot be read: %q", payload)
		return
	}
	o, name := failed, info.Name
	switch {
	case !info.Sent:
		o = unsent
	case codec.ErrorCode(info.Code) == codec.CodeServiceError:
		o, name = refused, fmt.Sprint(name, " ", info.ServiceCode)
	case codec.ErrorCode(info.Code) == codec.CodeNoResponders && r.kind == durableV2:
		o = refused
	}
	h.end(r, o, name+": "+info.Message)
	h.mu.Lock()
	h.tally.errors[fmt.Sprintf("%s, sent:%v", name, info.Sent)]++
	h.mu.Unlock()
	switch codec.ErrorCode(info.Code) {
	case codec.CodeTimeout, codec.CodeConnectionClosed, codec.CodeOverloaded, codec.CodeUnavailable, codec.CodeNoResponders, codec.CodeShuttingDown:
	case codec.CodeServiceError:
		if r.kind != durableV2 {
			h.problem(r, "an error that the responder never sends")
		} else if !streamRefusals[fmt.Sprint(info.ServiceCode)] {
			h.problem(r, "an error of JetStream that a stream without limits gives no reason for, or that does not say that the message is not stored")
		}
	default:
		h.problem(r, "an error that its frame is no reason for")
	}
}

// execute notes that the responder saw an id.
func (h *history) execute(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.executed[id] = append(h.executed[id], h.now())
	h.tally.executed++
}

func (h *history) executions() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tally.executed
}

// problem notes that a promise was broken; r is the request that shows it, or nil.
func (h *history) problem(r *record, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf("at %v: ", h.now()) + fmt.Sprintf(format, args...)
	if r != nil {
		text += fmt.Sprintf("\n    %v", r)
		if at := h.executed[r.id]; len(at) > 0 {
			text += fmt.Sprintf("; seen by the responder at %v", at)
		}
	}
	h.problems = append(h.problems, text)
}

func (h *history) broken() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.problems)
}

// check compares what was answered with what was done, when nothing moves any more. stored says how often each
// id is in the stream.
func (h *history) check(stored map[uint64]int) {
	h.mu.Lock()
	records, executed := h.records, h.executed
	h.tally.stored += len(stored)
	h.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(records)) {
		r := records[id]
		for _, broken := range verdict(r, len(executed[id]), stored[id]) {
			h.problem(r, "%s", broken)
		}
	}
	for id := range executed {
		if records[id] == nil {
			h.problem(nil, "the responder saw %016x, which nobody sent", id)
		}
	}
	for id := range stored {
		if records[id] == nil {
			h.problem(nil, "%016x is stored, which nobody sent", id)
		}
	}
}

// verdict names the promises that are broken for a request that was executed and stored so many times.
func verdict(r *record, executed, stored int) (broken []string) {
	bad := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	switch {
	case r.outcome == waits:
		bad("it was never answered, on a connection that stayed")
	case r.outcome == unsent && executed+stored > 0:
		bad("it was answered with sent:false, and executed %d times, stored %d times", executed, stored)
	case r.outcome == refused && stored > 0:
		bad("it was answered that no stream has stored it, and it is stored %d times", stored)
	case r.outcome == torn && executed+stored > 0:
		bad("its frame was never complete, and it was executed %d times, stored %d times", executed, stored)
	case r.outcome == fine && r.kind == durableV2 && stored == 0:
		bad("it was acknowledged and is not stored")
	case r.outcome == fine && (r.kind == submitV1 || r.kind == requestV2) && executed == 0:
		bad("it was answered and never executed")
	}
	if executed > 1 {
		bad("it was executed %d times", executed)
	}
	if stored > 1 {
		bad("it is stored %d times", stored)
	}
	return broken
}

// String tells the counts for people.
func (s *tally) String() string {
	var b strings.Builder
	total := 0
	for k, n := range s.asked {
		fmt.Fprintf(&b, "  %-22v %7d\n", kind(k), n)
		total += n
	}
	for o, n := range s.ended {
		if n > 0 {
			fmt.Fprintf(&b, "  -> %-19v %7d\n", outcome(o), n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.errors)) {
		fmt.Fprintf(&b, "     %-30s %7d\n", name, s.errors[name])
	}
	return fmt.Sprintf("%d requests, %d seen by the responder, %d stored\n%s", total, s.executed, s.stored, b.String())
}
