package probe

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/audit"
	"github.com/aigroup/ipc-gateway/codec"
	"github.com/aigroup/ipc-gateway/engine"
)

// gatewaysOwn returns the families that are not the library's.
func gatewaysOwn() []family {
	return slices.Concat(gatewayFamilies, []family{buildInfo("v1.2.3")})
}

// expose returns the gateway's part of an exposition.
func expose(s engine.Stats) string {
	s = withLoop(s)
	var text []byte
	for _, f := range gatewaysOwn() {
		text = f.append(text, &s)
	}
	return string(text)
}

// withLoop gives s a loop if it has none: a gateway has one at least.
func withLoop(s engine.Stats) engine.Stats {
	if s.LoopBreakers == nil {
		s.LoopBreakers = make([]engine.BreakerCounts, 1)
	}
	return s
}

func mustParse(t *testing.T, text string) map[string]*scraped {
	t.Helper()
	families, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// eachNumber calls f with the path and the value of every number and flag in v.
func eachNumber(path string, v reflect.Value, f func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			eachNumber(path+"."+v.Type().Field(i).Name, v.Field(i), f)
		}
	case reflect.Array:
		for i := range v.Len() {
			eachNumber(fmt.Sprintf("%s[%d]", path, i), v.Index(i), f)
		}
	case reflect.Slice:
		// One for each rule: TestMetricsOfPeers. One for each loop: TestValuesComeFromTheirFields.
	default:
		f(path, v)
	}
}

// raise changes a number or a flag.
func raise(v reflect.Value, by uint64) {
	switch {
	case v.CanUint():
		v.SetUint(v.Uint() + by)
	case v.CanInt():
		v.SetInt(v.Int() + int64(by))
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	default:
		panic("a field of Stats that is no number: " + v.Type().String())
	}
}

// Each number of Stats is changed alone, and must change the exposition, each in a way of its own.
func TestEveryNumberOfStatsIsShown(t *testing.T) {
	var s engine.Stats
	seen := map[string]string{expose(s): "nothing"}
	numbers := 0
	eachNumber("Stats", reflect.ValueOf(&s).Elem(), func(path string, v reflect.Value) {
		before := v.Interface()
		raise(v, 1)
		text := expose(s)
		if other := seen[text]; other != "" {
			t.Errorf("a change of %s shows as that of %s", path, other)
		}
		seen[text] = path
		v.Set(reflect.ValueOf(before))
		numbers++
	})
	if minimum := engine.TypeCount*engine.LatencyBuckets + engine.CodeCount; numbers < minimum {
		t.Errorf("looked at %d numbers, want more than %d: the walk is broken", numbers, minimum)
	}
}

