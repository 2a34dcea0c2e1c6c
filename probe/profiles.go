package probe

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// profilesPath is the folder of the profiles.
const profilesPath = "/debug/pprof/"

const (
	// profileMax bounds how long one capture may take.
	profileMax = 10 * time.Minute
	// contentionSeconds is how long contention is recorded unless the request says otherwise.
	contentionSeconds = "10"
	// mutexRate and blockRate are what is recorded unless the request says otherwise: each contention, and on average one
	// wait for each so many nanoseconds of waiting.
	mutexRate = 1
	blockRate = 10_000
)

const profilesIndex = `Profiles of this process. Each is read by: go tool pprof URL

profile        CPU time; ?seconds=30
trace          what each goroutine did when, for go tool trace; ?seconds=1
allocs         where memory was allocated since the start; ?seconds=10: meanwhile
heap           where the memory was allocated that is in use; ?gc=1: after a collection
mutex          where goroutines that held locks made others wait; ?seconds=10, ?rate=1: one of so many
block          where goroutines waited; ?seconds=10, ?rate=10000: one for each so many nanoseconds
goroutine      what each goroutine is doing; ?debug=1: as text with labels, ?debug=2: with states
threadcreate   where threads were created

The label "part" says what a goroutine is for: loop, nats, accept, ticker, probe; "loop" which loop it works for.
`

// profiles serves the profiles of the process.
type profiles struct {
	anyone bool // may read them, not only this machine

	// Each is held by the capture that has switched a recording on, which is for the whole process.
	mutex, block sync.Mutex
}

// serve serves the profile that r names.
func (p *profiles) serve(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, profilesPath)
	if name == "" {
		write(w, "text/plain; charset=utf-8", http.StatusOK, []byte(profilesIndex))
		return
	}
	if err := checkSeconds(name, r.FormValue("seconds")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch name {
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "allocs", "heap", "goroutine", "threadcreate":
		pprof.Handler(name).ServeHTTP(w, r)
	case "mutex":
		record(w, r, name, &p.mutex, mutexRate, func(rate int) { runtime.SetMutexProfileFraction(rate) })
	case "block":
		record(w, r, name, &p.block, blockRate, runtime.SetBlockProfileRate)
	default:
		http.Error(w, "There is no such profile. "+profilesPath+" lists them", http.StatusNotFound)
	}
}

// checkSeconds tells whether a capture may take so long. Empty text is the default of the profile. net/http/pprof takes a part of
// a second for a trace only; for the others it would take its default instead.
func checkSeconds(name, text string) error {
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err == nil && name != "trace" {
		_, err = strconv.Atoi(text)
	}
	if err != nil || !(seconds > 0 && seconds <= profileMax.Seconds()) {
		return fmt.Errorf("seconds is %q: want a number over 0, and at most %v; a whole one but for a trace", text, profileMax.Seconds())
	}
	return nil
}

// record switches the recording of contention on for as long as the request wants it, and serves what came of it. Busy is
// held meanwhile; setRate sets the rate, 0 is off.
func record(w http.ResponseWriter, r *http.Request, name string, busy *sync.Mutex, rate int, setRate func(int)) {
	if text := r.FormValue("rate"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			http.Error(w, fmt.Sprintf("rate is %q: want a whole number from 1 on", text), http.StatusBadRequest)
			return
		}
		rate = n
	}
	if !busy.TryLock() {
		http.Error(w, "Another capture of this profile is running", http.StatusConflict)
		return
	}
	defer busy.Unlock()
	if r.FormValue("seconds") == "" {
		r.Form.Set("seconds", contentionSeconds)
	}
	setRate(rate)
	defer setRate(0)
	pprof.Handler(name).ServeHTTP(w, r)
}
