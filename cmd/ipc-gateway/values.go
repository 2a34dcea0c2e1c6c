package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// value fills one field from text, and shows it as text. The error of set names the text and what is
// wanted instead; whether the value makes sense is for engine.Config.Validate to say.
type value struct {
	set    func(text string) error
	show   func() string
	toggle bool // a flag without a value means "true"
	many   bool // a flag that is given again adds to what it said before
}

// fieldValue is the value of the field at p, read by parse and shown by show.
func fieldValue[T any](p *T, parse func(string) (T, error), show func(T) string) value {
	return value{
		set: func(text string) error {
			v, err := parse(text)
			if err == nil {
				*p = v
			}
			return err
		},
		show: func() string { return show(*p) },
	}
}

func textValue(p *string) value {
	same := func(s string) string { return s }
	return fieldValue(p, func(s string) (string, error) { return s, nil }, same)
}

func numberValue(p *int) value { return fieldValue(p, parseNumber, strconv.Itoa) }

func parseNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number: want one such as 16", text)
	}
	return n, nil
}

func toggleValue(p *bool) value {
	v := fieldValue(p, func(text string) (bool, error) {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return false, fmt.Errorf("%q is neither true nor false", text)
		}
		return on, nil
	}, strconv.FormatBool)
	v.toggle = true
	return v
}

func durationValue(p *time.Duration) value {
	return fieldValue(p, parseDuration, time.Duration.String)
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: want one with its unit, such as 250ms, 30s or 1m30s", text)
	}
	return d, nil
}

func drainTimeoutValue(p *time.Duration) value {
	return fieldValue(p, func(text string) (time.Duration, error) {
		d, err := parseDuration(text)
		if err == nil && (d < 0 || d > engine.TimeoutMax) {
			err = fmt.Errorf("%v is out of range: want 0s to %v", d, engine.TimeoutMax)
		}
		return d, err
	}, time.Duration.String)
}

func permissionValue(p *os.FileMode) value {
	return fieldValue(p, parsePermission, func(m os.FileMode) string { return fmt.Sprintf("%#o", uint32(m)) })
}

func parsePermission(text string) (os.FileMode, error) {
	m, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal number: want permission bits such as 0600 or 0660", text)
	}
	return os.FileMode(m), nil
}

