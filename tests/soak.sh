#!/usr/bin/env bash
# Soaks a gateway of its own for so many seconds (default 60), half with buffers of all sizes and half with small requests, and
# fails if memory, descriptors, goroutines, buffers or slots are left over. Needs Go.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
work=$(mktemp -d)
trap 'kill "$pid" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
pid=
go build -o "$work/" ./cmd/ipc-sandbox ./cmd/ipc-soak
export IPC_SOCKET_PATH=$work/gateway.sock
"$work/ipc-sandbox" --socket "$IPC_SOCKET_PATH" --probe-addr 127.0.0.1:0 >"$work/out" 2>&1 &
pid=$!
for _ in $(seq 200); do
    probe=$(sed -n 's/.*http:\/\/\(127\.0\.0\.1:[0-9]*\)\/metrics.*/\1/p' "$work/out" | head -1)
    [ -n "$probe" ] && break
    sleep 0.1
done
[ -n "$probe" ] || { cat "$work/out"; exit 1; }
for soak in "buffer-pool -S demo.echo" nats-pool; do
    # shellcheck disable=SC2086 # a command and its flags
    "$work/ipc-soak" $soak -d $((seconds / 2)) -t 8 --probe "$probe"
done
