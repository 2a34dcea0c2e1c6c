#!/usr/bin/env bash
# Soaks a gateway of its own for so many seconds (default 60), half with buffers of all sizes and half with small requests, with an audit log
# and traces, and fails if heap (after the garbage was collected), memory, descriptors, goroutines, buffers or slots are left over. Needs Go.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# begin LOG PATTERN COMMAND...: starts a program, and waits until it has written what matches.
begin() {
    local log=$1 pattern=$2
    shift 2
    : >"$log"
    "$@" >"$log" 2>&1 &
    pids+=($!)
    for _ in $(seq 200); do
        grep -q "$pattern" "$log" && return
        sleep 0.1
    done
    cat "$log"
    exit 1
}
go build -o "$work/" ./cmd/ipc-gateway ./cmd/ipc-soak ./perf/natsd ./perf/responder
begin "$work/natsd.log" ^ready "$work/natsd"
url=$(awk '/^ready/ { print $2 }' "$work/natsd.log")
for subject in beamline.router.v1.decide demo.echo; do
    begin "$work/$subject.log" ^ready "$work/responder" -nats-url "$url" -subject "$subject"
done
export IPC_SOCKET_PATH=$work/gateway.sock
# The audit log keeps buffers of the most that ever waited for it, up to twice its ring: a small one, so that a leak shows beside them.
begin "$work/gateway.log" msg=serving "$work/ipc-gateway" serve --nats-url "$url" --probe-addr 127.0.0.1:0 --pprof \
    --audit "$work/audit" --audit-ring 512KiB --audit-max-size 8MiB --audit-keep 2 --trace-sample 0.01
probe=$(sed -n 's/.* probe=\([^ ]*\).*/\1/p' "$work/gateway.log" | head -1)
until IPC_PROBE_ADDR=$probe "$work/ipc-gateway" health --ready >/dev/null 2>&1; do sleep 0.1; done
for soak in "buffer-pool -S demo.echo" nats-pool; do
    # shellcheck disable=SC2086 # a command and its flags
    "$work/ipc-soak" $soak -d $((seconds / 2)) -t 8 --probe "$probe"
done