// sizeUnits are the units that a size may have, the longest names first.
var sizeUnits = []struct {
	name  string
	bytes int
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

func sizeValue(p *int) value { return fieldValue(p, parseSize, showSize) }

// parseSize reads a number of bytes with or without a unit.
func parseSize(text string) (int, error) {
	for _, unit := range sizeUnits {
		digits, found := strings.CutSuffix(text, unit.name)
		if !found {
			continue
		}
		n, err := strconv.Atoi(strings.TrimRight(digits, " "))
		if err == nil && n >= 0 && n <= (1<<62)/unit.bytes {
			return n * unit.bytes, nil
		}
		break
	}
	return 0, fmt.Errorf("%q is not a size: want bytes, or a whole number with its unit such as 512KiB or 8MiB", text)
}

func showSize(n int) string {
	for _, unit := range []int{2, 1, 0} {
		if u := sizeUnits[unit]; n >= u.bytes && n%u.bytes == 0 {
			return strconv.Itoa(n/u.bytes) + u.name
		}
	}
	return strconv.Itoa(n)
}

// cpusMax bounds the list, so that a typing error such as 0-99999999 is an error and not a long wait. Higher numbers than
// cpusMax-1 have no room in a unix.CPUSet.
const cpusMax = 1024

// cpusValue fills the list of CPUs, and with it the number of loops: one for each.
func cpusValue(cpus *[]int, loops *int) value {
	list := fieldValue(cpus, parseCPUs, showCPUs)
	set := list.set
	list.set = func(text string) error {
		err := set(text)
		if err == nil && len(*cpus) > 0 {
			*loops = len(*cpus)
		}
		return err
	}
	return list
}

// parseCPUs reads a list of numbers and ranges, as 2,3 or 0,4-7. Empty text is no CPU at all.
func parseCPUs(text string) ([]int, error) {
	bad := fmt.Errorf("%q is not a list of CPUs: want numbers and ranges such as 2,3 or 0,4-7", text)
	var cpus []int
	if text == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			high = low
		}
		first, err1 := strconv.ParseUint(low, 10, 31)
		last, err2 := strconv.ParseUint(high, 10, 31)
		if err1 != nil || err2 != nil || last < first || len(cpus)+int(last-first) >= cpusMax {
			return nil, bad
		}
		for cpu := int(first); cpu <= int(last); cpu++ {
			if slices.Contains(cpus, cpu) {
				return nil, fmt.Errorf("%q names CPU %d twice: want each loop on a CPU of its own", text, cpu)
			}
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

func showCPUs(cpus []int) string {
	texts := make([]string, len(cpus))
	for i, cpu := range cpus {
		texts[i] = strconv.Itoa(cpu)
	}
	return strings.Join(texts, ",")
}

// everySubjectValue fills the common subject and that of the three routes at once.
func everySubjectValue(common *string, r *engine.Routes) value {
	v := textValue(common)
	set := v.set
	v.set = func(text string) error {
		r.Submit.Subject, r.Query.Subject, r.Cancel.Subject = text, text, text
		return set(text)
	}
	return v
}

// everyTimeoutValue fills the gateway's timeout and that of the three routes at once.
func everyTimeoutValue(c *engine.Config) value {
	v := durationValue(&c.Timeout)
	set := v.set
	v.set = func(text string) error {
		err := set(text)
		if err == nil {
			c.Routes.Submit.Timeout, c.Routes.Query.Timeout, c.Routes.Cancel.Timeout = c.Timeout, c.Timeout, c.Timeout
		}
		return err
	}
	return v
}

func modeValue(p *engine.Mode) value { return fieldValue(p, engine.ParseMode, engine.Mode.String) }

// listValue fills a list of texts that have no commas in them. It judges none: for URLs its errors would
// show passwords, which upstream.Config.Validate masks.
func listValue(p *[]string) value {
	return fieldValue(p, func(text string) ([]string, error) {
		list := strings.Split(text, ",")
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return list, nil
	}, func(list []string) string { return strings.Join(list, ",") })
}

// addressValue takes host:port; empty text and "off" both mean no address at all.
func addressValue(p *string) value {
	return fieldValue(p, parseAddress, func(address string) string { return address })
}

func parseAddress(text string) (string, error) {
	if text == "" || text == "off" {
		return "", nil
	}
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("%q is not an address: want host:port such as 127.0.0.1:8080, or off", text)
	}
	return text, nil
}

// controlValue takes the path of the control socket, or controlOff.
func controlValue(p *string) value {
	return fieldValue(p, func(text string) (string, error) {
		if text == "" || text == controlOff {
			return text, nil
		}
		return text, engine.CheckSocketPath(text)
	}, func(path string) string { return path })
}

func levelValue(p *slog.Level) value {
	return fieldValue(p, func(text string) (slog.Level, error) {
		var level slog.Level
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, text) {
			return 0, fmt.Errorf("%q is not a level: want debug, info, warn or error", text)
		}
		return level, level.UnmarshalText([]byte(text))
	}, func(level slog.Level) string { return strings.ToLower(level.String()) })
}

func choiceValue[T ~string](p *T, choices ...string) value {
	return fieldValue(p, func(text string) (T, error) {
		if !slices.Contains(choices, text) {
			return "", fmt.Errorf("%q is unknown: want %s", text, strings.Join(choices, " or "))
		}
		return T(text), nil
	}, func(choice T) string { return string(choice) })
}

// parseMilliseconds turns the predecessor's number of milliseconds into a duration's text.
func parseMilliseconds(text string) (string, error) {
	if _, err := strconv.ParseUint(text, 10, 63); err != nil {
		return "", fmt.Errorf("%q is not a whole number of milliseconds: want one such as 30000", text)
	}
	return text + "ms", nil
}