// With every number different, each sample must show its own.
func TestValuesComeFromTheirFields(t *testing.T) {
	s := engine.Stats{
		Loops:       3,
		Connections: 101, ConnectionsTotal: 102, ConnectionsRefused: 103, AcceptErrors: 104, SlowClientsClosed: 105, ClientsKilled: 910,
		ClientBytesIn: 106, ClientBytesOut: 107, ClientBytesBuffered: 108, ClientBytesDropped: 109, NoReplyRefused: 110,
		Inflight: 111, InflightRefused: 112, ConnInflightRefused: 113, UpstreamFullRefused: 114,
		LateReplies: 115, Abandoned: 116, InternalErrors: 117,
		SlotsAvailable: 118, SlotsAcquired: 119, SlotsReleased: 120,
		BuffersAvailable: 121, BuffersAcquired: 122, BuffersReleased: 123,
		LinksUp: 124, LinksActive: 125, LinksIdle: 126, LinkReconnects: 127, LameDuckMoves: 147,
		UpstreamBytesIn: 128, UpstreamBytesOut: 129, UpstreamBuffered: 130, UpstreamDropped: 131,
		JetStreamRefused: 144, JetStreamHeldBytes: 145, JetStreamResends: 146,
		CircuitBreakerState: 2, Draining: true,
		ClientsTakenOver: 180, PausedConnections: 148, FrameTimeouts: 149, PausedTime: 1500 * time.Millisecond,
		LoopBreakers: []engine.BreakerCounts{{167, 168, 169}, {170, 171, 172}},
		BreakersOpen: 161, BreakersHalfOpen: 162, BreakerTransitions: [engine.BreakerStateCount]uint64{163, 164, 165}, BreakerRefused: 166,
		PeerConnectionsRefused: 132, ConnectionsUnauthorized: 133,
		TraceSpans: 191, TraceDropped: 192,
		Audit: audit.Stats{Records: 181, Bytes: 182, Lost: 183, Gaps: 184, RingFull: 185, Segments: 186, WriteErrors: 187, SyncErrors: 188,
			Lag: 2500 * time.Millisecond},
		OtherPeers: engine.PeerCounts{Connections: 134, Refusals: [engine.PeerRefusalCount]uint64{135, 136, 137, 138}},
	}
	want := map[string]string{
		"ipc_loops":                                             "3",
		"ipc_connections":                                       "101",
		"ipc_connections_total":                                 "102",
		"ipc_accept_errors_total":                               "104",
		"ipc_slow_clients_closed_total":                         "105",
		"ipc_clients_killed_total":                              "910",
		"ipc_client_bytes_received_total":                       "106",
		"ipc_client_bytes_sent_total":                           "107",
		"ipc_client_buffered_bytes":                             "108",
		"ipc_client_dropped_bytes_total":                        "109",
		"ipc_no_reply_refused_total":                            "110",
		"ipc_inflight_requests":                                 "111",
		`ipc_limit_refusals_total{limit="inflight"}`:            "112",
		`ipc_limit_refusals_total{limit="connection_inflight"}`: "113",
		`ipc_limit_refusals_total{limit="upstream_buffer"}`:     "114",
		`ipc_limit_refusals_total{limit="jetstream_buffer"}`:    "144",
		`ipc_limit_refusals_total{limit="connections"}`:         "103",
		"ipc_late_replies_total":                                "115",
		"ipc_abandoned_requests_total":                          "116",
		"ipc_internal_errors_total":                             "117",
		"ipc_slot_pool_available":                               "118",
		"ipc_slot_pool_acquired_total":                          "119",
		"ipc_slot_pool_released_total":                          "120",
		"ipc_buffer_pool_available":                             "121",
		"ipc_buffer_pool_acquired_total":                        "122",
		"ipc_buffer_pool_released_total":                        "123",
		"ipc_nats_links_up":                                     "124",
		"ipc_nats_pool_connections_active":                      "125",
		"ipc_nats_pool_connections_idle":                        "126",
		"ipc_nats_reconnects_total":                             "127",
		"ipc_nats_lame_duck_moves_total":                        "147",
		"ipc_nats_bytes_received_total":                         "128",
		"ipc_nats_bytes_sent_total":                             "129",
		"ipc_nats_buffered_bytes":                               "130",
		"ipc_nats_dropped_bytes_total":                          "131",
		"ipc_jetstream_held_bytes":                              "145",
		"ipc_jetstream_resends_total":                           "146",
		"ipc_circuit_breaker_state":                             "2",
		"ipc_clients_taken_over_total":                          "180",
		"ipc_paused_connections":                                "148",
		"ipc_frame_timeouts_total":                              "149",
		"ipc_paused_seconds_total":                              "1.5",
		"ipc_draining":                                          "1",
		`ipc_build_info{version="v1.2.3",goversion="` + runtime.Version() + `"}`: "1",
	}
	for series, value := range map[string]string{
		`ipc_audit_records_total`:                                     "181",
		`ipc_audit_written_bytes_total`:                               "182",
		`ipc_audit_dropped_total`:                                     "183",
		`ipc_audit_gaps_total`:                                        "184",
		`ipc_audit_ring_full_total`:                                   "185",
		`ipc_audit_segments_total`:                                    "186",
		`ipc_audit_write_errors_total`:                                "187",
		`ipc_audit_sync_errors_total`:                                 "188",
		`ipc_audit_lag_seconds`:                                       "2.5",
		`ipc_trace_spans_total`:                                       "191",
		`ipc_trace_dropped_total`:                                     "192",
		`ipc_circuit_breaker_subjects{state="open"}`:                  "161",
		`ipc_circuit_breaker_subjects{state="half_open"}`:             "162",
		`ipc_circuit_breakers{loop="0",state="closed"}`:               "167",
		`ipc_circuit_breakers{loop="0",state="open"}`:                 "168",
		`ipc_circuit_breakers{loop="0",state="half_open"}`:            "169",
		`ipc_circuit_breakers{loop="1",state="closed"}`:               "170",
		`ipc_circuit_breakers{loop="1",state="open"}`:                 "171",
		`ipc_circuit_breakers{loop="1",state="half_open"}`:            "172",
		`ipc_circuit_breaker_transitions_total{to="closed"}`:          "163",
		`ipc_circuit_breaker_transitions_total{to="open"}`:            "164",
		`ipc_circuit_breaker_transitions_total{to="half_open"}`:       "165",
		`ipc_circuit_breaker_refused_total`:                           "166",
		`ipc_connections_refused_total{reason="connections"}`:         "103",
		`ipc_connections_refused_total{reason="peer_connections"}`:    "132",
		`ipc_connections_refused_total{reason="unauthorized"}`:        "133",
		`ipc_peer_connections{peer="others"}`:                         "134",
		`ipc_peer_refusals_total{peer="others",reason="connections"}`: "135",
		`ipc_peer_refusals_total{peer="others",reason="rate"}`:        "136",
		`ipc_peer_refusals_total{peer="others",reason="inflight"}`:    "137",
		`ipc_peer_refusals_total{peer="others",reason="subject"}`:     "138",
	} {
		want[series] = value
	}
	for i, label := range engine.TypeLabels {
		s.Requests[i] = uint64(200 + i)
		want[`ipc_requests_total{type="`+label+`"}`] = strconv.Itoa(200 + i)
	}
	for i, label := range engine.PauseLabels {
		s.Pauses[i] = uint64(150 + i)
		want[`ipc_pauses_total{reason="`+label+`"}`] = strconv.Itoa(150 + i)
	}
	s.Responses[0] = 300
	want[`ipc_responses_total{code="ok"}`] = "300"
	for i, code := range codec.ErrorCodes() {
		s.Responses[i+1] = uint64(301 + i)
		want[`ipc_responses_total{code="`+code.Name()+`"}`] = strconv.Itoa(301 + i)
	}

	got := map[string]string{}
	for line := range strings.Lines(expose(s)) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && series != "#" && !strings.Contains(series, "duration_seconds") && !strings.Contains(series, "_batch_") {
			got[series] = value
		}
	}
	for series, value := range want {
		if got[series] != value {
			t.Errorf("%s is %q, want %s", series, got[series], value)
		}
		delete(got, series)
	}
	for series, value := range got {
		t.Errorf("%s %s: not expected", series, value)
	}
}

