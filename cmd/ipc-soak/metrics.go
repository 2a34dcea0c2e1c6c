package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// counts are what the gateway says about itself at one time.
type counts struct {
	Connections      int64 `json:"connections"`
	Inflight         int64 `json:"inflight"`
	BuffersAcquired  int64 `json:"buffers_acquired"`
	BuffersReleased  int64 `json:"buffers_released"`
	SlotsAcquired    int64 `json:"slots_acquired"`
	SlotsReleased    int64 `json:"slots_released"`
	Loops            int64 `json:"loops"`
	LinksUp          int64 `json:"nats_links_up"`
	Reconnects       int64 `json:"nats_reconnects"`
	InternalErrors   int64 `json:"internal_errors"`
	Goroutines       int64 `json:"goroutines"`
	Descriptors      int64 `json:"descriptors"`
	ResidentBytes    int64 `json:"resident_bytes"`
	HeapBytes        int64 `json:"heap_bytes"`
	StartTimeSeconds int64 `json:"start_time_seconds"` // of the process: another one has other counts
	Collected        bool  `json:"collected"`          // the garbage was collected right before: HeapBytes is what lives
}

// fields says which metric fills which field.
func (c *counts) fields() map[string]*int64 {
	return map[string]*int64{
		"ipc_connections":                &c.Connections,
		"ipc_inflight_requests":          &c.Inflight,
		"ipc_buffer_pool_acquired_total": &c.BuffersAcquired,
		"ipc_buffer_pool_released_total": &c.BuffersReleased,
		"ipc_slot_pool_acquired_total":   &c.SlotsAcquired,
		"ipc_slot_pool_released_total":   &c.SlotsReleased,
		"ipc_loops":                      &c.Loops,
		"ipc_nats_links_up":              &c.LinksUp,
		"ipc_nats_reconnects_total":      &c.Reconnects,
		"ipc_internal_errors_total":      &c.InternalErrors,
		"go_goroutines":                  &c.Goroutines,
		"process_open_fds":               &c.Descriptors,
		"process_resident_memory_bytes":  &c.ResidentBytes,
		"go_memstats_heap_alloc_bytes":   &c.HeapBytes,
		"process_start_time_seconds":     &c.StartTimeSeconds,
	}
}

// atRest returns nil if nothing is in use, and else what is.
func (c *counts) atRest() error {
	switch {
	case c.Connections != 0:
		return fmt.Errorf("%d connections are open", c.Connections)
	case c.Inflight != 0:
		return fmt.Errorf("%d requests are in flight", c.Inflight)
	case c.BuffersAcquired != c.BuffersReleased:
		return fmt.Errorf("%d buffers acquired, %d released: %d are missing", c.BuffersAcquired, c.BuffersReleased, c.BuffersAcquired-c.BuffersReleased)
	case c.SlotsAcquired != c.SlotsReleased:
		return fmt.Errorf("%d slots acquired, %d released: %d are missing", c.SlotsAcquired, c.SlotsReleased, c.SlotsAcquired-c.SlotsReleased)
	}
	return nil
}

// scrapeTimeout bounds one look at the gateway.
const scrapeTimeout = 10 * time.Second

// scrape reads the counts. It leaves no connection behind, which would count as a descriptor.
func scrape(url string) (*counts, error) {
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: scrapeTimeout}
	response, err := probe.Get(url)
	if err != nil {
		return nil, fmt.Errorf("the gateway's metrics cannot be read: start it with --probe-addr, and say where with --probe: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s: is that the gateway?", url, response.Status)
	}
	return parseCounts(response.Body)
}

// collect has the gateway collect its garbage, and returns its counts after that; those that are given if it serves no profiles (--pprof), which
// are asked for this.
func collect(url string, c *counts) (*counts, error) {
	probe := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: scrapeTimeout}
	for range 2 { // what has a finalizer, or is in a sync.Pool, goes the second time
		response, err := probe.Get(strings.TrimSuffix(url, "/metrics") + "/debug/pprof/heap?gc=1")
		if err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return c, nil
		}
	}
	after, err := scrape(url)
	if err == nil {
		after.Collected = true
	}
	return after, err
}

// parseCounts reads the text format of Prometheus, in which each of the fields is one line.
func parseCounts(text io.Reader) (*counts, error) {
	c := &counts{}
	missing := c.fields()
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		field := missing[name]
		if field == nil {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", name, err)
		}
		*field = int64(number)
		delete(missing, name)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for name := range missing {
		return nil, fmt.Errorf("there is no metric %s: is that the gateway?", name)
	}
	return c, nil
}

// restPause is how often a gateway that is not at rest is looked at.
const restPause = 50 * time.Millisecond

// awaitRest returns the counts once the gateway is at rest, or the last ones with what is still in use.
func awaitRest(url string, atMost time.Duration) (c *counts, busy, err error) {
	for deadline := time.Now().Add(atMost); ; time.Sleep(restPause) {
		if c, err = scrape(url); err != nil {
			return nil, nil, err
		}
		if busy = c.atRest(); busy == nil || time.Now().After(deadline) {
			return c, busy, nil
		}
	}
}
