package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// asDirect in the environment makes the test binary the program itself: -programs starts copies of it.
const asDirect = "PERF_TEST_AS_DIRECT"

func TestMain(m *testing.M) {
	if os.Getenv(asDirect) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// Goal: three programs, of which one has a connection more than the others, all numbered apart, make one report.
func TestPrograms(t *testing.T) {
	t.Setenv(asDirect, "1")
	var (
		mu   sync.Mutex
		seen = map[uint64]int{} // requests, by the number of the worker
	)
	url := startNATS(t, func(b []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		seen[binary.BigEndian.Uint64(b)]++
		return b
	})
	r, err := direct(t, "-nats-url", url, "-programs", "3", "-conns", "7")
	if err != nil {
		t.Fatal(err)
	}
	if r.Programs != 3 || r.Connections != 7 || r.Requests < 14 || r.Errors != 0 || r.Seconds < 0.05 || r.CPUSeconds <= 0 || r.Latency(0.5) <= 0 {
		t.Fatalf("not believable: %+v", r)
	}
	for number := range uint64(7) {
		if seen[number] < 2 {
			t.Errorf("worker %d made %d requests", number, seen[number])
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d workers made requests, not 7", len(seen))
	}
}

// Goal: one program that meets a wrong answer, or cannot start, fails them all.
func TestProgramsFail(t *testing.T) {
	t.Setenv(asDirect, "1")
	url := startNATS(t, func(b []byte) []byte {
		if worker, seq := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]); worker == 1 && seq == 5 {
			b = bytes.Clone(b)
			b[100] ^= 1
		}
		return b
	})
	r, err := direct(t, "-nats-url", url, "-programs", "3", "-conns", "3")
	const want = "worker 1: request 5: the answer is not what was sent"
	if err == nil || err.Error() != want || r.Errors != 1 || r.FirstError != want || r.Requests == 0 {
		t.Errorf("got %v and %+v", err, r)
	}
	_, err = direct(t, "-nats-url", "nats://127.0.0.1:1", "-programs", "3")
	if err == nil || !strings.Contains(err.Error(), "program 0 is not ready") {
		t.Errorf("got %v", err)
	}
}

// Goal: shares that went through JSON add up to what the same latencies give in one process, to the last
// count, and their time is from the first start to the last end.
func TestSummarize(t *testing.T) {
	var (
		shares []*share
		whole  = newLatencies(1)[0]
		random = rand.New(rand.NewPCG(1, 2))
	)
	for number, one := range newLatencies(3) {
		for range 1000 * number { // None for the first.
			d := time.Duration(math.Exp(random.Float64() * 24))
			one.record(d)
			whole.record(d)
		}
		text, err := json.Marshal(&share{
			Requests: int64(1000 * number), StartNs: 5e9 - int64(number), EndNs: 7e9 - 2 - int64(number), CPUNs: 1e9, Connections: number,
			Errors: number, FirstError: strconv.Itoa(number), Latencies: one,
		})
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, &share{})
		if err := json.Unmarshal(text, shares[number]); err != nil {
			t.Fatal(err)
		}
	}
	got := summarize(&settings{connections: 3, window: 1}, shares)
	if !shares[0].Latencies.Equals(whole.Histogram) {
		t.Error("the merged latencies are not those that were recorded")
	}
	want := &report.Report{Programs: 3, Connections: 3, Window: 1, Requests: 3000, Seconds: 2, CPUSeconds: 3, Errors: 3, FirstError: "2"}
	for _, quantile := range report.Quantiles {
		want.QuantilesUs = append(want.QuantilesUs, whole.quantileUs(quantile*100))
	}
	want.HistogramUs = whole.barsUs()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v,\nwant %+v", got, want)
	}
}
