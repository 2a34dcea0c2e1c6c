package compare

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/perf/proc"
)

// The goals, and under what they are measured.
const (
	garbageLoad     = time.Minute // without a collection
	mallocsRequests = 1_000_000
	mallocsGoal     = 0.001

	rssIdleGoalMiB        = 30
	rssConnectionsGoalMiB = 100
	rssLoadGoalMiB        = 60
	idleConnections       = 10_000
	loadConnections       = 64

	idleClients    = 1000
	idleWatch      = 30 * time.Second
	idleCPUPercent = 0.2

	flatBand       = 0.15
	twoLoopsFactor = 1.6
)

// flatConnections are those that the cost is compared over; the first one is what the others are compared with.
var flatConnections = []int{64, 256, 1024, 4096}

// seconds is a duration as ipc-bench takes it.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// garbage counts what the gateway allocates and collects under load.
func (o *own) garbage(ctx context.Context) error {
	if err := o.serve(ctx); err != nil {
		return err
	}
	before, err := o.gateway.meter(ctx)
	if err != nil {
		return err
	}
	began, requests := time.Now(), int64(0)
	// A machine that is too slow for so many requests in that time goes on.
	for part := o.settings.Garbage; requests == 0 || requests < o.settings.Requests && requests >= o.settings.Requests/10; part = o.settings.Garbage / 2 {
		l, err := o.load(ctx, nil, "throughput", "-t", "16", "-w", "16", "-p", strconv.Itoa(goalPayload), "-d", seconds(part), "--expect", "echo")
		if err != nil {
			return err
		}
		requests += l.Sent
	}
	took := time.Since(began)
	after, err := o.gateway.meter(ctx)
	if err != nil {
		return err
	}
	mallocs := max(after.mallocs-before.mallocs-o.gateway.idle, 0)
	loadNote := fmt.Sprintf("TASK_SUBMIT, 16 x 16, %d B, for %.1f s", goalPayload, took.Seconds())
	why := ""
	if took < garbageLoad {
		why = fmt.Sprintf("the goal is about %v of load", garbageLoad)
	}
	o.result.add(OwnGoal{Part: PartGarbage, What: "collections", Got: float64(after.collections - before.collections), Note: loadNote}, why)
	why = ""
	if requests < mallocsRequests {
		why = fmt.Sprintf("the goal is about at least %d requests", mallocsRequests)
	}
	o.result.add(OwnGoal{Part: PartGarbage, What: "mallocs per request", Got: float64(mallocs) / float64(requests), Most: mallocsGoal,
		Note: fmt.Sprintf("%d mallocs in %d requests, those of connecting and the runtime's own among them", mallocs, requests)}, why)
	return nil
}

// memory measures what the gateway has in RAM.
func (o *own) memory(ctx context.Context) error {
	if err := o.serve(ctx); err != nil {
		return err
	}
	bytes, err := proc.RSS(o.gateway.middle.pid())
	if err != nil {
		return err
	}
	o.addRSS("RSS idle", float64(bytes), rssIdleGoalMiB, "", "")
	l, err := o.load(ctx, nil, "throughput", "-t", strconv.Itoa(loadConnections), "-p", strconv.Itoa(goalPayload), "-d", seconds(o.settings.Run), "--expect", "echo")
	if err != nil {
		return err
	}
	o.addRSS(fmt.Sprintf("RSS under a load of %d connections", loadConnections), l.Server.RSSBytes, rssLoadGoalMiB, "after the last answer, before they close", "")
	// The gateway inherits what this process may have open.
	allowed, err := allowFiles(idleConnections)
	if err != nil {
		return err
	}
	why := ""
	if allowed < idleConnections {
		why = fmt.Sprintf("the limit of open files of this user (ulimit -Hn) allows %d connections, not %d", allowed, idleConnections)
	}
	if err := o.serve(ctx, "--max-connections", strconv.Itoa(idleConnections+filesBesides)); err != nil {
		return err
	}
	idle, err := o.connect(ctx, allowed)
	if err != nil {
		return err
	}
	defer idle.close()
	if bytes, err = proc.RSS(o.gateway.middle.pid()); err != nil {
		return err
	}
	o.addRSS(fmt.Sprintf("RSS with %d idle connections", allowed), float64(bytes), rssConnectionsGoalMiB, "each has had an answer to a PING", why)
	return nil
}

func (o *own) addRSS(what string, bytes, mostMiB float64, note, why string) {
	o.result.add(OwnGoal{Part: PartMemory, What: what, Got: bytes / (1 << 20), Unit: " MiB", Most: mostMiB, Note: note}, why)
}

