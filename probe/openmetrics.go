package probe

import (
	"bytes"
	"strings"
)

// appendOpenMetrics appends an exposition in the text format, as OpenMetrics 1.0.0, to dst, which is the caller's, and returns it.
//
// The samples are the same, so that rules and dashboards do not depend on the format. What differs:
//   - A counter's family is named without _total. Where that is no family of its own (ipc_connections and
//     ipc_connections_total), or the name has no _total, it is of the type unknown, under its whole name.
//   - The bounds of histograms, and the quantiles of summaries, are floating-point numbers: 1.0 and not 1.
//   - The end is marked.
func appendOpenMetrics(dst, text []byte) []byte {
	families := familyNames(text)
	for line := range bytes.Lines(text) {
		if comment, ok := bytes.CutPrefix(line, []byte("# ")); ok {
			dst = appendOpenComment(dst, string(comment), families)
			continue
		}
		dst = appendOpenSample(dst, line)
	}
	return append(dst, "# EOF\n"...)
}

// familyNames returns the types of the families of an exposition in the text format, by their names.
func familyNames(text []byte) map[string]kind {
	families := map[string]kind{}
	for line := range bytes.Lines(text) {
		if typed, ok := bytes.CutPrefix(line, []byte("# TYPE ")); ok {
			name, k, _ := strings.Cut(strings.TrimSuffix(string(typed), "\n"), " ")
			families[name] = kind(k)
		}
	}
	return families
}

// appendOpenComment appends a line of HELP or TYPE, which comment is without its "# ".
func appendOpenComment(dst []byte, comment string, families map[string]kind) []byte {
	parts := strings.SplitN(comment, " ", 3)
	word, name, rest := parts[0], parts[1], parts[2]
	if families[name] == counter {
		base, total := strings.CutSuffix(name, "_total")
		if _, taken := families[base]; total && !taken {
			name = base
		} else if word == "TYPE" {
			rest = "unknown\n"
		}
	}
	dst = append(append(append(dst, "# "...), word...), ' ')
	dst = append(append(append(dst, name...), ' '), rest...)
	return dst
}

// appendOpenSample appends a sample's line. Only le and quantile, which are last among the labels, are written differently.
func appendOpenSample(dst, line []byte) []byte {
	for _, label := range []string{`le="`, `quantile="`} {
		at := bytes.LastIndex(line, []byte(label))
		if at < 1 || line[at-1] != '{' && line[at-1] != ',' {
			continue
		}
		start := at + len(label)
		end := start + bytes.IndexByte(line[start:], '"')
		if bytes.ContainsAny(line[start:end], ".eI") { // a fraction, an exponent, +Inf
			break
		}
		return append(append(append(dst, line[:end]...), ".0"...), line[end:]...)
	}
	return append(dst, line...)
}
