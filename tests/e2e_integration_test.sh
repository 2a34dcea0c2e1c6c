#!/usr/bin/env bash
# Checks a gateway from end to end, as its users meet it: the real programs, a real nats-server, nothing else. Prints a line
# for each check, and ends with exit code 1 at the first that fails. Needs Go; everything it starts ends with it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ok() { printf 'ok    %s\n' "$1"; }
fail() {
    printf 'FAIL  %s\n' "$1"
    sed 's/^/      gateway: /' "$work/gateway.log" 2>/dev/null | tail -5
    exit 1
}
# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1
    shift
    "$@" >"$work/out" 2>&1 || { sed 's/^/      /' "$work/out"; fail "$name"; }
    ok "$name"
}
# eventually COMMAND...: the command must succeed within ten seconds.
eventually() {
    local deadline=$((SECONDS + 10))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}
answers() { # WANTED ARGUMENTS...: of send
    local wanted=$1
    shift
    "$gateway" send "$@" | grep -qF -- "$wanted"
}
refuses() { # ERROR ARGUMENTS...: of send
    local wanted=$1
    shift
    ! "$gateway" send "$@" >"$work/answer" 2>&1 && grep -qF -- "$wanted" "$work/answer"
}

go build -o "$work/" ./cmd/ipc-gateway ./perf/natsd ./perf/responder
gateway=$work/ipc-gateway
export IPC_SOCKET_PATH=$work/gateway.sock
printed() { grep -q '^ready' "$1"; }

"$work/natsd" >"$work/natsd.out" &
pids+=($!)
eventually printed "$work/natsd.out" || fail "nats-server starts"
url=$(awk '/^ready/ { print $2 }' "$work/natsd.out")
"$work/responder" -nats-url "$url" -subject beamline.router.v1.decide >"$work/responder.out" &
responder=$!
pids+=("$responder")
eventually printed "$work/responder.out" || fail "the responder starts"
ok "nats-server and a responder run"

"$gateway" serve --nats-url "$url" --probe-addr 127.0.0.1:0 2>"$work/gateway.log" &
pid=$!
pids+=("$pid")
eventually grep -q msg=serving "$work/gateway.log" || fail "the gateway starts"
export IPC_PROBE_ADDR
IPC_PROBE_ADDR=$(sed -n 's/.* probe=\([^ ]*\).*/\1/p' "$work/gateway.log" | head -1)
ok "the gateway starts"

check "socket: it is there, and only for its user" test "$(stat -c '%F %a' "$IPC_SOCKET_PATH")" = "socket 600"
check "socket: a client connects and is answered" "$gateway" ping --count 3
check "health: alive" "$gateway" health
eventually "$gateway" health --ready || fail "health: ready"
ok "health: ready"

check "messages: TASK_SUBMIT of version 1 comes back" answers '{"task":"x"}' '{"task":"x"}'
check "messages: REQUEST of version 2 with a subject" answers hello --type request --subject beamline.router.v1.decide hello
check "messages: a megabyte less the headers" bash -c 'head -c 1000000 /dev/zero | tr "\0" x | "$0" send --type request --subject beamline.router.v1.decide - | wc -c | grep -q "^100000[01]$"' "$gateway"
check "messages: a subject that nobody listens on is told at once" refuses NO_RESPONDERS --type request --subject nobody.there x
check "console: it shows the links" "$gateway" show links

kill -STOP "${pids[0]}"
check "NATS: while it is frozen the gateway is alive" "$gateway" health
check "NATS: a request has its deadline" refuses TIMEOUT --timeout 200ms x
kill -CONT "${pids[0]}"
eventually "$gateway" health --ready || fail "NATS: ready when it goes on"
eventually answers again again || fail "NATS: requests are answered again"
ok "NATS: requests are answered when it goes on"

check "reload: the settings are read again" "$gateway" reload

# A request is in flight when the gateway is told to end: it is to be answered first.
inflight() { "$gateway" show status | grep -q "^in flight *$1\$"; }
kill -STOP "$responder"
"$gateway" send --timeout 20s last >"$work/last" 2>&1 &
last=$!
pids+=("$last")
eventually inflight 1 || fail "shutdown: a request is in flight"
kill -TERM "$pid"
draining() { ! "$gateway" health --ready; }
eventually draining || fail "shutdown: not ready any more while it drains"
check "shutdown: while it drains it is alive" "$gateway" health
check "shutdown: nobody new is let in" refuses "gateway" x
kill -CONT "$responder"
wait "$last" || fail "shutdown: the last request: $(cat "$work/last")"
check "shutdown: the request in flight is answered" grep -qx last "$work/last"
wait "$pid" || fail "shutdown: exit code $?"
ok "shutdown: SIGTERM ends it with exit code 0"
check "shutdown: the socket is gone" test ! -e "$IPC_SOCKET_PATH"
