package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aigroup/ipc-gateway/control"
)

// showCommand prints what a running gateway knows of itself.
type showCommand struct {
	controlFlags
	What string `arg:"" enum:"status,clients,links,routes,breakers,config,errors" help:"What to show: one of ${enum}."`
	JSON bool   `name:"json" env:"IPC_SHOW_JSON" help:"Print JSON, for programs, instead of a table."`
	Sort string `enum:"${clientOrders}" default:"id" env:"IPC_SHOW_SORT" help:"Order of clients, one of ${enum} [${default}]; what is a quantity comes with the greatest first."`
}

// Help is what "show --help" says before the flags.
func (s *showCommand) Help() string {
	return `Asks a running gateway, also while it drains and without NATS, for its

    status   is it ready, and how much there is of everything
    clients  who is connected: user, process, requests so far and in flight, bytes; an id for the command kill
    links    the connection of each event loop to NATS: server, since when, round trip, last error
    routes   where the frames of each type go
    breakers the subjects on which requests fail, and whether their circuit breaker is open
    config   every setting that counts now, and where it comes from; passwords are masked
    errors   how often clients were answered with each error, and the latest of them

Examples:

    ipc-gateway show clients --sort inflight
    ipc-gateway show errors --json | jq '.recent[0]'

Exit codes: 0 shown, 1 no gateway, or an event loop does not answer (what the others say is shown).`
}

// table is what can be shown: read from path, shown to people by print.
type table interface {
	path() string
	print(w io.Writer)
}

// Run prints the table or the JSON.
func (s *showCommand) Run(a *app) error {
	t := map[string]table{
		"status": &statusTable{}, "clients": &clientTable{}, "links": &linkTable{},
		"routes": &routeTable{}, "breakers": &breakerTable{}, "config": &configTable{}, "errors": &errorTable{},
	}[s.What]
	err := s.call(a, http.MethodGet, t.path(), t)
	var told *controlError
	if err != nil && !errors.As(err, &told) {
		return err
	}
	if list, ok := t.(*clientTable); ok {
		slices.SortStableFunc(list.Clients.Clients, clientOrders[s.Sort])
	}
	if s.JSON {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return errors.Join(encoder.Encode(t), err)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	t.print(w)
	return errors.Join(w.Flush(), err)
}

// row writes the cells of a line.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if cell == "" {
			cell = "-"
		}
		end := "\t"
		if i == len(cells)-1 {
			end = "\n"
		}
		fmt.Fprint(w, cell, end)
	}
}

type statusTable struct{ control.Status }

func (*statusTable) path() string { return "/v1/status" }

func (t *statusTable) print(w io.Writer) {
	state := "ready"
	switch {
	case t.Draining:
		state = "draining"
	case !t.Ready:
		state = "not ready: " + t.Reason
	}
	row(w, "version", t.Version)
	row(w, "pid", t.PID)
	row(w, "uptime", seconds(t.UptimeSeconds))
	row(w, "state", state)
	row(w, "links", fmt.Sprintf("%d of %d are connected to NATS", t.LinksUp, t.Loops))
	row(w, "clients", t.Clients)
	row(w, "in flight", t.Inflight)
	row(w, "waiting", fmt.Sprintf("%s for clients, %s for NATS", bytesText(t.ClientBytesWaiting), bytesText(t.NATSBytesWaiting)))
	row(w, "requests", t.RequestsTotal)
	row(w, "responses", t.ResponsesTotal)
}

type clientTable struct{ control.Clients }

func (*clientTable) path() string { return "/v1/clients" }

func (t *clientTable) print(w io.Writer) {
	row(w, "ID", "LOOP", "USER", "GID", "PID", "PROGRAM", "AGE", "IDLE", "PROTOCOL", "INFLIGHT", "REQUESTS", "IN", "OUT", "WAITING", "STATE")
	for i := range t.Clients.Clients {
		c := &t.Clients.Clients[i]
		protocol := ""
		if c.Protocol != 0 {
			protocol = fmt.Sprint(c.Protocol)
		}
		row(w, c.ID, c.Loop, userText(c.UID, c.User), c.GID, c.PID, printable(c.Program), seconds(c.AgeSeconds), seconds(c.IdleSeconds), protocol,
			c.Inflight, c.Requests, bytesText(c.BytesIn), bytesText(c.BytesOut), bytesText(uint64(c.BytesWaiting)), clientState(c))
	}
}

func clientState(c *control.Client) string {
	switch {
	case c.Closing:
		return "closing"
	case len(c.Paused) > 0:
		return "paused: " + strings.Join(c.Paused, ", ")
	}
	return "open"
}

// printable takes out of a name, which any program chooses for itself, what could drive a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, name)
}