// Every rule has its series from the start, and shows its own numbers.
func TestMetricsOfPeers(t *testing.T) {
	families := mustParse(t, expose(engine.Stats{
		Peers: []engine.PeerStats{
			{Name: "uid:1000", PeerCounts: engine.PeerCounts{Connections: 1, Refusals: [engine.PeerRefusalCount]uint64{2, 3, 4, 5}}},
			{Name: "gid:7"},
		},
		OtherPeers: engine.PeerCounts{Connections: 6, Refusals: [engine.PeerRefusalCount]uint64{7, 8, 9, 10}},
	}))
	if got := families["ipc_peer_connections"].series; !reflect.DeepEqual(got, map[string]float64{
		`ipc_peer_connections{peer="uid:1000"}`: 1, `ipc_peer_connections{peer="gid:7"}`: 0, `ipc_peer_connections{peer="others"}`: 6,
	}) {
		t.Errorf("connections: %v", got)
	}
	refusals := families["ipc_peer_refusals_total"].series
	for i, reason := range engine.PeerRefusalLabels {
		for peer, want := range map[string]int{"uid:1000": 2 + i, "gid:7": 0, "others": 7 + i} {
			series := `ipc_peer_refusals_total{peer="` + peer + `",reason="` + reason + `"}`
			if got, ok := refusals[series]; !ok || got != float64(want) {
				t.Errorf("%s is %v, want %d", series, got, want)
			}
		}
	}
	if len(refusals) != 3*engine.PeerRefusalCount {
		t.Errorf("%d series, want %d", len(refusals), 3*engine.PeerRefusalCount)
	}
}

