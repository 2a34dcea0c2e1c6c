package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/aigroup/ipc-gateway/upstream"
)

// serveCommand runs the gateway. Its flags are not fields: they come from options.settings, and
// what the command line says about them is kept as text until it meets the other sources.
type serveCommand struct {
	texts    map[string]string // by flag
	missing  []string          // flags without the value that they need
	problems []string          // misplaced arguments, from the tries before this one
}

// Help is what "serve --help" says before the flags.
func (s *serveCommand) Help() string {
	return `It needs no NATS server to start: it connects when one is there, and says so on /ready. SIGTERM or SIGINT ends it once the requests in flight are answered, after --drain-timeout at the latest; a second one ends it at once, but not within half a second: a signal that comes twice, as from timeout(1), is one. SIGHUP reads the settings again, as the command reload does.

A setting is taken from its flag, else its environment variable, else the file, else the default, which stands in brackets.

Examples:

    ipc-gateway serve
    ipc-gateway serve --nats-url nats://10.0.0.5:4222,nats://10.0.0.6:4222 --nats-creds /etc/gateway.creds
    ipc-gateway serve --socket /run/gateway/gateway.sock --socket-mode 0660 --allow-gid editors --cpus 2,3
    IPC_CONFIG=/etc/ipc-gateway.yaml ipc-gateway serve --log-format json
    ipc-gateway serve --takeover --detach --config /etc/ipc-gateway.yaml

Exit codes: 0 stopped by a signal, 1 the socket or the probe's port cannot be used, 2 wrong settings (all are named, nothing was opened), 130 or 143 ended at once by a signal: the second one, or the first one before a takeover has taken anything.`
}

// addFlags gives the command serve a flag for each setting.
func (s *serveCommand) addFlags(k *kong.Kong) error {
	s.texts = map[string]string{}
	for _, command := range k.Model.Children {
		if command.Name != "serve" {
			continue
		}
		for _, setting := range defaultOptions().settings() {
			if setting.flag != "" {
				command.Flags = append(command.Flags, s.newFlag(&setting))
			}
		}
	}
	return nil
}

func (s *serveCommand) newFlag(setting *setting) *kong.Flag {
	help := setting.help
	if shown := setting.value.show(); shown != "" {
		help += " [" + shown + "]"
	}
	var text string
	target := reflect.ValueOf(&text).Elem()
	flag := &kong.Flag{
		Value: &kong.Value{
			Name: setting.flag,
			// Kong replaces variables such as ${name} in help texts, so a dollar sign is two.
			Help:         help + " ($$" + setting.env + ")",
			Mapper:       &flagText{command: s, toggle: setting.value.toggle, many: setting.value.many},
			Tag:          &kong.Tag{},
			Target:       target,
			DefaultValue: target,
		},
		Group:       &kong.Group{Key: setting.group, Title: setting.group},
		PlaceHolder: setting.arg,
	}
	flag.Flag = flag
	return flag
}

// restart forgets what a failed try read from the command line and notes why it failed.
func (s *serveCommand) restart(problem string) {
	s.problems = append(s.problems, problem)
	clear(s.texts)
	s.missing = nil
}

// flagText notes the text of a flag. It has no errors of its own: kong would stop at the first one.
type flagText struct {
	command *serveCommand
	toggle  bool
	many    bool
}

func (f *flagText) Decode(ctx *kong.DecodeContext, _ reflect.Value) error {
	token := ctx.Scan.Peek()
	switch {
	case f.toggle && token.Type != kong.FlagValueToken:
		f.command.texts[ctx.Value.Name] = "true"
	case token.IsValue() || isNegativeNumber(token):
		text := ctx.Scan.Pop().String()
		if before := f.command.texts[ctx.Value.Name]; f.many && before != "" {
			text = before + "," + text
		}
		f.command.texts[ctx.Value.Name] = text
	default:
		f.command.missing = append(f.command.missing, fmt.Sprintf("flag --%s: its value is missing", ctx.Value.Name))
	}
	return nil
}

// IsBool makes the help show a toggle without a value.
func (f *flagText) IsBool() bool { return f.toggle }

// isNegativeNumber tells -1, which is a wrong value for most flags, from another flag.
func isNegativeNumber(token kong.Token) bool {
	text, _ := token.Value.(string)
	return len(text) > 1 && text[0] == '-' && text[1] >= '0' && text[1] <= '9'
}

// Run serves until a signal ends it.
func (s *serveCommand) Run(a *app) error {
	o, problems := a.configure(s.texts)
	problems = append(append(s.problems, s.missing...), problems...)
	if len(problems) > 0 {
		return usageErrorf("wrong settings, nothing was started:\n  %s", strings.Join(problems, "\n  "))
	}
	if o.detach && !a.isDetached() {
		return a.detach()
	}
	service, err := startService(a, s.texts, o)
	if err != nil {
		return err
	}
	return service.run()
}

// signalCode is the exit code of a process that s ended, as shells have it.
func signalCode(s os.Signal) int {
	if number, ok := s.(syscall.Signal); ok {
		return 128 + int(number)
	}
	return exitFailure
}

func newLogger(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func redacted(urls []string) string {
	shown := make([]string, len(urls))
	for i, url := range urls {
		shown[i] = upstream.RedactURL(url)
	}
	return strings.Join(shown, ",")
}
