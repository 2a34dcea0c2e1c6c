package main

import (
	"fmt"
	"regexp"
	"strings"
)

// given is the text that somebody gave for a setting, and who that was.
type given struct {
	index    int // of the setting in options.settings
	text     string
	source   string // as a problem names it: "flag --loops", "variable IPC_LOOPS", "key loops in gateway.yaml:3"
	fromFile bool
}

// configure collects the settings from flags, environment and file, in this order of precedence, over
// the defaults. It opens nothing but the configuration file. The problems are all there are, each
// with its source, the value and what is wanted instead.
func (a *app) configure(flags map[string]string) (o *options, problems []string) {
	table := defaultOptions().settings()
	values := make([]given, 0, len(table))
	var file configFile
	for i := range table {
		s := &table[i]
		if text, ok := flags[s.flag]; ok && s.flag != "" {
			values = append(values, given{index: i, text: text, source: "flag --" + s.flag})
		} else if name, text, ok := a.env(s.env, s.oldEnv); ok {
			text, err := a.translate(name, text)
			if err != nil {
				problems = append(problems, fmt.Sprintf("variable %s: %v", name, err))
				continue
			}
			values = append(values, given{index: i, text: text, source: "variable " + name})
		} else if v, ok := file.take(s.fileKey()); ok && !overruled(s, table, values) {
			values = append(values, given{index: i, text: v.text, source: file.source(s.fileKey(), v), fromFile: true})
		}
		if s.flag == "config" && len(values) > 0 && values[0].text != "" {
			var fileProblems []string
			file, fileProblems = readConfigFile(values[0].text, values[0].source, table)
			problems = append(problems, fileProblems...)
		}
	}

	o, unreadable := assemble(values)
	problems = append(problems, unreadable...)
	rules, wrongRules := file.peerRules()
	problems = append(problems, wrongRules...)
	o.engine.Peers, o.given = rules, values
	for i, problem := range problems {
		problems[i] = maskSecrets(problem) // a URL may stand where another value should
	}
	for _, message := range messages(o.engine.Validate()) {
		source := blame(message, values)
		if !strings.HasPrefix(message, "nats url") { // which are masked already, and tell more
			message = maskSecrets(message)
		}
		problems = append(problems, source+message)
	}
	for _, message := range []string{o.pprofProblem(), o.cpusProblem(a.cpus)} {
		if message != "" {
			problems = append(problems, message)
		}
	}
	return o, append(problems, a.tracingProblems()...)
}

// translate turns the text of a variable that is not ours into that of the setting.
func (a *app) translate(name, text string) (string, error) {
	switch {
	case strings.HasSuffix(name, "_MS"):
		return parseMilliseconds(text)
	case name == otelSampler:
		return a.samplerShare(text)
	}
	return text, nil
}

// overruled reports whether a common setting that wins over s was given outside of the file.
func overruled(s *setting, table []setting, values []given) bool {
	for _, v := range values {
		if s.overruledBy != "" && table[v.index].flag == s.overruledBy {
			return !v.fromFile
		}
	}
	return false
}

// assemble puts values, which stand in the order of the settings, over the defaults.
func assemble(values []given) (o *options, problems []string) {
	o = defaultOptions()
	table := o.settings()
	for _, v := range values {
		if err := table[v.index].value.set(v.text); err != nil {
			for _, message := range messages(err) {
				problems = append(problems, v.source+": "+message)
			}
		}
	}
	return o, problems
}

// blame finds out whose value a message of engine.Config.Validate is about, by trying each one
// alone: "flag --loops: ", or nothing where only several together are wrong.
func blame(message string, values []given) string {
	for _, v := range values {
		alone, _ := assemble([]given{v})
		for _, m := range messages(alone.engine.Validate()) {
			if m == message {
				return v.source + ": "
			}
		}
	}
	return ""
}

// sourceOf returns who gave the setting with a flag, or if nobody did the flag's name.
func (o *options) sourceOf(flag string) string {
	table := o.settings()
	for _, v := range o.given {
		if table[v.index].flag == flag {
			return v.source
		}
	}
	return flag
}

// messages returns the messages of joined errors, one by one.
func messages(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// credentials are the part of a URL that nobody should find in a log. It goes to the last at sign of a line, for a password
// may hold whatever should be escaped.
var credentials = regexp.MustCompile(`://([^:/@\s]*:)?.*@`)

// maskSecrets hides the passwords and tokens of URLs in text that was not written by us.
func maskSecrets(text string) string { return credentials.ReplaceAllString(text, "://${1}***@") }
