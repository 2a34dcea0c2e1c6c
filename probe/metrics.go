package probe

import (
	"runtime"

	"github.com/aigroup/ipc-gateway/engine"
)

// gatewayFamilies are the gateway's metrics, in the order of the exposition. docs/metrics.md says
// more about each.
var gatewayFamilies = []family{
	{"ipc_requests_total", counter, "type", "Frames read from clients, by type.",
		each("type", engine.TypeLabels[:], func(s *engine.Stats) []uint64 { return s.Requests[:] })},
	{"ipc_responses_total", counter, "code", "Answers queued for clients, by outcome: ok or the name of the error.",
		each("code", outcomeLabels(), func(s *engine.Stats) []uint64 { return s.Responses[:] })},
	{"ipc_request_duration_seconds", histogram, "type", "Time from the read of a frame to its answer, of requests that were in flight, by type.", durations},
	{"ipc_inflight_requests", gauge, "", "Requests that wait for NATS now.",
		one(func(s *engine.Stats) uint64 { return s.Inflight })},
	{"ipc_limit_refusals_total", counter, "limit", "Connections and requests refused because a limit was reached, by limit.",
		each("limit", []string{"inflight", "connection_inflight", "upstream_buffer", "jetstream_buffer", "connections"}, func(s *engine.Stats) []uint64 {
			return []uint64{s.InflightRefused, s.ConnInflightRefused, s.UpstreamFullRefused, s.JetStreamRefused, s.ConnectionsRefused}
		})},
	{"ipc_no_reply_refused_total", counter, "", "Publishes with the flag NO_REPLY that were refused, and so vanished without an answer.",
		one(func(s *engine.Stats) uint64 { return s.NoReplyRefused })},
	{"ipc_late_replies_total", counter, "", "Replies from NATS whose request was answered already or gone.",
		one(func(s *engine.Stats) uint64 { return s.LateReplies })},
	{"ipc_abandoned_requests_total", counter, "", "Requests whose client went away before the answer.",
		one(func(s *engine.Stats) uint64 { return s.Abandoned })},
	{"ipc_internal_errors_total", counter, "", "Bugs that were caught and answered with INTERNAL; the log has a stack for each.",
		one(func(s *engine.Stats) uint64 { return s.InternalErrors })},

	{"ipc_connections", gauge, "", "Client connections that are open now.",
		one(func(s *engine.Stats) uint64 { return s.Connections })},
	{"ipc_connections_total", counter, "", "Client connections accepted since the start.",
		one(func(s *engine.Stats) uint64 { return s.ConnectionsTotal })},
	{"ipc_clients_taken_over_total", counter, "", "Client connections taken over from another gateway process.",
		one(func(s *engine.Stats) uint64 { return s.ClientsTakenOver })},
	{"ipc_connections_refused_total", counter, "reason", "Client connections that were refused, by reason.",
		each("reason", []string{"connections", "peer_connections", "unauthorized"}, func(s *engine.Stats) []uint64 {
			return []uint64{s.ConnectionsRefused, s.PeerConnectionsRefused, s.ConnectionsUnauthorized}
		})},
	{"ipc_peer_connections", gauge, "peer", "Client connections that are open now, by the rule that they are under.", peerConnections},
	{"ipc_peer_refusals_total", counter, "peer,reason", "Connections and frames refused by a rule for peers, by rule and reason.", peerRefusals},
	{"ipc_accept_errors_total", counter, "", "Client connections that could not be accepted, as for lack of file descriptors.",
		one(func(s *engine.Stats) uint64 { return s.AcceptErrors })},
	{"ipc_paused_connections", gauge, "", "Client connections that are not read now: there is no room for their next frame, or they do not read their answers.",
		one(func(s *engine.Stats) uint64 { return s.PausedConnections })},
	{"ipc_pauses_total", counter, "reason", "Times that a client connection was paused, by reason.",
		each("reason", engine.PauseLabels[:], func(s *engine.Stats) []uint64 { return s.Pauses[:] })},
	{"ipc_paused_seconds_total", counter, "", "Time that client connections were paused, of all together, up to the last second.", pausedSeconds},
	{"ipc_frame_timeouts_total", counter, "", "Clients closed because they began a frame and did not complete it in time.",
		one(func(s *engine.Stats) uint64 { return s.FrameTimeouts })},
	{"ipc_slow_clients_closed_total", counter, "", "Clients closed because too many bytes waited for them, or because they took none for too long.",
		one(func(s *engine.Stats) uint64 { return s.SlowClientsClosed })},
	{"ipc_clients_killed_total", counter, "", "Clients closed by the operator's command kill.",
		one(func(s *engine.Stats) uint64 { return s.ClientsKilled })},
	{"ipc_client_bytes_received_total", counter, "", "Bytes read from clients.",
		one(func(s *engine.Stats) uint64 { return s.ClientBytesIn })},
	{"ipc_client_bytes_sent_total", counter, "", "Bytes written to clients.",
		one(func(s *engine.Stats) uint64 { return s.ClientBytesOut })},
	{"ipc_client_buffered_bytes", gauge, "", "Bytes that wait for clients now.",
		one(func(s *engine.Stats) uint64 { return s.ClientBytesBuffered })},
	{"ipc_client_dropped_bytes_total", counter, "", "Bytes of answers whose client went away before it took them.",
		one(func(s *engine.Stats) uint64 { return s.ClientBytesDropped })},

	{"ipc_nats_links_up", gauge, "", "Connections to NATS that are ready for requests; ipc_loops of them are wanted.",
		one(func(s *engine.Stats) uint64 { return s.LinksUp })},
	{"ipc_nats_pool_connections_active", gauge, "", "Connections to NATS that are ready and have requests in flight.",
		one(func(s *engine.Stats) uint64 { return s.LinksActive })},
	{"ipc_nats_pool_connections_idle", gauge, "", "Connections to NATS that are ready and have nothing in flight.",
		one(func(s *engine.Stats) uint64 { return s.LinksIdle })},
	{"ipc_nats_reconnects_total", counter, "", "Times that a connection to NATS became ready again.",
		one(func(s *engine.Stats) uint64 { return s.LinkReconnects })},
	{"ipc_nats_lame_duck_moves_total", counter, "", "Times that a loop left a NATS server that was about to shut down, before being cut.",
		one(func(s *engine.Stats) uint64 { return s.LameDuckMoves })},
	{"ipc_nats_bytes_received_total", counter, "", "Bytes read from NATS.",
		one(func(s *engine.Stats) uint64 { return s.UpstreamBytesIn })},
	{"ipc_nats_bytes_sent_total", counter, "", "Bytes written to NATS.",
		one(func(s *engine.Stats) uint64 { return s.UpstreamBytesOut })},
	{"ipc_nats_buffered_bytes", gauge, "", "Bytes that wait for NATS now.",
		one(func(s *engine.Stats) uint64 { return s.UpstreamBuffered })},
	{"ipc_nats_dropped_bytes_total", counter, "", "Bytes queued for NATS that a lost connection never took.",
		one(func(s *engine.Stats) uint64 { return s.UpstreamDropped })},
	{"ipc_jetstream_held_bytes", gauge, "", "Bytes of messages that wait for an acknowledgement of JetStream now.",
		one(func(s *engine.Stats) uint64 { return s.JetStreamHeldBytes })},
	{"ipc_jetstream_resends_total", counter, "", "Copies of messages sent to JetStream after the first, because no acknowledgement had come.",
		one(func(s *engine.Stats) uint64 { return s.JetStreamResends })},
	{"ipc_flush_batch_messages", histogram, "", "Messages that one write to NATS carried.", flushBatches},
	{"ipc_circuit_breaker_state", gauge, "", "The worst circuit breaker of all subjects: 1 if one is open, else 2 if one is half-open, else 0.",
		one(func(s *engine.Stats) uint64 { return s.CircuitBreakerState })},
	{"ipc_circuit_breaker_subjects", gauge, "state", "Subjects whose circuit breaker is not closed, by its state, counted in each loop.",
		each("state", engine.BreakerStateLabels[engine.BreakerOpen:], func(s *engine.Stats) []uint64 {
			return []uint64{s.BreakersOpen, s.BreakersHalfOpen}
		})},
	{"ipc_circuit_breakers", gauge, "loop,state", "Circuit breakers of each loop, by state; a closed one counts failures in a row.", loopBreakers},
	{"ipc_circuit_breaker_transitions_total", counter, "to", "Times that a circuit breaker changed, by the state that it entered.",
		each("to", engine.BreakerStateLabels[:], func(s *engine.Stats) []uint64 { return s.BreakerTransitions[:] })},
	{"ipc_circuit_breaker_refused_total", counter, "", "Requests refused because the circuit breaker of their subject was not closed.",
		one(func(s *engine.Stats) uint64 { return s.BreakerRefused })},

	{"ipc_audit_records_total", counter, "", "Records given to the audit log.",
		one(func(s *engine.Stats) uint64 { return s.Audit.Records })},
	{"ipc_audit_written_bytes_total", counter, "", "Bytes written to the audit log.",
		one(func(s *engine.Stats) uint64 { return s.Audit.Bytes })},
	{"ipc_audit_dropped_total", counter, "", "Requests that are not in the audit log, because it took no more.",
		one(func(s *engine.Stats) uint64 { return s.Audit.Lost })},
	{"ipc_audit_gaps_total", counter, "", "Gaps in the audit log, each of which tells how many requests are missing there.",
		one(func(s *engine.Stats) uint64 { return s.Audit.Gaps })},
	{"ipc_audit_ring_full_total", counter, "", "Times that a loop found no room for a record.",
		one(func(s *engine.Stats) uint64 { return s.Audit.RingFull })},
	{"ipc_audit_segments_total", counter, "", "Segments of the audit log that were begun.",
		one(func(s *engine.Stats) uint64 { return s.Audit.Segments })},
	{"ipc_audit_write_errors_total", counter, "", "Tries to write the audit log that failed.",
		one(func(s *engine.Stats) uint64 { return s.Audit.WriteErrors })},
	{"ipc_audit_sync_errors_total", counter, "", "Tries to force the audit log to the disk that failed.",
		one(func(s *engine.Stats) uint64 { return s.Audit.SyncErrors })},
	{"ipc_audit_lag_seconds", gauge, "", "How long the oldest record waits to be written to the audit log.", auditLag},

	{"ipc_trace_spans_total", counter, "", "Spans of sampled requests that ended.",
		one(func(s *engine.Stats) uint64 { return s.TraceSpans })},
	{"ipc_trace_dropped_total", counter, "", "Spans that were dropped: too many at a time, or the receiver did not take them.",
		one(func(s *engine.Stats) uint64 { return s.TraceDropped })},

	{"ipc_slot_pool_available", gauge, "", "Request slots that are free now.",
		one(func(s *engine.Stats) uint64 { return s.SlotsAvailable })},
	{"ipc_slot_pool_acquired_total", counter, "", "Request slots acquired.",
		one(func(s *engine.Stats) uint64 { return s.SlotsAcquired })},
	{"ipc_slot_pool_released_total", counter, "", "Request slots released.",
		one(func(s *engine.Stats) uint64 { return s.SlotsReleased })},
	{"ipc_buffer_pool_available", gauge, "", "Buffers kept for reuse now.",
		one(func(s *engine.Stats) uint64 { return s.BuffersAvailable })},
	{"ipc_buffer_pool_acquired_total", counter, "", "Buffers acquired.",
		one(func(s *engine.Stats) uint64 { return s.BuffersAcquired })},
	{"ipc_buffer_pool_released_total", counter, "", "Buffers released.",
		one(func(s *engine.Stats) uint64 { return s.BuffersReleased })},

	{"ipc_loops", gauge, "", "Event loops, each with one connection to NATS.",
		one(func(s *engine.Stats) uint64 { return uint64(s.Loops) })},
	{"ipc_draining", gauge, "", "1 while the gateway finishes what is in flight before it ends, else 0.", one(draining)},
}

