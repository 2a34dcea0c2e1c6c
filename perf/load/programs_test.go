package main

import (
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

	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/perf/internal/report"
)

// asLoad in the environment makes the test binary the load itself: -programs starts copies of it.
const asLoad = "PERF_TEST_AS_LOAD"

func TestMain(m *testing.M) {
	if os.Getenv(asLoad) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// Three programs of two connections each, numbered apart, make one report.
func TestPrograms(t *testing.T) {
	t.Setenv(asLoad, "1")
	var (
		mu   sync.Mutex
		seen = map[uint64]int{} // requests, by the number of the connection
	)
	socket := serve(t, func(f codec.Frame) codec.Frame {
		mu.Lock()
		defer mu.Unlock()
		seen[binary.BigEndian.Uint64(f.Payload)]++
		return echo(f)
	})
	for name, args := range map[string][]string{
		"gateway": {"-mode", "gateway", "-socket", socket},
		"direct":  {"-mode", "direct", "-nats-url", startNATS(t)},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := load(t, append(args, "-programs", "3", "-conns", "2")...)
			if err != nil {
				t.Fatal(err)
			}
			if r.Programs != 3 || r.Connections != 6 || r.Requests < 12 || r.Errors != 0 || r.Seconds < 0.05 ||
				r.CPUSeconds <= 0 || r.P50Us <= 0 || r.P99Us < r.P50Us {
				t.Fatalf("not believable: %+v", r)
			}
		})
	}
	for number := range uint64(6) {
		if seen[number] < 2 {
			t.Errorf("connection %d made %d requests", number, seen[number])
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d connections made requests, not 6", len(seen))
	}
}

// One program that meets a wrong answer, or cannot start, fails them all.
func TestProgramsFail(t *testing.T) {
	t.Setenv(asLoad, "1")
	socket := serve(t, func(f codec.Frame) codec.Frame {
		f = echo(f)
		if connection, seq := binary.BigEndian.Uint64(f.Payload), binary.BigEndian.Uint64(f.Payload[8:]); connection == 1 && seq == 5 {
			f.Payload[100] ^= 1
		}
		return f
	})
	r, err := load(t, "-socket", socket, "-programs", "3", "-conns", "1")
	const want = "connection 1: request 5: the answer is not what was sent"
	if err == nil || err.Error() != want || r.Errors != 1 || r.FirstError != want || r.Requests == 0 {
		t.Errorf("got %v and %+v", err, r)
	}
	_, err = load(t, "-socket", socket+".not", "-programs", "3")
	if err == nil || !strings.Contains(err.Error(), "program 0 is not ready") {
		t.Errorf("got %v", err)
	}
}

// Shares that went through JSON add up to what the same latencies give in one process, to the last
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
			StartNs: 5e9 - int64(number), EndNs: 7e9 - 2 - int64(number), CPUNs: 1e9,
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
	got := summarize(&settings{mode: "direct", connections: 2, window: 1}, shares)
	if !shares[0].Latencies.Equals(whole.Histogram) {
		t.Error("the merged latencies are not those that were recorded")
	}
	want := &report.Report{
		Mode: "direct", Programs: 3, Connections: 6, Window: 1,
		Requests: 3000, Seconds: 2, PerSecond: 1500,
		P50Us: whole.quantileUs(50), P99Us: whole.quantileUs(99), P999Us: whole.quantileUs(99.9),
		CPUSeconds: 3, CPUShare: 1.5, Errors: 3, FirstError: "2",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v,\nwant %+v", got, want)
	}
}
