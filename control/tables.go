package control

import (
	"context"
	"errors"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/internal/program"
	"github.com/aigroup/ipc-gateway/upstream"
)

// Partial is the error of an answer that holds only a part: some loops did not give theirs.
type Partial struct {
	Error string `json:"error,omitempty"`
}

// Clients is the answer of /v1/clients.
type Clients struct {
	Clients []Client `json:"clients"`
	Partial
}

// Client is a client that is connected. Requests and bytes are sums since it connected.
type Client struct {
	ID           uint64   `json:"id"`
	Loop         int      `json:"loop"`
	UID          uint32   `json:"uid"`
	User         string   `json:"user,omitempty"` // empty: the uid has no name
	GID          uint32   `json:"gid"`
	PID          int32    `json:"pid"`               // 0: of a PID namespace that the gateway does not see
	Program      string   `json:"program,omitempty"` // empty: the process that connected has ended
	Rule         string   `json:"rule"`              // for peers that it is under
	AgeSeconds   float64  `json:"age_seconds"`
	IdleSeconds  float64  `json:"idle_seconds"` // since bytes last went either way
	Protocol     byte     `json:"protocol"`     // version of its last frame; 0: it has sent none
	Inflight     int      `json:"inflight"`
	Requests     uint64   `json:"requests"`
	BytesIn      uint64   `json:"bytes_in"`
	BytesOut     uint64   `json:"bytes_out"`
	BytesWaiting int      `json:"bytes_waiting"`    // for it to take
	Paused       []string `json:"paused,omitempty"` // why nothing is read from it at the moment, as in the metrics
	Closing      bool     `json:"closing"`          // it is closed once it is answered
}

func (s *Server) clients(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), loopWait)
	defer cancel()
	infos, err := s.Gateway.Clients(ctx)
	list := Clients{Clients: make([]Client, len(infos))}
	names := userNames{}
	for i := range infos {
		c := &infos[i]
		list.Clients[i] = Client{
			ID: c.ID, Loop: c.Loop, UID: c.UID, User: names.of(c.UID), GID: c.GID, PID: c.PID, Program: program.Name(c.PID), Rule: c.Rule,
			AgeSeconds: c.Age.Seconds(), IdleSeconds: c.Idle.Seconds(), Protocol: c.Version, Inflight: c.Inflight, Requests: c.Requests,
			BytesIn: c.BytesIn, BytesOut: c.BytesOut, BytesWaiting: c.Waiting, Paused: c.Paused, Closing: c.Closing,
		}
	}
	answerPart(w, &list, &list.Partial, err)
}

// answerPart answers with v, which part is in. With err it is an error that holds what there is.
func answerPart(w http.ResponseWriter, v any, part *Partial, err error) {
	status := http.StatusOK
	if err != nil {
		status, part.Error = http.StatusServiceUnavailable, loopError(err)
	}
	answer(w, status, v)
}

// loopError says what to do about an event loop that does not answer.
func loopError(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", ", ") + ": see /health of the probe and the log; if this stays so, restart the gateway"
}

// userNames remembers the names of users for one answer. A uid without a name has the empty one.
type userNames map[uint32]string

func (n userNames) of(uid uint32) string {
	name, known := n[uid]
	if !known {
		if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
			name = u.Username
		}
		n[uid] = name
	}
	return name
}

func (s *Server) kill(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("client"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, "client=%q is not an id: want the number that \"ipc-gateway show clients\" shows", r.URL.Query().Get("client"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), loopWait)
	defer cancel()
	switch err := s.Gateway.Kill(ctx, id); {
	case errors.Is(err, engine.ErrNoClient):
		fail(w, http.StatusNotFound, "client %d is not connected: \"ipc-gateway show clients\" lists who is", id)
	case err != nil:
		fail(w, http.StatusServiceUnavailable, "client %d may still be connected: %s", id, loopError(err))
	default:
		answer(w, http.StatusOK, Killed{id})
	}
}

// Killed is the answer of /v1/kill.
type Killed struct {
	Client uint64 `json:"killed"`
}

// Links is the answer of /v1/links.
type Links struct {
	Links []Link `json:"links"`
}

