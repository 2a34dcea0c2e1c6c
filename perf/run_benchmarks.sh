#!/usr/bin/env bash
# The whole suite, against a gateway that it starts: throughput, latency, and the comparison with its peers. What it measured
# is in results/YYYYMMDD_HHMMSS/, which the last line names; summary.md there is where to begin. It exits with 1 if anything failed,
# and writes what there is nevertheless.
#
#   perf/run_benchmarks.sh            # 9 minutes
#   perf/run_benchmarks.sh --quick    # less than one, once all is built: shows that it works, the figures are worth little
#
# --out DIR after that is another folder.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=30 short=10 requests=10000 rate_seconds=5 most_seconds=600 compare=() out=results/$(date +%Y%m%d_%H%M%S)
while [ $# -gt 0 ]; do
    case $1 in
    --quick) seconds=1 short=1 requests=2000 rate_seconds=1 most_seconds=60 compare=(--quick) ;;
    --out)
        [ $# -ge 2 ] || { echo "--out needs a folder" >&2; exit 2; }
        out=$2
        shift
        ;;
    *)
        echo "usage: $0 [--quick] [--out DIR]" >&2
        exit 2
        ;;
    esac
    shift
done
# shellcheck source=lib.sh
source perf/lib.sh
mkdir -p "$out"
failed=()

# measure FILE NAME ARGS...: runs ipc-bench, adds what it says to FILE.txt and keeps NAME.json and NAME.hdr.
measure() {
    local file=$1 name=$2
    shift 2
    "$work/ipc-bench" "$@" -s "$work/socket" --json="$out/$name.json" --hdr "$out/$name.hdr" | tee -ia "$out/$file.txt" || failed+=("$name")
    echo | tee -ia "$out/$file.txt"
}

# write_up: pictures and summary.md of whatever there is, and how long it took since all was built.
write_up() {
    "$work/pictures" "$out" || failed+=(pictures)
    "$work/ipc-bench" summary "$out" || failed+=(summary)
    local took=$((SECONDS - built))
    echo "measured in $took s, after $built s of building"
    [ $took -le $most_seconds ] || echo "WARNING: that is more than the $most_seconds s that it should take: the machine was busy, or the suite has grown"
    [ ${#failed[@]} -eq 0 ] || echo "FAILED: ${failed[*]}" >&2
    echo "$out/summary.md"
}

echo "building"
go build -trimpath -o "$work/" ./cmd/ipc-gateway ./cmd/ipc-bench ./perf/natsd ./perf/responder
go build -C perf/pictures -o "$work/pictures" .
# What compare builds for itself, so that its time is not taken for measuring.
go build -trimpath -o "$work/peers/" ./perf/peers/direct ./perf/peers/sidecar ./perf/peers/ring
built=$SECONDS
# Whoever interrupts gets what there is so far.
trap 'failed+=(interrupted); write_up; exit 130' INT TERM

start natsd "$work/natsd"
await natsd grep -q ^ready "$work/natsd.log"
url=$(awk '/^ready/ { print $2 }' "$work/natsd.log")
start responder "$work/responder" -nats-url "$url" -subject perf.echo
await responder grep -q ^ready "$work/responder.log"
start gateway "$work/ipc-gateway" serve --socket "$work/socket" --nats-url "$url" --subject perf.echo --probe-addr ""
await gateway "$work/ipc-gateway" send --socket "$work/socket" hello

measure throughput throughput_submit throughput -d "$seconds" -t 8 --expect echo
measure throughput throughput_submit_64x1 throughput -d "$short" -t 64 -p 256 --expect echo
measure throughput throughput_submit_16x16 throughput -d "$short" -t 16 -w 16 -p 256 --expect echo
measure throughput throughput_publish throughput -d "$short" -t 8 -w 16 -p 256 --type publish -S perf.sink
measure throughput throughput_ping throughput -d "$short" -t 8 --type ping
for bytes in 64 256 1024; do
    measure latency_${bytes}b latency_${bytes}b latency -n "$requests" -p $bytes --expect echo
    measure latency_${bytes}b rate_latency_${bytes}b latency -n $((2000 * rate_seconds)) -p $bytes --rate 2000 --expect echo
done

"$work/ipc-bench" compare "${compare[@]}" --json="$out/compare.json" | tee -i "$out/compare.txt" || failed+=(compare)
write_up
[ ${#failed[@]} -eq 0 ]
