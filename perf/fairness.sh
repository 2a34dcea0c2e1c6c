#!/usr/bin/env bash
# Measures what one hostile client of each kind does to 15 good ones, against a gateway that it starts; takes the flags of
# ipc-bench fairness. Ends with 1 if the good ones fare more than --limit times worse, median of the pairs of runs.
#
#   perf/fairness.sh                                # 80 seconds
#   perf/fairness.sh -d 1 --repeats 3 --limit 2     # half a minute, for a machine that others use too
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=lib.sh
source perf/lib.sh

go build -trimpath -o "$work/" ./cmd/ipc-gateway ./cmd/ipc-bench ./perf/natsd ./perf/responder
start natsd "$work/natsd"
await natsd grep -q ^ready "$work/natsd.log"
url=$(awk '/^ready/ { print $2 }' "$work/natsd.log")
start responder "$work/responder" -nats-url "$url" -subject perf.echo
await responder grep -q ^ready "$work/responder.log"
start gateway "$work/ipc-gateway" serve --socket "$work/socket" --nats-url "$url" --subject perf.echo --probe-addr ""
await gateway "$work/ipc-gateway" send --socket "$work/socket" hello

"$work/ipc-bench" fairness -s "$work/socket" "$@"
