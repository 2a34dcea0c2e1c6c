#!/usr/bin/env bash
# Profiles a gateway with all that this machine has, into results/pprof-YYYYMMDD_HHMMSS/, which the last line names:
# what the Go runtime records, what perf or strace sees from outside, and flame graphs of both.
#
#   pprof/capture.sh                                # a gateway of its own, with NATS, a responder and 16 clients
#   pprof/capture.sh --load "-t 64 -w 16 -p 256"    # another load: flags of ipc-bench throughput
#   pprof/capture.sh --gateway "--cpus 1"           # other settings: flags of ipc-gateway serve
#   pprof/capture.sh --probe http://127.0.0.1:8080  # one that runs, with --pprof, under the load that it has
#
# --seconds N is how long each profile takes [10]; --out DIR another folder; --pid N the process, where the probe's port does not
# tell it.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '5,11s/^# \{0,1\}//p' pprof/capture.sh >&2
    exit 2
}

seconds=10 clients="-t 16 -p 256" settings="" probe="" pid="" out="" gateway_build=""
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --seconds) seconds=$2 ;;
    --load) clients=$2 ;;
    --gateway) settings=$2 ;;
    --probe) probe=${2%/} ;;
    --pid) pid=$2 ;;
    --out) out=$2 ;;
    *) usage ;;
    esac
    shift 2
done
case $seconds in *[!0-9]* | "" | 0) usage ;; esac

out=${out:-results/pprof-$(date +%Y%m%d_%H%M%S)}
mkdir -p "$out"
# shellcheck source=lib.sh
source pprof/lib.sh

# tell TEXT: a line for the reader, also in summary.txt.
tell() { echo "$*" | tee -a "$out/summary.txt"; }
missing() { tell "not here: $*"; }

# get FILE PATH: a profile of the probe.
get() {
    curl -sf --max-time $((seconds + 60)) -o "$out/$1" "$probe/debug/pprof/$2" || {
        missing "$2: $(curl -s --max-time 5 "$probe/debug/pprof/" | head -c 200)"
        return 1
    }
}

# flame FILE.svg TITLE ARGS...
flame() {
    local file=$1 title=$2
    shift 2
    "$work/flame" -o "$out/$file" -title "$title" "$@" 2>"$work/flame.log" || missing "$file: $(cat "$work/flame.log")"
}

# top FILE ARGS...: the functions with most of a profile, as text.
top() {
    local file=$1
    shift
    go tool pprof -top -nodecount 40 "$@" >"$out/$file" 2>/dev/null
}

# write_meanwhile: a program that waits for $seconds and notes how many requests came meanwhile, which perf runs when it has
# attached to the gateway.
write_meanwhile() {
    cat >"$work/meanwhile" <<EOS
#!/usr/bin/env bash
$(declare -f requests)
probe=$probe
before=\$(requests)
sleep $seconds
echo \$((\$(requests) - before)) >$work/came
EOS
    chmod +x "$work/meanwhile"
}

# per_request N: N by the requests that came meanwhile.
per_request() { awk -v n="$1" -v r="$(cat "$work/came")" 'BEGIN { if (r > 0) printf "%.3f", n / r; else printf "-" }'; }

# of_go: what the Go runtime knows.
of_go() {
    tell "== from the Go runtime, $probe/debug/pprof/, $seconds s each"
    if get cpu.pprof "profile?seconds=$seconds"; then
        top cpu.txt "$out/cpu.pprof"
        go tool pprof -tags "$out/cpu.pprof" >"$out/cpu-labels.txt" 2>/dev/null
        flame cpu.svg "CPU time, $seconds s" "$out/cpu.pprof"
        tell "cpu.pprof cpu.svg cpu.txt cpu-labels.txt: $(sed -n 's/^Duration: //p' "$out/cpu.txt")"
        if command -v dot >/dev/null; then
            go tool pprof -svg -output "$out/cpu-graph.svg" "$out/cpu.pprof" 2>/dev/null
            tell "cpu-graph.svg: who calls whom"
        else
            missing "graphviz: go tool pprof draws no call graphs (cpu-graph.svg); flame graphs need none"
        fi
    fi
    if get allocs.pprof "allocs?seconds=$seconds"; then
        top allocs.txt -sample_index=alloc_objects "$out/allocs.pprof"
        flame allocs.svg "allocations, $seconds s" -sample alloc_objects "$out/allocs.pprof"
        tell "allocs.pprof allocs.svg allocs.txt: sampled, one for each 512 KiB; none seen means less than that"
    fi
    local kind
    for kind in mutex block; do
        if get $kind.pprof "$kind?seconds=$seconds&rate=1"; then
            top $kind.txt "$out/$kind.pprof"
            flame $kind.svg "$kind, $seconds s" -sample delay "$out/$kind.pprof"
            tell "$kind.pprof $kind.svg $kind.txt"
        fi
    done
    if get heap.pprof heap; then tell "heap.pprof: memory in use"; fi
    if get goroutine.txt "goroutine?debug=1" && get goroutine.pprof goroutine; then
        tell "goroutine.pprof goroutine.txt: $(sed -n '1s/.*total //p' "$out/goroutine.txt") goroutines, by their labels"
    fi
    if get trace.out "trace?seconds=1"; then tell "trace.out: a second, for go tool trace"; fi
}

