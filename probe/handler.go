package probe

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/aigroup/ipc-gateway/engine"
)

// aliveWait bounds the wait of /health for the event loops. A pass of a loop takes milliseconds at
// most; one that has not turned for this long is stuck.
const aliveWait = 2 * time.Second

// allowedMethods is the Allow header of every path.
const allowedMethods = http.MethodGet + ", " + http.MethodHead

// metricsBytes is the capacity to start an exposition with: a little more than an idle gateway's.
const metricsBytes = 64 << 10

// Source is what the probe reads; [engine.Gateway] is one. Its methods may be called from any
// number of goroutines.
type Source interface {
	// Alive returns nil once every event loop has turned since the call, or an error that says which
	// has not when ctx ends. It returns soon after that in any case.
	Alive(ctx context.Context) error
	// Ready returns nil while requests are served, else the reason why they are not.
	Ready() error
	// Stats returns the numbers of this moment.
	Stats() engine.Stats
	// Clients, Links and Breakers tell about each one of them. They return what there is when ctx ends, and an error that
	// says which event loops have not answered.
	Clients(ctx context.Context) ([]engine.ClientInfo, error)
	Links(ctx context.Context) []engine.LinkInfo
	Breakers(ctx context.Context) ([]engine.BreakerInfo, error)
}

// Option changes what [NewHandler] returns.
type Option func(*handler)

// WithVersion sets the label "version" of ipc_build_info; without it that is "unknown".
func WithVersion(version string) Option {
	return func(h *handler) { h.version = version }
}

// WithProfiles serves /debug/pprof/ as well: to this machine, or to anyone.
func WithProfiles(anyone bool) Option {
	return func(h *handler) { h.profiles = &profiles{anyone: anyone} }
}

type handler struct {
	source   Source
	version  string
	started  time.Time
	families []family
	statuses statusCache
	profiles *profiles // nil: none are served
}

// NewHandler returns a handler of /, /status.json, /health, /ready and /metrics that reads source.
func NewHandler(source Source, options ...Option) http.Handler {
	h := &handler{source: source, version: "unknown", started: time.Now(), statuses: statusCache{ageMax: statusAgeMax}}
	for _, option := range options {
		option(h)
	}
	h.families = slices.Concat(gatewayFamilies, []family{buildInfo(h.version)})
	// A switch of the whole library. Without it the Go and process metrics have neither HELP nor TYPE.
	metrics.ExposeMetadata(true)
	return h
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.URL.Path, profilesPath) {
		h.serveProfile(w, r)
		return
	}
	var serve func(http.ResponseWriter, *http.Request)
	switch r.URL.Path {
	case "/health":
		serve = h.health
	case "/ready":
		serve = h.ready
	case "/metrics":
		serve = h.metrics
	case "/":
		serve = h.page
	case "/status.json":
		serve = h.serveStatus
	default:
		h.notFound(w)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", allowedMethods)
		http.Error(w, "Only read from here: "+allowedMethods, http.StatusMethodNotAllowed)
		return
	}
	serve(w, r)
}

func (h *handler) notFound(w http.ResponseWriter) {
	there := "Nothing is at this path. There are:\n/\n/status.json\n/health\n/ready\n/metrics"
	if h.profiles != nil {
		there += "\n" + profilesPath
	}
	http.Error(w, there, http.StatusNotFound)
}

// serveProfile serves what is below profilesPath, if that is wanted.
func (h *handler) serveProfile(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.profiles == nil:
		http.Error(w, "Profiles are switched off: start the gateway with --pprof", http.StatusNotFound)
	case !h.profiles.anyone && !fromThisMachine(r):
		http.Error(w, "Profiles are for this machine only: start the gateway with --pprof=anywhere", http.StatusForbidden)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Profiles are taken by "+http.MethodGet, http.StatusMethodNotAllowed)
	default:
		h.profiles.serve(w, r)
	}
}

func (h *handler) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), aliveWait)
	defer cancel()
	writeVerdict(w, "Alive", h.source.Alive(ctx))
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	writeVerdict(w, "Ready", h.source.Ready())
}

// metrics answers in the format and the coding that the scraper prefers.
func (h *handler) metrics(w http.ResponseWriter, r *http.Request) {
	text, contentType := h.exposition(), textType
	if wantsOpenMetrics(r.Header) {
		text, contentType = appendOpenMetrics(make([]byte, 0, len(text)+metricsBytes/8), text), openMetricsType
	}
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	if acceptsGzip(r.Header) {
		w.Header().Set("Content-Encoding", "gzip")
		text = compress(text)
	}
	write(w, contentType, http.StatusOK, text)
}

// exposition returns all metrics in the text format.
func (h *handler) exposition() []byte {
	stats := h.source.Stats()
	text := make([]byte, 0, metricsBytes)
	for i := range h.families {
		text = h.families[i].append(text, &stats)
	}
	return appendProcess(text)
}

// writeVerdict answers with message, or with 503 and the reason if there is one.
func writeVerdict(w http.ResponseWriter, message string, reason error) {
	code := http.StatusOK
	verdict := struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	}{"healthy", message}
	if reason != nil {
		code = http.StatusServiceUnavailable
		verdict.Status, verdict.Message = "unhealthy", reason.Error()
	}
	body, err := json.Marshal(verdict)
	if err != nil {
		panic(err) // two strings always have a JSON form
	}
	write(w, "application/json", code, body)
}

// write sends a whole answer. The length is given so that HEAD, which sends no body, has it as well.
func write(w http.ResponseWriter, contentType string, code int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that left gets no answer, and nobody else minds
}