// Everything is there before anything has happened, so that rates are right from the first request on.
func TestEverySeriesIsThereFromTheStart(t *testing.T) {
	start := mustParse(t, expose(engine.Stats{}))
	var s engine.Stats
	eachNumber("Stats", reflect.ValueOf(&s).Elem(), func(_ string, v reflect.Value) { raise(v, 1) })
	for name, later := range mustParse(t, expose(s)) {
		if !reflect.DeepEqual(start[name].order, later.order) {
			t.Errorf("%s has other series at the start:\n%v\nlater:\n%v", name, start[name].order, later.order)
		}
	}
	for name, f := range start {
		for series, v := range f.series {
			if v != 0 && name != "ipc_build_info" {
				t.Errorf("%s is %v at the start", series, v)
			}
		}
	}
	if n := len(start["ipc_requests_total"].series); n != engine.TypeCount {
		t.Errorf("%d types of requests, want %d", n, engine.TypeCount)
	}
	if n := len(start["ipc_responses_total"].series); n != engine.CodeCount {
		t.Errorf("%d outcomes, want %d", n, engine.CodeCount)
	}
}

func TestHistogramsAreCumulative(t *testing.T) {
	var s engine.Stats
	d := &s.Durations[len(s.Durations)-1]
	d.Buckets[0], d.Buckets[1], d.Buckets[12], d.Buckets[engine.LatencyBuckets-1] = 5, 6, 7, 8
	d.Sum = 400*time.Second + 250*time.Millisecond
	s.FlushBatches[0], s.FlushBatches[3], s.FlushBatches[engine.FlushBuckets-1] = 1, 2, 3
	s.FlushBatchSum = 4097
	text := expose(s)
	mustParse(t, text)
	for _, want := range []string{
		`ipc_request_duration_seconds_bucket{type="invalid",le="1e-05"} 5`,
		`ipc_request_duration_seconds_bucket{type="invalid",le="1.5e-05"} 11`,
		`ipc_request_duration_seconds_bucket{type="invalid",le="0.0007"} 11`,
		`ipc_request_duration_seconds_bucket{type="invalid",le="0.001"} 18`,
		`ipc_request_duration_seconds_bucket{type="invalid",le="30"} 18`,
		`ipc_request_duration_seconds_bucket{type="invalid",le="+Inf"} 26`,
		`ipc_request_duration_seconds_sum{type="invalid"} 400.25`,
		`ipc_request_duration_seconds_count{type="invalid"} 26`,
		`ipc_request_duration_seconds_bucket{type="submit",le="+Inf"} 0`,
		`ipc_flush_batch_messages_bucket{le="1"} 1`,
		`ipc_flush_batch_messages_bucket{le="4"} 1`,
		`ipc_flush_batch_messages_bucket{le="8"} 3`,
		`ipc_flush_batch_messages_bucket{le="1024"} 3`,
		`ipc_flush_batch_messages_bucket{le="+Inf"} 6`,
		`ipc_flush_batch_messages_sum 4097`,
		`ipc_flush_batch_messages_count 6`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}

// The bounds are exactly those of the engine, in as few digits as tell them apart: two at most.
func TestBoundsHaveNoFloatNoise(t *testing.T) {
	digits := regexp.MustCompile(`^(0\.0*[1-9]5?|[1-9][05]?|1\.5|[1-9](\.5)?e-0[1-9])$`)
	for i, bound := range durationBounds {
		v, err := strconv.ParseFloat(bound, 64)
		if err != nil || time.Duration(math.Round(v*1e9)) != engine.LatencyBounds[i] || !digits.MatchString(bound) {
			t.Errorf("bound %d is %s, want %v in seconds", i, bound, engine.LatencyBounds[i])
		}
	}
}

func TestLabelValuesAreEscaped(t *testing.T) {
	f := buildInfo("a\"b\\c\nd")
	text := string(f.append(nil, &engine.Stats{}))
	if want := `{version="a\"b\\c\nd",`; !strings.Contains(text, want) {
		t.Errorf("no %s in:\n%s", want, text)
	}
	mustParse(t, text)
}

// Names follow the rules that dashboards and other people's alerts count on.
func TestNames(t *testing.T) {
	name := regexp.MustCompile(`^ipc(_[a-z]+)+$`)
	reserved := regexp.MustCompile(`_(bucket|sum|count|created)$`)
	otherUnits := regexp.MustCompile(`_(ns|us|ms|milliseconds|microseconds|nanoseconds|minutes|hours|kb|kib|mb|mib|kilobytes|megabytes|bits|percent)(_|$)`)
	families := mustParse(t, expose(engine.Stats{}))
	if len(families) != len(gatewayFamilies)+1 {
		t.Errorf("%d families, want %d", len(families), len(gatewayFamilies)+1)
	}
	for _, f := range gatewaysOwn() {
		if !name.MatchString(f.name) || reserved.MatchString(f.name) || otherUnits.MatchString(f.name) {
			t.Errorf("%s is not a name for a metric", f.name)
		}
		if strings.HasSuffix(f.name, "_total") != (f.kind == counter) {
			t.Errorf("%s is a %s: counters, and only they, end with _total", f.name, f.kind)
		}
		if strings.Contains(f.name, "duration") && !strings.HasSuffix(f.name, "_seconds") {
			t.Errorf("%s: times are in seconds, and say so", f.name)
		}
		if len(f.help) < 10 || !strings.HasSuffix(f.help, ".") || strings.ContainsAny(f.help, "\\\n") {
			t.Errorf("%s: help %q is not a sentence on one line", f.name, f.help)
		}
		if f.kind == histogram {
			continue
		}
		pairs, err := labelsOf(sampleLine.FindStringSubmatch(families[f.name].order[0] + " 0")[2])
		if err != nil {
			t.Fatal(err)
		}
		var labels []string
		for _, pair := range pairs {
			labels = append(labels, pair[0])
		}
		if got := strings.Join(labels, ","); got != f.labels {
			t.Errorf("%s has the labels %q, and says %q", f.name, got, f.labels)
		}
	}
}

// What the library writes is whole, has a text for each family, and no name of ours.
func TestProcessMetrics(t *testing.T) {
	NewHandler(nil) // switches HELP and TYPE on
	families := mustParse(t, expose(engine.Stats{})+string(appendProcess(nil)))
	for name, f := range families {
		if f.help == "" {
			t.Errorf("%s has no help: add one to processHelp, and a line to docs/metrics.md", name)
		}
		if strings.HasSuffix(name, "_total") != (f.kind == counter) && name != "go_cgo_calls_count" && name != "go_gc_forced_count" {
			t.Errorf("%s is a %s", name, f.kind)
		}
	}
	for name := range processHelp {
		if families[name] == nil && !strings.HasPrefix(name, "process_pressure_") {
			t.Errorf("%s is not written any more: remove its help", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"} {
		if families[name] == nil || families[name].series[name] <= 0 {
			t.Errorf("%s is not above 0", name)
		}
	}
}
