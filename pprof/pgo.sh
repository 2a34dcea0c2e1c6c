#!/usr/bin/env bash
# Records the CPU profile that the Go tool optimizes the gateway by, under the loads of the suite, and puts it where
# go build finds it; then measures what it is worth.
#
#   pprof/pgo.sh              # record cmd/ipc-gateway/default.pgo, a minute and a half
#   pprof/pgo.sh --measure    # compare the gateway built with it and without, in turns, 4 minutes
#   pprof/pgo.sh --try FILE   # record a second of each load into FILE: does it work?
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib.sh
source pprof/lib.sh

profile=cmd/ipc-gateway/default.pgo
seconds=15 gateway_build="-pgo=off"
# What perf/run_benchmarks.sh sends, as flags of ipc-bench throughput.
loads=("-t 8" "-t 16 -p 256" "-t 64 -p 256" "-t 16 -w 16 -p 256" "-t 8 -w 16 -p 256 --type publish -S perf.sink" "-t 8 --type ping")

record() {
    build
    serve
    local flags parts=()
    for flags in "${loads[@]}"; do
        echo "recording: ipc-bench throughput $flags"
        # shellcheck disable=SC2086 # several flags
        load $flags
        parts+=("$work/${#parts[@]}.pprof")
        curl -sf -o "${parts[-1]}" "$probe/debug/pprof/profile?seconds=$seconds"
        kill "${started[-1]}"
        wait "${started[-1]}" || true
    done
    go tool pprof -proto -output "$profile" "${parts[@]}" >/dev/null 2>&1
    echo "$profile: $(wc -c <"$profile") bytes"
}

measure() {
    [ -f "$profile" ] || { echo "there is no $profile: record it first" >&2; exit 1; }
    go build -trimpath -pgo=off -o "$work/ipc-gateway-plain" ./cmd/ipc-gateway
    go build -trimpath -o "$work/" ./cmd/ipc-bench
    "$work/ipc-bench" compare --kinds request -t 16 -w 1,16 -p 256 -d 1 -n 41 --sides gateway,base \
        --base "$work/ipc-gateway-plain" --json="$work/compare.json"
    go run ./pprof/pairs "$work/compare.json"
}

case "${1:-}" in
"") record ;;
--try)
    [ $# -eq 2 ] || { echo "--try needs a file" >&2; exit 2; }
    profile=$2 seconds=1
    record
    ;;
--measure) measure ;;
*)
    sed -n '5,7s/^# *//p' pprof/pgo.sh >&2
    exit 2
    ;;
esac
