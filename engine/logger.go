package engine

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// gnetLogger leads gnet's messages into slog. What gnet tells as news is detail here.
type gnetLogger struct{ log *slog.Logger }

func (g gnetLogger) Debugf(format string, args ...any) { g.log.Debug(fmt.Sprintf(format, args...)) }
func (g gnetLogger) Infof(format string, args ...any)  { g.log.Debug(fmt.Sprintf(format, args...)) }

// Warnf passes on warnings, but for the one about events of a connection that was closed earlier
// in the same pass: closing one client while serving another is ordinary here.
func (g gnetLogger) Warnf(format string, args ...any) {
	if strings.HasPrefix(format, "received event[") {
		g.Debugf(format, args...)
		return
	}
	g.log.Warn(fmt.Sprintf(format, args...))
}

func (g gnetLogger) Errorf(format string, args ...any) { g.log.Error(fmt.Sprintf(format, args...)) }

func (g gnetLogger) Fatalf(format string, args ...any) {
	g.log.Error(fmt.Sprintf(format, args...))
	os.Exit(1)
}
