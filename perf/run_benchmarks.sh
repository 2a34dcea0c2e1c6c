#!/usr/bin/env bash
# The whole suite, against a gateway that it starts: throughput, latency, and the comparison with its peers. What it measured
# is in results/YYYYMMDD_HHMMSS/, which the last line names; summary.md there is where to begin.
#
#   perf/run_benchmarks.sh            # about 8 minutes
#   perf/run_benchmarks.sh --quick    # less than one, once all is built: shows that it works, the figures are worth little
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=30 short=10 requests=10000 rate_seconds=5 compare=()
case "${1:-}" in
--quick) seconds=2 short=1 requests=2000 rate_seconds=1 compare=(--quick) ;;
"") ;;
*)
    echo "usage: $0 [--quick]" >&2
    exit 2
    ;;
esac
# shellcheck source=lib.sh
source perf/lib.sh
out=results/$(date +%Y%m%d_%H%M%S)
mkdir -p "$out"

# measure FILE NAME ARGS...: runs ipc-bench, adds what it says to FILE.txt and keeps NAME.json and NAME.hdr.
measure() {
    local file=$1 name=$2
    shift 2
    "$work/ipc-bench" "$@" -s "$work/socket" --json="$out/$name.json" --hdr "$out/$name.hdr" | tee -a "$out/$file.txt"
    echo | tee -a "$out/$file.txt"
}

echo "building"
go build -trimpath -o "$work/" ./cmd/ipc-gateway ./cmd/ipc-bench ./perf/natsd ./perf/responder
go build -C perf/pictures -o "$work/pictures" .

start natsd "$work/natsd"
await natsd grep -q ^ready "$work/natsd.log"
url=$(awk '/^ready/ { print $2 }' "$work/natsd.log")
start responder "$work/responder" -nats-url "$url" -subject perf.echo
await responder grep -q ^ready "$work/responder.log"
start gateway "$work/ipc-gateway" serve --socket "$work/socket" --nats-url "$url" --subject perf.echo --probe-addr ""
await gateway "$work/ipc-gateway" send --socket "$work/socket" hello

measure throughput throughput_submit throughput -d "$seconds" -t 8
measure throughput throughput_submit_64x1 throughput -d "$short" -t 64 -p 256
measure throughput throughput_submit_16x16 throughput -d "$short" -t 16 -w 16 -p 256
measure throughput throughput_publish throughput -d "$short" -t 8 -w 16 -p 256 --type publish -S perf.sink
measure throughput throughput_ping throughput -d "$short" -t 8 --type ping
for bytes in 64 256 1024; do
    measure latency_${bytes}b latency_${bytes}b latency -n "$requests" -p $bytes
    measure latency_${bytes}b rate_latency_${bytes}b latency -n $((2000 * rate_seconds)) -p $bytes --rate 2000
done

"$work/ipc-bench" compare "${compare[@]}" --json="$out/compare.json" | tee "$out/compare.txt"
"$work/pictures" "$out"
"$work/ipc-bench" summary "$out"
echo "$out/summary.md"
