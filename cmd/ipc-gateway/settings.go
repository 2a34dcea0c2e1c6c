package main

import (
	"log/slog"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// options is everything that the command serve can be told.
type options struct {
	configFile   string
	engine       engine.Config
	subject      string // of the routes that have none of their own
	control      string // path of the control socket; empty: beside the socket; controlOff: none
	probeAddr    string // host:port, or empty: no probe
	pprof        string // pprofOff, pprofLoopback or pprofAnywhere
	drainTimeout time.Duration
	takeover     bool
	detach       bool
	logLevel     slog.Level
	logFormat    string // "text" or "json"

	given []given // what made these options of the defaults, beside the rules for peers
}

// defaultProbeAddr is a variable for the linker: go build -ldflags "-X main.defaultProbeAddr=0.0.0.0:8080" makes a program for an
// image, where loopback is nobody's but the gateway's. As a default it gives way to a file, which a variable of the image would not.
var defaultProbeAddr = "127.0.0.1:8080"

func defaultOptions() *options {
	return &options{
		engine:       engine.DefaultConfig(),
		subject:      engine.DefaultSubject,
		probeAddr:    defaultProbeAddr,
		pprof:        pprofOff,
		drainTimeout: 30 * time.Second,
		logLevel:     slog.LevelInfo,
		logFormat:    "text",
	}
}

// setting is one thing that serve can be told, by flag, environment variable or file.
type setting struct {
	flag   string // without its dashes; empty: by file only
	env    string
	oldEnv string // the predecessor's variable, or OpenTelemetry's, used where env is not set
	key    string // in the file; empty: the flag's name with underscores
	group  string
	arg    string // what stands for the value in the help
	help   string
	value  value

	// overruledBy is the flag of the common setting that wins over this one of the file when it was
	// given by flag or environment.
	overruledBy string
}

// fileKey returns the setting's key in the configuration file, or "" if a file cannot hold it.
func (s *setting) fileKey() string {
	if s.key == "" && s.flag != "config" {
		return strings.ReplaceAll(s.flag, "-", "_")
	}
	return s.key
}

// needsRestart reports whether the setting counts from the start to the end of a process.
func (s *setting) needsRestart() bool {
	switch s.group {
	case groupSocket, groupLoops, groupNATS, groupAudit:
		return true
	}
	switch s.flag {
	case "config", "max-inflight", "probe-addr", "pprof", "log-format":
		return true
	}
	return false
}

// name is what the setting is called towards people: its key, which most have.
func (s *setting) name() string {
	if key := s.fileKey(); key != "" {
		return key
	}
	return s.flag
}

// Groups of flags in the help, in the order of the settings.
const (
	groupSocket   = "Socket:"
	groupPeers    = "Permissions:"
	groupLoops    = "Event loops:"
	groupLimits   = "Limits:"
	groupRequests = "Requests:"
	groupBreakers = "Circuit breakers:"
	groupNATS     = "NATS:"
	groupAudit    = "Audit log:"
	groupOperate  = "Operation:"
)

// settings lists every setting, bound to the field of o that it fills. They are applied in this
// order: a specific one stands after the common one that it refines.
func (o *options) settings() []setting {
	c, n, u := &o.engine, &o.engine.NATS, &o.engine.Audit
	list := []setting{
		{flag: "config", env: "IPC_CONFIG", group: groupOperate, arg: "FILE", value: textValue(&o.configFile),
			help: "YAML file with these settings: the flag's name with underscores is the key, and routes: and peers: are only there."},

		{flag: "socket", env: "IPC_SOCKET_PATH", oldEnv: "CGW_IPC_SOCKET_PATH", group: groupSocket, arg: "PATH", value: textValue(&c.SocketPath),
			help: "Unix socket that clients connect to; at most 107 bytes."},
		{flag: "socket-mode", env: "IPC_SOCKET_MODE", group: groupSocket, arg: "OCTAL", value: permissionValue(&c.SocketMode),
			help: "Permissions of the socket: who may write to it may open it, and --allow-uid and --allow-gid say who of those may use it."},

		{flag: "control-socket", env: "IPC_CONTROL_SOCKET", group: groupSocket, arg: "PATH", value: controlValue(&o.control),
			help: "Unix socket of the operator's commands (show, kill, drain, reload), for our own user and root; by default the path of --socket with .ctl at its end; off: none."},

		{flag: "allow-uid", env: "IPC_ALLOW_UID", group: groupPeers, arg: "USER,...", value: allowUIDValue(&c.AllowUIDs, &c.AllowAnyone),
			help: "Users, by name or number, whose programs may connect beside the gateway's own user and root; any: everybody who can open the socket."},
		{flag: "allow-gid", env: "IPC_ALLOW_GID", group: groupPeers, arg: "GROUP,...", value: allowGIDValue(&c.AllowGIDs),
			help: "Groups, by name or number, whose members may connect as well."},

		{flag: "cpus", env: "IPC_CPUS", group: groupLoops, arg: "LIST", value: cpusValue(&c.CPUs, &c.Loops),
			help: "CPUs to pin the loops to, one each, as 2,3 or 2-5. Without --loops it also sets the number of loops."},
		{flag: "loops", env: "IPC_LOOPS", group: groupLoops, arg: "N", value: numberValue(&c.Loops),
			help: "Event loops, each a thread with a NATS connection of its own; by default half of the CPUs, at most 8."},

		{flag: "max-connections", env: "IPC_MAX_CONNECTIONS", oldEnv: "CGW_IPC_MAX_CONNECTIONS", group: groupLimits, arg: "N", value: numberValue(&c.MaxConnections),
			help: "Clients at the same time; the one over it is answered OVERLOADED and closed."},
		{flag: "max-inflight", env: "IPC_MAX_INFLIGHT", group: groupLimits, arg: "N", value: numberValue(&c.MaxInflight),
			help: "Requests that wait for NATS at the same time; over it clients are paused, see --pause-max."},
		{flag: "max-inflight-per-connection", env: "IPC_MAX_INFLIGHT_PER_CONNECTION", group: groupLimits, arg: "N", value: numberValue(&c.MaxInflightPerConnection),
			help: "The same for one client."},
		{flag: "max-client-buffer", env: "IPC_MAX_CLIENT_BUFFER", group: groupLimits, arg: "SIZE", value: sizeValue(&c.MaxClientBufferBytes),
			help: "Bytes that may wait for a client that does not read; from half of it on the client is paused, over it closed."},
		{flag: "max-upstream-buffer", env: "IPC_MAX_UPSTREAM_BUFFER", group: groupLimits, arg: "SIZE", value: sizeValue(&c.MaxUpstreamBufferBytes),
			help: "Bytes that may wait for NATS in each loop; from a sixteenth of it on clients are paused, see --pause-max."},

		{flag: "max-jetstream-buffer", env: "IPC_MAX_JETSTREAM_BUFFER", group: groupLimits, arg: "SIZE", value: sizeValue(&c.MaxHeldBytes),
			help: "Bytes of messages that each loop keeps until JetStream has acknowledged them; over it clients are paused, see --pause-max."},
		{flag: "pause-max", env: "IPC_PAUSE_MAX", group: groupLimits, arg: "DURATION", value: durationValue(&c.PauseMax),
			help: "How long a frame may wait for room below these limits, its client not being read meanwhile, before it is answered OVERLOADED; 0: at once."},
		{flag: "client-write-timeout", env: "IPC_CLIENT_WRITE_TIMEOUT", group: groupLimits, arg: "DURATION", value: durationValue(&c.ClientWriteTimeout),
			help: "How long a client that answers wait for may take none of them before it is closed; 0: for ever."},
		{flag: "frame-timeout", env: "IPC_FRAME_TIMEOUT", group: groupLimits, arg: "DURATION", value: durationValue(&c.FrameTimeout),
			help: "How long a client may take to complete a frame before it is closed; 0: for ever."},

		{flag: "subject", env: "IPC_SUBJECT", oldEnv: "CGW_IPC_ROUTER_SUBJECT", group: groupRequests, arg: "SUBJECT", value: everySubjectValue(&o.subject, &c.Routes),
			help: "NATS subject of all three routes: submit, query, cancel. The file can give each its own."},
		{flag: "timeout", env: "IPC_TIMEOUT", oldEnv: "CGW_IPC_TIMEOUT_MS", group: groupRequests, arg: "DURATION", value: everyTimeoutValue(c),
			help: "How long a request may take that names no deadline, unless its route in the file says otherwise."},

		{flag: "jetstream-ack-wait", env: "IPC_JETSTREAM_ACK_WAIT", group: groupRequests, arg: "DURATION", value: durationValue(&c.AckWait),
			help: "How long to wait for JetStream's acknowledgement before the message is sent again, until the request's timeout."},

		{flag: "breaker-threshold", env: "IPC_BREAKER_THRESHOLD", group: groupBreakers, arg: "N", value: numberValue(&c.BreakerThreshold),
			help: "Requests to one subject that must fail in a row, in one loop, for others to be refused for a while; 0: none are."},
		{flag: "breaker-open-time", env: "IPC_BREAKER_OPEN_TIME", group: groupBreakers, arg: "DURATION", value: durationValue(&c.BreakerOpenTime),
			help: "How long they are refused, UNAVAILABLE, before a few are let through as probes."},
		{flag: "breaker-probes", env: "IPC_BREAKER_PROBES", group: groupBreakers, arg: "N", value: numberValue(&c.BreakerProbes),
			help: "Probes that may be in flight at the same time."},
		{flag: "breaker-successes", env: "IPC_BREAKER_SUCCESSES", group: groupBreakers, arg: "N", value: numberValue(&c.BreakerSuccesses),
			help: "Probes that must be answered for all requests to be let through again."},
		{flag: "breaker-min-timeout", env: "IPC_BREAKER_MIN_TIMEOUT", group: groupBreakers, arg: "DURATION", value: durationValue(&c.BreakerMinTimeout),
			help: "Requests with a shorter timeout do not count as failed when it passes."},

		{flag: "nats-url", env: "IPC_NATS_URL", oldEnv: "CGW_IPC_NATS_URL", group: groupNATS, arg: "URL,...", value: listValue(&n.URLs),
			help: "NATS servers, as nats://user:password@host:4222 or tls://host; several separated by commas. Not logged with passwords."},
		{flag: "nats-creds", env: "IPC_NATS_CREDS", group: groupNATS, arg: "FILE", value: textValue(&n.CredsFile),
			help: "Credentials file: user JWT and NKey seed."},
		{flag: "nats-nkey", env: "IPC_NATS_NKEY", group: groupNATS, arg: "FILE", value: textValue(&n.NKeyFile),
			help: "File with an NKey seed."},
		{flag: "nats-ca", env: "IPC_NATS_CA", group: groupNATS, arg: "FILE", value: textValue(&n.CAFile),
			help: "PEM file with the authorities to trust instead of the system's. Implies TLS."},
		{flag: "nats-cert", env: "IPC_NATS_CERT", group: groupNATS, arg: "FILE", value: textValue(&n.CertFile),
			help: "PEM file with our client certificate; goes with --nats-key. Implies TLS."},
		{flag: "nats-key", env: "IPC_NATS_KEY", group: groupNATS, arg: "FILE", value: textValue(&n.KeyFile),
			help: "PEM file with the private key of --nats-cert."},
		{flag: "nats-tls-first", env: "IPC_NATS_TLS_FIRST", group: groupNATS, value: toggleValue(&n.TLSFirst),
			help: "Start with the TLS handshake, for servers that are set to handshake_first."},
		{flag: "nats-name", env: "IPC_NATS_NAME", group: groupNATS, arg: "NAME", value: textValue(&n.Name),
			help: "Name of our connections in the server's list."},
		{flag: "nats-inbox-prefix", env: "IPC_NATS_INBOX_PREFIX", group: groupNATS, arg: "PREFIX", value: textValue(&n.InboxPrefix),
			help: "Subjects below it take the replies; the account must be allowed to subscribe there."},
		{flag: "nats-connect-timeout", env: "IPC_NATS_CONNECT_TIMEOUT", group: groupNATS, arg: "DURATION", value: durationValue(&n.ConnectTimeout),
			help: "Bound of one attempt to connect, TLS included."},
		{flag: "nats-ping-interval", env: "IPC_NATS_PING_INTERVAL", group: groupNATS, arg: "DURATION", value: durationValue(&n.PingInterval),
			help: "How often the server is asked whether it is still there."},
		{flag: "nats-max-pings-out", env: "IPC_NATS_MAX_PINGS_OUT", group: groupNATS, arg: "N", value: numberValue(&n.MaxPingsOut),
			help: "Unanswered pings after which the connection counts as lost."},
		{flag: "nats-reconnect-wait", env: "IPC_NATS_RECONNECT_WAIT", group: groupNATS, arg: "DURATION", value: durationValue(&n.ReconnectWait),
			help: "Pause before all servers are tried again. It doubles, up to eightfold, while none of them can be used."},
		{flag: "nats-reconnect-jitter", env: "IPC_NATS_RECONNECT_JITTER", group: groupNATS, arg: "DURATION", value: durationValue(&n.ReconnectJitter),
			help: "Random time added to that pause, at most this. It grows with the pause."},

		{flag: "audit", env: "IPC_AUDIT", group: groupAudit, arg: "FILE", value: textValue(&u.Path),
			help: "Record every request and its outcome in the segments FILE.00000001, FILE.00000002 and so on; see ipc-gateway audit --help."},
		{flag: "audit-payload", env: "IPC_AUDIT_PAYLOAD", group: groupAudit, arg: "SIZE", value: sizeValue(&u.PayloadBytes),
			help: "Bytes of the headers and the payload of each request to record; 0: none of them."},
		{flag: "audit-on-full", env: "IPC_AUDIT_ON_FULL", group: groupAudit, arg: "POLICY", value: choiceValue(&u.OnFull, "drop", "block", "fail"),
			help: "What becomes of requests that cannot be recorded, as on a full disk. drop: served, and counted in a gap; block: their clients are paused, and after --pause-max refused; fail: refused, UNAVAILABLE."},
		{flag: "audit-ring", env: "IPC_AUDIT_RING", group: groupAudit, arg: "SIZE", value: sizeValue(&u.RingBytes),
			help: "Bytes of records that each loop may be ahead of the disk."},
		{flag: "audit-max-size", env: "IPC_AUDIT_MAX_SIZE", group: groupAudit, arg: "SIZE", value: sizeValue(&u.SegmentBytes),
			help: "Size of a segment."},
		{flag: "audit-max-age", env: "IPC_AUDIT_MAX_AGE", group: groupAudit, arg: "DURATION", value: durationValue(&u.SegmentAge),
			help: "Age at which a segment is closed that is not full; 0: none."},
		{flag: "audit-keep", env: "IPC_AUDIT_KEEP", group: groupAudit, arg: "N", value: numberValue(&u.Keep),
			help: "Closed segments to keep, the oldest are deleted; 0: all."},
		{flag: "audit-keep-age", env: "IPC_AUDIT_KEEP_AGE", group: groupAudit, arg: "DURATION", value: durationValue(&u.KeepAge),
			help: "How long to keep closed segments, the last one until the next one is begun; 0: for ever."},
		{flag: "audit-compress", env: "IPC_AUDIT_COMPRESS", group: groupAudit, value: toggleValue(&u.Compress),
			help: "Compress closed segments with zstd."},
		{flag: "audit-sync", env: "IPC_AUDIT_SYNC", group: groupAudit, arg: "WHEN", value: choiceValue(&u.Sync, "none", "interval", "always"),
			help: "When to force what was written to the disk. none: when the kernel likes; interval: each --audit-sync-interval; always: after each write."},
		{flag: "audit-sync-interval", env: "IPC_AUDIT_SYNC_INTERVAL", group: groupAudit, arg: "DURATION", value: durationValue(&u.SyncEvery),
			help: "How often, with --audit-sync interval."},

		{flag: "drain-timeout", env: "IPC_DRAIN_TIMEOUT", group: groupOperate, arg: "DURATION", value: drainTimeoutValue(&o.drainTimeout),
			help: "How long requests in flight may take to finish after SIGTERM or SIGINT; 0: they are given up at once."},
		{flag: "takeover", env: "IPC_TAKEOVER", group: groupOperate, value: toggleValue(&o.takeover),
			help: "If a gateway serves the socket, take it over with all its clients: no connect fails and no request is lost; the other one ends by itself."},
		{flag: "detach", env: "IPC_DETACH", group: groupOperate, value: toggleValue(&o.detach),
			help: "Serve in a process of its own, and return when that serves and, with --takeover, the other gateway has handed over: for ExecReload= of systemd, and scripts."},
		{flag: "probe-addr", env: "IPC_PROBE_ADDR", group: groupOperate, arg: "HOST:PORT", value: addressValue(&o.probeAddr),
			help: "Where /health, /ready and /metrics are served; off: nowhere."},
		{flag: "pprof", env: "IPC_PPROF", group: groupOperate, value: pprofValue(&o.pprof),
			help: "Serve profiles at /debug/pprof/ of the probe, if that is on loopback; --pprof=anywhere: on any address. off: not at all."},
		{flag: "trace-sample", env: "IPC_TRACE_SAMPLE", oldEnv: otelSampler, group: groupOperate, arg: "SHARE", value: shareValue(&c.TraceSample),
			help: "Share of the requests without a traceparent that begin a trace, 0 to 1. Spans go where the variables OTEL_EXPORTER_OTLP_... say."},
		{flag: "log-level", env: "IPC_LOG_LEVEL", group: groupOperate, arg: "LEVEL", value: levelValue(&o.logLevel),
			help: "Least level that is logged: debug, info, warn or error."},
		{flag: "log-format", env: "IPC_LOG_FORMAT", group: groupOperate, arg: "FORMAT", value: choiceValue(&o.logFormat, "text", "json"),
			help: "Format of the log on standard error: text or json."},
	}
	for _, r := range []struct {
		name  string
		route *engine.Route
	}{{"submit", &c.Routes.Submit}, {"query", &c.Routes.Query}, {"cancel", &c.Routes.Cancel}} {
		key := "routes." + r.name + "."
		list = append(list,
			setting{key: key + "subject", value: textValue(&r.route.Subject), overruledBy: "subject"},
			setting{key: key + "mode", value: modeValue(&r.route.Mode)},
			setting{key: key + "timeout", value: durationValue(&r.route.Timeout)},
		)
	}
	return append(list, setting{key: "routes.publish.jetstream", value: listValue(&c.Routes.JetStream)})
}
