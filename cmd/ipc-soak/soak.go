package main

import (
	"fmt"
	"sync"
	"time"
)

// plan is a soak to be run.
type plan struct {
	command string // as the report names it

	socket, metricsURL string
	subject            string // empty: TASK_SUBMIT
	duration, warmup   time.Duration
	settle             time.Duration // at most, to come to rest
	threads            int
	growthBytes        int64 // of resident memory, at most
	heapGrowthBytes    int64 // of what lives in the heap, at most

	payloadBytesMax int
	burst           int  // requests that are sent at once, at most
	churn           bool // frames come in pieces, and connections come and go, some in the middle of a frame and with requests in flight
}

// run puts the load on, and compares the gateway's counts before and after. An error is that it could not be done at all.
func (p *plan) run() (*report, error) {
	before, busy, err := awaitRest(p.metricsURL, 0)
	if err == nil && before.Connections > 0 {
		err = fmt.Errorf("somebody else uses the gateway (%w): soak one that nobody uses, or nothing can be told from its counts", busy)
	}
	if err != nil {
		return nil, err
	}
	if _, err := p.load(p.warmup); err != nil {
		return nil, err
	}
	start, _, err := awaitRest(p.metricsURL, p.settle)
	if err == nil {
		start, err = collect(p.metricsURL, start)
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	done, err := p.load(p.duration)
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	end, busy, err := awaitRest(p.metricsURL, p.settle)
	if err == nil {
		end, err = collect(p.metricsURL, end)
	}
	if err != nil {
		return nil, err
	}
	r := newReport(p, took, done, start, end)
	r.judge(p, busy)
	return r, nil
}

// load keeps the gateway busy, and returns what the clients saw.
func (p *plan) load(d time.Duration) (*tally, error) {
	until := time.Now().Add(d)
	tallies, errs := make([]tally, p.threads), make([]error, p.threads)
	var all sync.WaitGroup
	for i := range p.threads {
		all.Go(func() {
			c := newClient(p, uint64(i), &tallies[i])
			errs[i] = c.run(until)
		})
	}
	all.Wait()
	sum := &tally{failedBy: map[string]int64{}}
	for i := range tallies {
		if errs[i] != nil {
			return nil, errs[i]
		}
		sum.add(&tallies[i])
	}
	return sum, nil
}

// tally is what a client saw.
type tally struct {
	connections, abandoned int64 // requests whose client went away before the answer
	sent, pongs            int64
	split, torn            int64            // frames that were sent in two pieces, and those whose client went away in the middle of them
	right, wrong           int64            // answers that came from NATS, or should have
	failedBy               map[string]int64 // by the error's name
	firstWrong             string
}

func (t *tally) add(other *tally) {
	t.connections += other.connections
	t.abandoned += other.abandoned
	t.sent += other.sent
	t.pongs += other.pongs
	t.split += other.split
	t.torn += other.torn
	t.right += other.right
	t.wrong += other.wrong
	for name, n := range other.failedBy {
		t.failedBy[name] += n
	}
	if t.firstWrong == "" {
		t.firstWrong = other.firstWrong
	}
}