// Link is a loop's connection to NATS. Of the server it tells the one that it is connected to, or was last.
type Link struct {
	Loop             int        `json:"loop"`
	Up               bool       `json:"up"`
	Since            time.Time  `json:"since"`            // since when it is up, or down
	Server           string     `json:"server,omitempty"` // host:port
	ServerName       string     `json:"server_name,omitempty"`
	ServerID         string     `json:"server_id,omitempty"`
	Reconnects       uint64     `json:"reconnects"`
	Inflight         uint64     `json:"inflight"`
	BytesWaiting     uint64     `json:"bytes_waiting"`                // for NATS
	RoundTripSeconds float64    `json:"round_trip_seconds,omitempty"` // of a PING just now; 0: none came back
	LastError        string     `json:"last_error,omitempty"`         // while it is down: why
	LastErrorAt      *time.Time `json:"last_error_at,omitempty"`
}

func (s *Server) links(w http.ResponseWriter, r *http.Request) {
	infos := s.Gateway.Links(r.Context())
	list := Links{Links: make([]Link, len(infos))}
	for i := range infos {
		l := &infos[i]
		list.Links[i] = Link{
			Loop: l.Loop, Up: l.Up, Since: l.Since, Server: upstream.RedactURL(l.Server), ServerName: l.ServerName, ServerID: l.ServerID,
			Reconnects: l.Reconnects, Inflight: l.Inflight, BytesWaiting: l.Waiting, RoundTripSeconds: l.RoundTrip.Seconds(), LastError: l.LastError,
		}
		if l.LastError != "" {
			list.Links[i].LastErrorAt = &l.LastErrorAt
		}
	}
	answer(w, http.StatusOK, list)
}

// Routes is the answer of /v1/routes.
type Routes struct {
	Routes []Route `json:"routes"`
}

// Route says where the frames of a type go.
type Route struct {
	Type           string  `json:"type"`
	Subject        string  `json:"subject,omitempty"` // may have wildcards for PUBLISH; empty: that of the frame
	Mode           string  `json:"mode"`
	TimeoutSeconds float64 `json:"timeout_seconds"` // of frames that name none
}

func (s *Server) routes(w http.ResponseWriter, _ *http.Request) {
	c := s.Gateway.Config()
	route := func(name string, r engine.Route) Route {
		return Route{name, r.Subject, r.Mode.String(), r.Timeout.Seconds()}
	}
	list := []Route{
		route("TASK_SUBMIT", c.Routes.Submit), route("TASK_QUERY", c.Routes.Query), route("TASK_CANCEL", c.Routes.Cancel),
		route("REQUEST", engine.Route{Mode: engine.ModeRequest, Timeout: c.Timeout}),
	}
	for _, pattern := range c.Routes.JetStream {
		list = append(list, route("PUBLISH", engine.Route{Subject: pattern, Mode: engine.ModeJetStream, Timeout: c.Timeout}))
	}
	list = append(list, route("PUBLISH", engine.Route{Mode: engine.ModePublish, Timeout: c.Timeout}))
	answer(w, http.StatusOK, Routes{list})
}

// Settings is the answer of /v1/config.
type Settings struct {
	Settings []Setting `json:"settings"`
}

// Setting is one setting that counts now. Secrets are masked.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // as "flag --loops", "key loops in gateway.yaml:3", "default"
}

func (s *Server) config(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Settings{s.Settings()})
}

// Errors is the answer of /v1/errors.
type Errors struct {
	Counts []ErrorCount  `json:"counts"` // since the start, of every code
	Recent []RecentError `json:"recent"` // the latest first
	Partial
}

// ErrorCount says how often clients were answered with an error.
type ErrorCount struct {
	Code  string `json:"code"`
	Count uint64 `json:"count"`
}

// RecentError is an error that a client was answered with.
type RecentError struct {
	At     time.Time `json:"at"`
	Loop   int       `json:"loop"`
	Client uint64    `json:"client"` // it may have gone
	UID    uint32    `json:"uid"`
	User   string    `json:"user,omitempty"`
	Type   string    `json:"type"` // of the frame, as in the metrics
	Code   string    `json:"code"`
}

func (s *Server) errors(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), loopWait)
	defer cancel()
	recent, err := s.Gateway.RecentErrors(ctx)
	list := Errors{Counts: []ErrorCount{}, Recent: make([]RecentError, len(recent))}
	stats := s.Gateway.Stats()
	for i := 1; i < engine.CodeCount; i++ { // 0 is OK
		list.Counts = append(list.Counts, ErrorCount{engine.CodeLabels[i], stats.Responses[i]})
	}
	names := userNames{}
	for i, e := range recent {
		list.Recent[i] = RecentError{At: e.At, Loop: e.Loop, Client: e.Client, UID: e.UID, User: names.of(e.UID), Type: e.Type, Code: e.Code}
	}
	answerPart(w, &list, &list.Partial, err)
}