// idleCPU measures what idle clients cost.
func (o *own) idleCPU(ctx context.Context) error {
	if err := o.serve(ctx); err != nil {
		return err
	}
	idle, err := o.connect(ctx, idleClients)
	if err != nil {
		return err
	}
	defer idle.close()
	before, err := proc.CPU(o.gateway.middle.pid())
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(o.settings.Idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := proc.CPU(o.gateway.middle.pid())
	if err != nil {
		return err
	}
	took, why := time.Since(began), ""
	if o.settings.Idle < idleWatch {
		why = fmt.Sprintf("the goal is about %v", idleWatch)
	}
	o.result.add(OwnGoal{Part: PartIdle, What: fmt.Sprintf("CPU of an idle gateway with %d idle clients", idleClients),
		Got: 100 * float64(after-before) / float64(took), Unit: "% of a core", Most: idleCPUPercent,
		Note: fmt.Sprintf("%.1f ms of CPU time in %.1f s", (after-before).Seconds()*1e3, took.Seconds())}, why)
	return nil
}

// flat measures the CPU time per request over the number of connections, at the same total rate.
func (o *own) flat(ctx context.Context) error {
	if err := o.serve(ctx); err != nil {
		return err
	}
	costs, late := map[int][]float64{}, map[int][]float64{}
	for range o.settings.Repeats {
		for _, n := range flatConnections {
			allowed, err := allowFiles(n)
			if err != nil {
				return err
			}
			if allowed < n {
				return fmt.Errorf("%d connections: the limit of open files of this user (ulimit -Hn) allows %d", n, allowed)
			}
			l, err := o.load(ctx, nil, "throughput", "-t", strconv.Itoa(n), "-p", strconv.Itoa(goalPayload), "-d", seconds(o.settings.Run),
				"--rate", strconv.FormatFloat(o.settings.Rate, 'f', -1, 64), "--warmup", strconv.Itoa(2*n), "--expect", "echo")
			if err != nil {
				return fmt.Errorf("%d connections: %w", n, err)
			}
			costs[n], late[n] = append(costs[n], l.Server.CPUUs), append(late[n], l.LateP99)
		}
	}
	base := flatConnections[0]
	for _, n := range flatConnections[1:] {
		why := ""
		if worst := math.Max(median(late[base]), median(late[n])); worst > lateMaxUs {
			why = fmt.Sprintf("99%% of the requests were sent up to %.0f us late: the machine was too busy for that rate, choose a lower one", worst)
		}
		ratio := compare(costs[n], costs[base])
		o.result.add(OwnGoal{Part: PartFlat, What: fmt.Sprintf("CPU per request with %d connections, by that with %d", n, base), Got: ratio.medians, Unit: "x",
			Least: 1 - flatBand, Most: 1 + flatBand,
			Note: fmt.Sprintf("%.2f us, against %.2f us, at %g requests/s; pairs of runs: %.2f to %.2f", median(costs[n]), median(costs[base]), o.settings.Rate, ratio.min, ratio.max)}, why)
	}
	return nil
}

// lateMaxUs is how late requests may be sent if the cost is to be that of the rate: later ones come in bunches, which are cheaper.
const lateMaxUs = 20_000

// loops compares two loops on two CPUs with one, on PING.
func (o *own) loops(ctx context.Context) error {
	cpus, err := ownCPUs()
	if err != nil {
		return err
	}
	if len(cpus) < 2 {
		o.result.add(OwnGoal{Part: PartLoops, What: "PING of two loops on two CPUs, by one loop", Unit: "x", Least: twoLoopsFactor},
			"this process may use one CPU only: two loops need two, and their clients at least two more")
		return nil
	}
	clients, why := cpus[2:], ""
	if len(clients) < 2 {
		clients = nil
		why = fmt.Sprintf("%d CPUs: the clients need about as much CPU time as the loops, and take it from them here. It needs two CPUs for the loops, and two more for the clients", len(cpus))
	}
	var rates [2][]float64
	busy := false
	for range o.settings.Repeats {
		for i := range rates {
			if err := o.serve(ctx, "--cpus", strings.Trim(strings.ReplaceAll(fmt.Sprint(cpus[:i+1]), " ", ","), "[]")); err != nil {
				return err
			}
			l, err := o.load(ctx, clients, "throughput", "--type", "ping", "-t", strconv.Itoa(loadConnections), "-d", seconds(o.settings.Run),
				"--workers", strconv.Itoa(max(len(clients), 1)))
			if err != nil {
				return err
			}
			rates[i], busy = append(rates[i], l.PerSecond), busy || l.Busy
		}
	}
	if busy && why == "" {
		why = "the clients were the bottleneck: give this more CPUs"
	}
	ratio := compare(rates[1], rates[0])
	where := "clients on any CPU"
	if len(clients) > 0 {
		where = fmt.Sprintf("clients on CPUs %v", clients)
	}
	o.result.add(OwnGoal{Part: PartLoops, What: "PING of two loops on two CPUs, by one loop", Got: ratio.medians, Unit: "x", Least: twoLoopsFactor,
		Note: fmt.Sprintf("%.0f/s against %.0f/s, %s; pairs of runs: %.2f to %.2f", median(rates[1]), median(rates[0]), where, ratio.min, ratio.max)}, why)
	return nil
}
