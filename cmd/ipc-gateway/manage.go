package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aigroup/ipc-gateway/control"
)

// killCommand closes one client.
type killCommand struct {
	controlFlags
	Client uint64 `arg:"" help:"Id of the client, as \"show clients\" shows it."`
}

// Help is what "kill --help" says before the flags.
func (k *killCommand) Help() string {
	return `Closes the connection of a client at once: its requests in flight are abandoned, and answers that it has not taken are lost. What reached NATS stays there. The client may connect again; a rule in peers with refuse: true keeps it out.

Example:

    ipc-gateway show clients --sort inflight
    ipc-gateway kill 17

Exit codes: 0 closed, 1 no such client, or no gateway.`
}

// Run closes the client.
func (k *killCommand) Run(a *app) error {
	var killed control.Killed
	if err := k.call(a, http.MethodPost, fmt.Sprintf("/v1/kill?client=%d", k.Client), &killed); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "client %d is closed\n", killed.Client)
	return nil
}

// reloadCommand makes a gateway read its settings again.
type reloadCommand struct {
	controlFlags
}

// Help is what "reload --help" says before the flags.
func (r *reloadCommand) Help() string {
	return `Makes a running gateway read its file again, with the flags and the environment that it was started with. Routes, limits, permissions, drain_timeout and log_level count at once; requests in flight are not touched. Settings that need a restart are named. If anything is wrong nothing changes, and every problem is named. SIGHUP does the same.

Exit codes: 0 done, 1 wrong settings, an event loop that does not turn (the new settings count all the same), or no gateway.`
}

// Run prints what has changed, and what waits for a restart.
func (r *reloadCommand) Run(a *app) error {
	var reloaded control.Reloaded
	if err := r.call(a, http.MethodPost, "/v1/reload", &reloaded); err != nil {
		return err
	}
	changed := "nothing has changed"
	if len(reloaded.Changed) > 0 {
		changed = "changed: " + strings.Join(reloaded.Changed, ", ")
	}
	fmt.Fprintln(a.stdout, changed)
	if len(reloaded.NeedRestart) > 0 {
		fmt.Fprintf(a.stdout, "these wait for a restart: %s\n", strings.Join(reloaded.NeedRestart, ", "))
	}
	return nil
}

// drainCommand shuts a gateway down gracefully.
type drainCommand struct {
	controlFlags
	NoWait bool `env:"IPC_DRAIN_NO_WAIT" help:"Begin the shutdown and do not wait for its end."`
}

// Help is what "drain --help" says before the flags.
func (d *drainCommand) Help() string {
	return `Ends a gateway as SIGTERM does: no more clients are accepted, new requests are answered SHUTTING_DOWN, what is in flight may finish for --drain-timeout of serve, then the process ends. The command shows how it goes, and returns when the gateway is gone.

Exit codes: 0 ended, or with --no-wait begun; 1 requests in flight had to be given up, or no gateway.`
}

// Run begins the shutdown, and prints a line whenever its state has changed.
func (d *drainCommand) Run(a *app) error {
	if d.NoWait {
		var now control.Status
		err := d.call(a, http.MethodPost, "/v1/drain", &now)
		if err == nil {
			fmt.Fprintf(a.stdout, "gateway %d shuts down: %d clients, %d requests in flight\n", now.PID, now.Clients, now.Inflight)
		}
		return err
	}
	response, err := d.open(context.Background(), a, http.MethodPost, "/v1/drain?wait=true")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return d.follow(a, response)
}

// follow prints the progress of a shutdown.
func (d *drainCommand) follow(a *app, response *http.Response) error {
	lines := json.NewDecoder(response.Body)
	shown := ""
	for {
		var now control.Progress
		switch err := lines.Decode(&now); {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the gateway ended at once, without saying whether all was answered: see its log")
		case err != nil:
			return fmt.Errorf("waiting for the gateway's end: %w", err)
		case response.StatusCode >= http.StatusBadRequest:
			return &controlError{now.Error}
		case now.Done && now.Error != "":
			return fmt.Errorf("gateway %d has ended: %s", now.PID, now.Error)
		case now.Done:
			fmt.Fprintf(a.stdout, "gateway %d has ended\n", now.PID)
			return nil
		}
		line := fmt.Sprintf("gateway %d shuts down: %d clients, %d requests in flight, %d bytes wait for clients, %d for NATS",
			now.PID, now.Clients, now.Inflight, now.ClientBytesWaiting, now.NATSBytesWaiting)
		if line != shown {
			fmt.Fprintln(a.stdout, line)
		}
		shown = line
	}
}
