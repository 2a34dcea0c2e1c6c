package tests

// how says by whom a command is run. One of the first four is set.
type how struct {
	here   bool   // by TestCommands, with the files and addresses of its gateway
	byTest string // folder.TestName: the same, or what it does
	byCI   string // by .ci/run, in these words
	notRun string // why it is not

	verdict string   // here: it may also say this and end with 1, as on a machine that is busy
	shorter []string // here: pairs of what is replaced in it, and by what
	until   string   // here: it goes on until it is interrupted, which it is when it has written this
	root    bool     // here: it is run in the source tree
}

// unfair is what ipc-bench fairness says of runs that were too short to tell.
const unfair = "a hostile client makes the others more than"

// commands are those of all documents.
var commands = map[string]how{
	// README.md
	"make run":   {here: true, root: true, shorter: []string{"make run", "make run RUN_FLAGS='--socket $W/run.sock --probe-addr 127.0.0.1:0'"}, until: "ipc-gateway ping"},
	"make test":  {byCI: "make test"},
	"make build": {byCI: "make build"},
	"bin/ipc-gateway serve --nats-url nats://10.0.0.5:4222 --nats-creds gateway.creds": {
		here: true, shorter: []string{"nats://10.0.0.5:4222 --nats-creds gateway.creds", "$NATS"}, until: "msg=serving",
	},
	`bin/ipc-gateway send '{"task":"x"}'`:                                       {here: true},
	`bin/ipc-gateway send --type request --subject orders.lookup -v '{"id":7}'`: {here: true},
	"bin/ipc-gateway ping":                                                      {here: true},
	"bin/ipc-gateway capabilities":                                              {here: true},
	"bin/ipc-gateway health":                                                    {here: true},
	"bin/ipc-bench throughput -d 10 -t 8":                                       {here: true, shorter: []string{"-d 10", "-d 0.3"}},
	"bin/ipc-soak buffer-pool -d 300 -t 8":                                      {byTest: "cmd/ipc-soak.TestSoakOfAGateway"},
	"bin/ipc-gateway show clients":                                              {here: true},
	"bin/ipc-gateway kill 17":                                                   {byTest: "cmd/ipc-gateway.TestKillCommand"},
	"bin/ipc-gateway reload":                                                    {here: true},
	"bin/ipc-gateway serve --takeover":                                          {byTest: "cmd/ipc-gateway.TestTakeoversUnderLoad"},
	"bin/ipc-gateway drain":                                                     {byTest: "cmd/ipc-gateway.TestDrainCommand"},

	// docs/audit.md
	"ipc-gateway serve --audit /var/log/ipc-gateway/audit --audit-keep 100 --audit-compress":       {here: true, shorter: []string{"--audit-keep", "--nats-url $NATS --audit-keep"}, until: "msg=serving"},
	"ipc-gateway audit cat /var/log/ipc-gateway/audit --since 1h --outcome TIMEOUT,UNAVAILABLE":    {here: true},
	"ipc-gateway audit cat /var/log/ipc-gateway/audit --follow --subject 'orders.>'":               {here: true, until: "orders.lookup"},
	"ipc-gateway audit verify /var/log/ipc-gateway/audit":                                          {here: true},
	"ipc-gateway audit replay /var/log/ipc-gateway/audit --to /run/staging/gateway.sock --speed 2": {here: true, shorter: []string{"--speed 2", "--speed 1000 --outcome OK --until 0s"}},
	"go test -run '^$' -bench Audit -benchmem ./engine":                                            {here: true, root: true, shorter: []string{"-benchmem", "-benchmem -benchtime 20x"}},
	"ipc-bench throughput -d 5 -t 8 -w 16":                                                         {here: true, shorter: []string{"-d 5", "-d 0.3"}},

	// docs/operations.md
	"curl --unix-socket /tmp/beamline-gateway.sock.ctl http://gateway/v1/status": {here: true},
	"ipc-gateway show status":                                     {here: true},
	"ipc-gateway show clients --sort inflight":                    {here: true},
	"ipc-gateway show links":                                      {here: true},
	"ipc-gateway show routes":                                     {here: true},
	"ipc-gateway show breakers":                                   {here: true},
	"ipc-gateway show config":                                     {here: true},
	"ipc-gateway show errors":                                     {here: true},
	"ipc-gateway kill 17":                                         {byTest: "cmd/ipc-gateway.TestKillCommand"},
	"ipc-gateway drain":                                           {byTest: "cmd/ipc-gateway.TestDrainCommand"},
	"ipc-gateway reload":                                          {here: true},
	"ipc-gateway serve --takeover --config /etc/ipc-gateway.yaml": {byTest: "cmd/ipc-gateway.TestTakeoversUnderLoad"},
	"make dist && sudo dpkg -i dist/ipc-gateway_*.deb":            {byCI: "make check-package"},
	"sudoedit /etc/ipc-gateway/ipc-gateway.yaml":                  {notRun: "an editor"},
	"sudo systemctl enable --now ipc-gateway":                     {notRun: "needs systemd as the first process; deploy.TestUnitsAreUnderstood has systemd look at the unit"},

	// docs/performance.md, docs/reliability.md
	"bin/ipc-bench compare --kinds request -t 1,16,64 -w 1 -p 256 --sides gateway,direct,haproxy,ring -n 3 -d 1.2": {byCI: "perf/check"},
	"make bench":             {byCI: "perf/check"},
	"make perf":              {byCI: "perf/check"},
	"bin/ipc-bench fairness": {here: true, shorter: []string{"fairness", "fairness --hostile flood -d 0.2 --repeats 1"}, verdict: unfair},
	"make bench-gate":        {byCI: "make bench-gate"},
	"bin/ipc-bench fairness -d 1.5 --repeats 5": {here: true, shorter: []string{"-d 1.5 --repeats 5", "--hostile flood -d 0.2 --repeats 1"}, verdict: unfair},
	"make chaos": {byCI: "make chaos"},
	"go test ./chaos -run TestChaos -chaos.time=8h -timeout 0 -v": {byCI: "make chaos"},
	"make fuzz-smoke": {byCI: "make fuzz-smoke"},
	"go test -run '^$' -fuzz '^FuzzLink$' -fuzztime 1h -fuzzminimizetime 20x ./upstream": {byCI: "make fuzz-smoke"},

	// docs/permissions.md
	"ipc-gateway serve --socket-mode 0660 --allow-gid editors":                     {here: true, shorter: []string{"--allow-gid editors", "--allow-gid 4711 --nats-url $NATS"}, until: "msg=serving"},
	"ipc-gateway serve --socket-mode 0666 --allow-uid worker,1005 --allow-uid ann": {here: true, shorter: []string{"worker,1005 --allow-uid ann", "1004,1005 --allow-uid root --nats-url $NATS"}, until: "msg=serving"},
	"ipc-gateway serve --socket-mode 0666 --allow-uid any":                         {here: true, shorter: []string{"any", "any --nats-url $NATS"}, until: "msg=serving"},

	// docs/tracing.md
	"go test -run '^$' -bench Tracing -benchmem -count 20 ./engine":                           {here: true, root: true, shorter: []string{"-count 20", "-benchtime 20x"}},
	"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 ipc-gateway serve --trace-sample 0.01": {here: true, shorter: []string{"0.01", "0.01 --nats-url $NATS"}, until: "msg=serving"},

	// deploy/README.md
	"make docker": {byCI: "make check-image"},

	"docker run -d --name ipc-gateway -p 8080:8080 -v /tmp:/tmp --user $(id -u) --env IPC_NATS_URL=nats://10.0.0.5:4222 ipc-gateway:VERSION": {byCI: "make check-image"},
	"curl http://localhost:8080/health": {here: true},
	"curl http://localhost:8080/ready":  {here: true},

	// perf/README.md
	"make perf BENCH_FLAGS=--quick":                                        {byCI: "perf/check"},
	"bin/ipc-bench throughput -d 30 -t 8 -s /tmp/beamline-gateway.sock":    {here: true, shorter: []string{"-d 30", "-d 0.3"}},
	"bin/ipc-bench latency -n 10000 -p 64 -s /tmp/beamline-gateway.sock":   {here: true, shorter: []string{"10000", "1000"}},
	"bin/ipc-bench throughput -t 64 -w 16 --type ping":                     {here: true, shorter: []string{"-t 64", "-d 0.3 -t 64"}},
	"bin/ipc-bench latency -n 10000 --rate 2000 --hdr latency.hdr":         {here: true, shorter: []string{"10000", "1000"}},
	"bin/ipc-bench throughput -d 10 --json | tail -1 | jq .latency_us.p99": {here: true, shorter: []string{"-d 10", "-d 0.3"}},
	"bin/ipc-bench fairness -s /tmp/beamline-gateway.sock":                 {here: true, shorter: []string{"fairness", "fairness --hostile flood -d 0.2 --repeats 1"}, verdict: unfair},
	"bin/ipc-bench fairness --hostile flood -d 1 --repeats 3":              {here: true, shorter: []string{"-d 1 --repeats 3", "-d 0.2 --repeats 1"}, verdict: unfair},
	"make fairness":                      {byCI: "make fairness"},
	"make goals":                         {byTest: "tests.TestCommands"},
	"bin/ipc-bench goals --quick --json": {here: true, root: true, shorter: []string{"--json", "--only memory --json"}, verdict: "NOT REACHED"},
	"bin/ipc-bench goals --only flat,loops --rate 2000":                        {here: true, root: true, shorter: []string{"flat,loops", "loops --quick"}, verdict: "NOT REACHED"},
	"make bench-gate BASE=main":                                                {byCI: "make bench-gate"},
	"make bench BENCH_FLAGS=--quick":                                           {byCI: "perf/check"},
	"bin/ipc-bench compare -t 64 -p 256 -d 5 -n 5":                             {byCI: "perf/check"},
	"bin/ipc-bench compare --kinds ping -t 16,64 -w 1,16 --sides gateway,echo": {here: true, root: true, shorter: []string{"16,64 -w 1,16", "4 -w 1 -d 0.2 -n 1"}},
	"bin/ipc-bench compare --full --json=all.json":                             {notRun: "takes an hour: the same as --quick with other sizes"},
	"bin/ipc-bench compare --kinds connect --tls":                              {here: true, root: true, shorter: []string{"--tls", "--tls --sides gateway,direct -d 0.2 -n 1"}},
	"bin/ipc-bench compare --base /tmp/ipc-gateway-old":                        {here: true, root: true, shorter: []string{"/tmp/ipc-gateway-old", "$W/bin/ipc-gateway --kinds ping -t 4 -w 1 --sides gateway -d 0.2 -n 1"}},

	// pprof/README.md
	"make profile": {byTest: "pprof.TestCapture"},
	`pprof/capture.sh --load "-t 64 -w 16 -p 256"`:                                                              {byTest: "pprof.TestCapture"},
	`pprof/capture.sh --gateway "--cpus 1"`:                                                                     {byTest: "pprof.TestCapture"},
	"pprof/capture.sh --probe http://127.0.0.1:8080":                                                            {byTest: "pprof.TestCapture"},
	"curl -s http://127.0.0.1:8080/debug/pprof/":                                                                {here: true},
	"go tool pprof -http 127.0.0.1:0 http://127.0.0.1:8080/debug/pprof/profile":                                 {here: true, shorter: []string{"-http 127.0.0.1:0 http://127.0.0.1:8080/debug/pprof/profile", "-top 'http://127.0.0.1:8080/debug/pprof/profile?seconds=1'"}},
	"go tool pprof -top 'http://127.0.0.1:8080/debug/pprof/block?seconds=5&rate=1'":                             {here: true, shorter: []string{"seconds=5", "seconds=1"}},
	"go tool pprof -tagfocus 'loop=0' -top cpu.pprof":                                                           {here: true},
	`perf record -F 999 -g -p "$(pgrep -f 'ipc-gateway serve')" -- sleep 30`:                                    {notRun: "needs perf, and a kernel that lets one use it; pprof/capture.sh uses it where there is one"},
	"perf report --no-children":                                                                                 {notRun: "needs perf"},
	"make microbench PKG=./codec BENCH=Decode":                                                                  {byCI: "make microbench PKG=./codec BENCH=Decode"},
	"go test -run '^$' -bench Decode -cpuprofile cpu.out -memprofile mem.out -o codec.test ./codec":             {here: true, root: true, shorter: []string{"-cpuprofile cpu.out -memprofile mem.out -o codec.test", "-benchtime 100x -cpuprofile $W/cpu.out -memprofile $W/mem.out -o $W/codec.test"}},
	"go tool pprof -http 127.0.0.1:0 codec.test cpu.out":                                                        {here: true, shorter: []string{"-http 127.0.0.1:0", "-top"}},
	"go tool pprof -sample_index=alloc_objects -top codec.test mem.out":                                         {here: true},
	"GODEBUG=gctrace=1 ipc-gateway serve":                                                                       {here: true, shorter: []string{"serve", "serve --nats-url $NATS"}, until: "msg=serving"},
	"pprof/pgo.sh --try FILE":                                                                                   {byTest: "pprof.TestPGO"},
	"make pgo":                                                                                                  {notRun: "takes minutes, and changes the profile that is committed"},
	"pprof/pgo.sh --measure":                                                                                    {notRun: "takes minutes of a quiet machine"},
	"curl -so cmd/ipc-gateway/default.pgo 'http://127.0.0.1:8080/debug/pprof/profile?seconds=60' && make build": {here: true, shorter: []string{"cmd/ipc-gateway/default.pgo", "default.pgo", "seconds=60", "seconds=1", "make build", "go tool pprof -top default.pgo"}},
}
