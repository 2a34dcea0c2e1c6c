package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/client"
	"github.com/aigroup/ipc-gateway/cmd/internal/daemon"
	"github.com/aigroup/ipc-gateway/engine"
)

// gate is a log that does not take what a loop says when a client is killed until it is opened.
type gate struct {
	held chan struct{} // closed: the loop waits
	open chan struct{} // closed: it is taken
}

func (g *gate) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("closed by the operator")) {
		close(g.held)
		<-g.open
	}
	return len(p), nil
}

// Goal: settings that count although an event loop does not turn in time count as a whole: what is shown is what the log and the gateway
// go by. Method: a log that does not take what a loop says holds it.
func TestReloadWithALoopThatDoesNotTurn(t *testing.T) {
	log := &gate{held: make(chan struct{}), open: make(chan struct{})}
	path := filepath.Join(t.TempDir(), "gw.sock")
	flags := map[string]string{"config": configFileWith(t, "log_level: warn\n"), "socket": path, "loops": "1", "nats-url": "nats://127.0.0.1:1"}
	level, quiet := &slog.LevelVar{}, slog.New(slog.DiscardHandler)
	level.Set(slog.LevelWarn)
	s := &service{app: &app{lookupEnv: lookup(nil), stderr: io.Discard}, flags: flags, level: level, log: quiet, notify: &notifier{log: quiet}, options: configured(t, flags, nil)}
	s.options.engine.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	if s.daemon, err = daemon.Start(s.options.engine, nil, "test"); err != nil {
		t.Fatal(err)
	}
	gateway := s.daemon.Gateway()
	conn, err := client.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, func() error {
		if gateway.Stats().Connections == 0 {
			return errors.New("the client is not there")
		}
		return nil
	})
	killed := make(chan error, 1)
	go func() { killed <- gateway.Kill(t.Context(), 1) }()
	<-log.held

	configWith(t, flags["config"], "log_level: debug\nmax_connections: 7\n")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	reloaded, err := s.reload(short)
	if !errors.Is(err, engine.ErrReloadPending) || fmt.Sprint(reloaded.Changed) != "[max_connections log_level]" {
		t.Errorf("reload: %+v, %v", reloaded, err)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("the log's level is %v", level.Level())
	}
	wantAll(t, fmt.Sprint(s.settings()), "{log_level debug ", "{max_connections 7 ")
	if got := gateway.Config().MaxConnections; got != 7 {
		t.Errorf("at most %d connections", got)
	}

	close(log.open)
	if err := <-killed; err != nil {
		t.Error(err)
	}
	if err := s.daemon.Stop(0); err != nil {
		t.Error(err)
	}
}