// clientOrders are the values of --sort.
var clientOrders = map[string]func(a, b control.Client) int{
	"id":       func(a, b control.Client) int { return cmp.Compare(a.ID, b.ID) },
	"loop":     func(a, b control.Client) int { return cmp.Compare(a.Loop, b.Loop) },
	"uid":      func(a, b control.Client) int { return cmp.Compare(a.UID, b.UID) },
	"pid":      func(a, b control.Client) int { return cmp.Compare(a.PID, b.PID) },
	"program":  func(a, b control.Client) int { return cmp.Compare(a.Program, b.Program) },
	"age":      func(a, b control.Client) int { return cmp.Compare(b.AgeSeconds, a.AgeSeconds) },
	"idle":     func(a, b control.Client) int { return cmp.Compare(b.IdleSeconds, a.IdleSeconds) },
	"inflight": func(a, b control.Client) int { return cmp.Compare(b.Inflight, a.Inflight) },
	"requests": func(a, b control.Client) int { return cmp.Compare(b.Requests, a.Requests) },
	"in":       func(a, b control.Client) int { return cmp.Compare(b.BytesIn, a.BytesIn) },
	"out":      func(a, b control.Client) int { return cmp.Compare(b.BytesOut, a.BytesOut) },
	"waiting":  func(a, b control.Client) int { return cmp.Compare(b.BytesWaiting, a.BytesWaiting) },
}

type linkTable struct{ control.Links }

func (*linkTable) path() string { return "/v1/links" }

func (t *linkTable) print(w io.Writer) {
	row(w, "LOOP", "STATE", "SINCE", "SERVER", "NAME", "RECONNECTS", "INFLIGHT", "WAITING", "ROUND TRIP", "LAST ERROR")
	for i := range t.Links.Links {
		l := &t.Links.Links[i]
		state, roundTrip := "down", ""
		if l.Up {
			state = "up"
		}
		if l.RoundTripSeconds > 0 {
			roundTrip = seconds(l.RoundTripSeconds)
		}
		row(w, l.Loop, state, clock(l.Since), l.Server, printable(l.ServerName), l.Reconnects, l.Inflight, bytesText(l.BytesWaiting), roundTrip, printable(l.LastError))
	}
}

type routeTable struct{ control.Routes }

func (*routeTable) path() string { return "/v1/routes" }

func (t *routeTable) print(w io.Writer) {
	row(w, "TYPE", "SUBJECT", "MODE", "TIMEOUT")
	for _, r := range t.Routes.Routes {
		row(w, r.Type, cmp.Or(r.Subject, "(the frame's)"), r.Mode, seconds(r.TimeoutSeconds))
	}
}

type breakerTable struct{ control.Breakers }

func (*breakerTable) path() string { return "/v1/breakers" }

func (t *breakerTable) print(w io.Writer) {
	row(w, "SUBJECT", "LOOP", "STATE", "FAILURES", "UNTIL")
	for i := range t.Breakers.Breakers {
		b := &t.Breakers.Breakers[i]
		until := ""
		if b.Until != nil {
			until = clock(*b.Until)
		}
		row(w, printable(cmp.Or(b.Subject, "(not known)")), b.Loop, b.State, b.Failures, until)
	}
}

type configTable struct{ control.Settings }

func (*configTable) path() string { return "/v1/config" }

func (t *configTable) print(w io.Writer) {
	row(w, "SETTING", "VALUE", "SOURCE")
	for _, s := range t.Settings.Settings {
		row(w, s.Name, s.Value, s.Source)
	}
}

type errorTable struct{ control.Errors }

func (*errorTable) path() string { return "/v1/errors" }

func (t *errorTable) print(w io.Writer) {
	row(w, "CODE", "COUNT")
	for _, c := range t.Counts {
		if c.Count > 0 {
			row(w, c.Code, c.Count)
		}
	}
	if len(t.Recent) == 0 {
		return
	}
	fmt.Fprintln(w)
	row(w, "AT", "LOOP", "CLIENT", "USER", "TYPE", "CODE")
	for _, e := range t.Recent {
		row(w, clock(e.At), e.Loop, e.Client, userText(e.UID, e.User), e.Type, e.Code)
	}
}

func userText(uid uint32, name string) string {
	if name == "" {
		return fmt.Sprint(uid)
	}
	return fmt.Sprintf("%s(%d)", name, uid)
}

// clock shows a moment to the millisecond.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// seconds shows a duration with about three digits.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// bytesText shows a number of bytes with about three digits.
func bytesText(n uint64) string {
	const step = 1024
	value, unit := float64(n), 0
	for value >= step && unit < 4 {
		value /= step
		unit++
	}
	if unit == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%.1f%s", value, [...]string{"", "KiB", "MiB", "GiB", "TiB"}[unit])
}
