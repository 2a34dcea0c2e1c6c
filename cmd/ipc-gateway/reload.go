package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/aigroup/ipc-gateway/control"
	"github.com/aigroup/ipc-gateway/engine"
)

// reload reads the settings again, from the same flags, the environment and the file, and makes the gateway
// go on with those that it can change while it runs. If anything is wrong with any of them nothing changes. It logs how
// it went. After engine.ErrReloadPending the new ones count.
func (s *service) reload(ctx context.Context) (control.Reloaded, error) {
	reloaded, err := s.tryReload(ctx)
	changed, needRestart := strings.Join(reloaded.Changed, ","), strings.Join(reloaded.NeedRestart, ",")
	if errors.Is(err, engine.ErrReloadPending) {
		s.log.Warn("configuration reloaded, but an event loop does not go by it yet", "changed", changed, "need_restart", needRestart, "reason", err)
		return reloaded, err
	}
	if err != nil {
		s.log.Error("the configuration could not be reloaded", "error", err)
		return reloaded, err
	}
	s.log.Info("configuration reloaded", "changed", changed, "need_restart", needRestart)
	return reloaded, nil
}

func (s *service) tryReload(ctx context.Context) (reloaded control.Reloaded, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return reloaded, errors.New("the gateway is stopping: it takes no new settings")
	}
	defer s.notify.reloading()()
	read, problems := s.app.configure(s.flags)
	if len(problems) > 0 {
		return reloaded, fmt.Errorf("wrong settings, nothing was changed:\n  %s", strings.Join(problems, "\n  "))
	}
	s.passed.use(read)
	next := s.options.follow(read)
	next.engine.Logger = s.log
	if err := s.tracing.use(s.app, next); err != nil {
		return reloaded, err
	}
	_, err = s.daemon.Gateway().Reload(ctx, next.engine)
	if err != nil && !errors.Is(err, engine.ErrReloadPending) {
		return reloaded, err
	}
	reloaded = control.Reloaded{Changed: differing(s.options, next), NeedRestart: differing(next, read)}
	s.level.Set(next.logLevel)
	s.options = next
	return reloaded, err
}

// follow returns the options of a gateway that runs by o and is told read: the settings that need a restart
// are those of o.
func (o *options) follow(read *options) *options {
	table := defaultOptions().settings()
	var values []given
	for i := range table {
		from := read
		if table[i].needsRestart() {
			from = o
		}
		if at := slices.IndexFunc(from.given, func(v given) bool { return v.index == i }); at >= 0 {
			values = append(values, from.given[at])
		}
	}
	next, _ := assemble(values) // each text was read before
	next.engine.Peers, next.given = read.engine.Peers, values
	return next
}

// differing names the settings that two options have different values for, in the order of the settings.
func differing(a, b *options) (names []string) {
	before, after := a.settings(), b.settings()
	for i := range before {
		if before[i].value.show() != after[i].value.show() {
			names = append(names, before[i].name())
		}
	}
	if !reflect.DeepEqual(a.engine.Peers, b.engine.Peers) {
		names = append(names, peersKey)
	}
	return names
}
