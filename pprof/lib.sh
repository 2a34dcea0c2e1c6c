# Sourced by the scripts beside it: a folder for their work, and a gateway with its profiles on. They end with all that they
# started.

# shellcheck source=../perf/lib.sh
source perf/lib.sh

# build: the programs that serve needs, into $work. $gateway_build are flags for that of the gateway.
build() {
    go build -trimpath -o "$work/" ./cmd/ipc-bench ./perf/natsd ./perf/responder
    # shellcheck disable=SC2154,SC2086 # several flags
    go build -trimpath $gateway_build -o "$work/" ./cmd/ipc-gateway
}

# serve FLAGS...: NATS, a responder, and a gateway with these flags and its profiles at $probe. Its process is $pid.
serve() {
    start natsd "$work/natsd"
    await natsd grep -q ^ready "$work/natsd.log"
    local url
    url=$(awk '/^ready/ { print $2 }' "$work/natsd.log")
    start responder "$work/responder" -nats-url "$url" -subject perf.echo
    await responder grep -q ^ready "$work/responder.log"
    start gateway "$work/ipc-gateway" serve --socket "$work/socket" --nats-url "$url" --subject perf.echo \
        --probe-addr 127.0.0.1:0 --pprof "$@"
    pid=${started[-1]}
    await gateway "$work/ipc-gateway" send --socket "$work/socket" hello
    probe=http://$(sed -n 's/.*msg=serving .* probe=\([^ ]*\).*/\1/p' "$work/gateway.log")
}

# load FLAGS...: clients with these flags of ipc-bench throughput, which keep the gateway busy until they are killed. Their
# process is ${started[-1]}.
load() {
    local wanted=$(($(requests) + 1000))
    start load "$work/ipc-bench" throughput -d 86400 -s "$work/socket" "$@"
    await load answered $wanted
}

# requests: how many frames clients have sent so far.
requests() {
    curl -sf "$probe/metrics" | awk '/^ipc_requests_total/ { n += $2 } END { printf "%d\n", n }'
}

# answered N: succeeds once there were that many.
answered() { [ "$(requests)" -ge "$1" ]; }