// buildInfo is the family that tells which build runs. Its value says nothing.
func buildInfo(version string) family {
	pairs := labelPair("version", version) + "," + labelPair("goversion", runtime.Version())
	return family{"ipc_build_info", gauge, "version,goversion", "Always 1; the labels tell the gateway's version and that of Go.",
		func(dst []byte, name string, _ *engine.Stats) []byte { return appendSample(dst, name, pairs, 1) }}
}

// outcomeLabels returns engine.CodeLabels with the outcome that is no error in lower case, which
// sets it apart from the names of errors.
func outcomeLabels() []string {
	labels := engine.CodeLabels
	labels[0] = "ok"
	return labels[:]
}

var (
	durationPairs  = labelPairs("type", engine.TypeLabels[:])
	durationBounds = func() (bounds [len(engine.LatencyBounds)]string) {
		for i, d := range engine.LatencyBounds {
			bounds[i] = formatFloat(d.Seconds())
		}
		return bounds
	}()
	flushBounds = func() (bounds [len(engine.FlushBounds)]string) {
		for i, n := range engine.FlushBounds {
			bounds[i] = formatFloat(float64(n))
		}
		return bounds
	}()
)

func durations(dst []byte, name string, s *engine.Stats) []byte {
	for i := range s.Durations {
		d := &s.Durations[i]
		dst = appendHistogram(dst, name, durationPairs[i], durationBounds[:], d.Buckets[:], d.Sum.Seconds())
	}
	return dst
}

func pausedSeconds(dst []byte, name string, s *engine.Stats) []byte {
	return appendFloatSample(dst, name, "", s.PausedTime.Seconds())
}

func flushBatches(dst []byte, name string, s *engine.Stats) []byte {
	return appendHistogram(dst, name, "", flushBounds[:], s.FlushBatches[:], float64(s.FlushBatchSum))
}

func auditLag(dst []byte, name string, s *engine.Stats) []byte {
	return appendFloatSample(dst, name, "", s.Audit.Lag.Seconds())
}

func draining(s *engine.Stats) uint64 {
	if s.Draining {
		return 1
	}
	return 0
}
