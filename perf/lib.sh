# Sourced by the scripts here and in pprof: a folder for their work, and programs in the background. They end with all that they
# started.

# Settings of the shell must not reach the gateway: its defaults are measured.
unset "${!IPC_@}" "${!CGW_@}"

work=$(mktemp -d /tmp/ipc-perf.XXXXXX)
started=()
finish() {
    for p in "${started[@]}"; do kill "$p" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# start NAME PROGRAM ARGS...: runs it in the background, its output in $work/NAME.log.
start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 </dev/null &
    started+=($!)
}

# await NAME COMMAND...: waits until the command succeeds, or says what the program NAME said.
await() {
    local name=$1
    shift
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    echo "$name does not come up:" >&2
    cat "$work/$name.log" >&2
    exit 1
}