# of_perf: what the kernel samples and counts from outside.
of_perf() {
    tell "== from perf, process $pid"
    if ! perf record -q -F 999 -g -p "$pid" -o "$work/perf.data" -- sleep "$seconds" >"$work/perf.log" 2>&1; then
        missing "perf record: $(tail -1 "$work/perf.log")"
        return
    fi
    perf report -i "$work/perf.data" --no-children --stdio -g none --percent-limit 0.5 >"$out/perf.txt" 2>/dev/null
    perf script -i "$work/perf.data" 2>/dev/null >"$work/perf.script"
    flame perf.svg "CPU samples with the kernel's, $seconds s" - <"$work/perf.script"
    tell "perf.svg perf.txt: $(grep -c 'cpu-clock\|cycles' "$work/perf.script") samples, of $(sed -n "s/^# Samples: .* of event '\(.*\)'/\1/p" "$out/perf.txt" | head -1)"
    grep -q '\[kernel' "$work/perf.script" ||
        missing "the kernel's functions: sysctl kernel.perf_event_paranoid=1, kernel.kptr_restrict=0, or root"

    perf stat -e task-clock,context-switches,cpu-migrations,page-faults,cycles,instructions,cache-misses -p "$pid" \
        -o "$out/perf-stat.txt" -- "$work/meanwhile" || missing "perf stat"
    local event value
    for event in task-clock context-switches cpu-migrations page-faults instructions; do
        value=$(awk -v e=$event '{ gsub(",", "") } $2 == e || $3 == e { print $1 }' "$out/perf-stat.txt")
        case $value in
        "" | "<not"*) ;;
        *)
            if [ $event = task-clock ]; then
                tell "perf-stat.txt: $(per_request "${value}e3") us of CPU time per request"
            else
                tell "perf-stat.txt: $(per_request "$value") $event per request"
            fi
            ;;
        esac
    done
    if grep -q '<not supported> *cycles' "$out/perf-stat.txt"; then
        missing "hardware counters: this machine, or its hypervisor, counts no cycles, instructions and cache misses; perf samples by the clock"
    fi
}

# of_system_calls: how many of which kind a request costs.
of_system_calls() {
    local counted=""
    if command -v perf >/dev/null && perf trace -s -p "$pid" -o "$work/syscalls" -- "$work/meanwhile" >/dev/null 2>&1; then
        counted="perf trace"
        # The blocks of the threads, added up.
        awk '$2 ~ /^[0-9]+$/ && $3 ~ /^[0-9]+$/ && NF >= 7 && $1 !~ /^-/ { calls[$1] += $2 } END { for (s in calls) print calls[s], s }' \
            "$work/syscalls" >"$work/calls"
    elif command -v strace >/dev/null && strace_calls; then
        counted="strace -c, which slows the gateway down: fewer, larger batches"
    else
        missing "system calls by kind: neither perf trace nor strace can attach to process $pid"
        return
    fi
    sort -rn "$work/calls" | while read -r n name; do
        printf '%10d  %8s per request  %s\n' "$n" "$(per_request "$n")" "$name"
    done >"$out/syscalls.txt"
    tell "== system calls, by $counted: $(cat "$work/came") requests in $seconds s"
    head -8 "$out/syscalls.txt" | tee -a "$out/summary.txt"
}

strace_calls() {
    strace -f -c -p "$pid" -o "$work/syscalls" 2>"$work/strace.log" &
    local tracer=$!
    for _ in $(seq 100); do
        grep -q attached "$work/strace.log" && break
        kill -0 $tracer 2>/dev/null || return 1
        sleep 0.05
    done
    "$work/meanwhile"
    kill -INT $tracer
    wait $tracer || true
    awk '$4 ~ /^[0-9]+$/ && $NF != "total" { print $4, $NF }' "$work/syscalls" >"$work/calls"
}

# find_pid: the process that listens on the probe's port, if this user may see that.
find_pid() {
    local port=${probe##*:}
    pid=$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -1) || true
}

command -v curl >/dev/null || { echo "$0 needs curl" >&2; exit 1; }
echo "building"
go build -trimpath -o "$work/" ./pprof/flame
if [ -z "$probe" ]; then
    build
    # shellcheck disable=SC2086 # several flags
    serve $settings
    # shellcheck disable=SC2086
    load $clients
    tell "a gateway of $(git describe --always --dirty 2>/dev/null || echo "this folder") ${settings:+with $settings }under: ipc-bench throughput $clients"
else
    curl -sf "$probe/debug/pprof/" >/dev/null || { echo "no profiles at $probe/debug/pprof/: start the gateway with --pprof" >&2; exit 1; }
    [ -n "$pid" ] || find_pid
    tell "the gateway at $probe, under the load that it has"
fi
tell "on $(uname -sr), $(nproc) CPUs, $(go version | cut -d' ' -f3)"

of_go
if [ -z "$pid" ] || ! [ -d "/proc/$pid" ]; then
    missing "the gateway's process: name it with --pid for what perf and strace see"
else
    write_meanwhile
    if command -v perf >/dev/null; then of_perf; else missing "perf: no samples of the kernel, no context switches"; fi
    of_system_calls
    for thread in /proc/"$pid"/task/*; do cat "$thread/comm"; done 2>/dev/null | sort | uniq -c >"$out/threads.txt"
    tell "threads.txt: $(tr -s ' \n' ' ' <"$out/threads.txt")"
fi
echo "$out"
