package probe

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/aigroup/ipc-gateway/engine"
)

// kind is a metric type of the text format.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// family is a metric: its lines in the exposition, and where its values come from.
type family struct {
	name    string
	kind    kind
	labels  string // names of its labels but le, with a comma between them; empty: none
	help    string // one line without backslashes
	samples samples
}

// samples appends the samples of the family name to dst, which is the caller's, and returns it.
type samples func(dst []byte, name string, s *engine.Stats) []byte

// append appends the whole family to dst, which is the caller's, and returns it.
func (f *family) append(dst []byte, s *engine.Stats) []byte {
	dst = fmt.Appendf(dst, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
	return f.samples(dst, f.name, s)
}

// one is a family of a single sample without labels.
func one(value func(*engine.Stats) uint64) samples {
	return func(dst []byte, name string, s *engine.Stats) []byte {
		return appendSample(dst, name, "", value(s))
	}
}

// each is a family with one sample for each value of a label; values returns theirs in that order.
func each(name string, labelValues []string, values func(*engine.Stats) []uint64) samples {
	pairs := labelPairs(name, labelValues)
	return func(dst []byte, name string, s *engine.Stats) []byte {
		for i, v := range values(s) {
			dst = appendSample(dst, name, pairs[i], v)
		}
		return dst
	}
}

// appendSample appends one line. pairs are the labels as they stand between the braces.
func appendSample(dst []byte, name, pairs string, value uint64) []byte {
	dst = appendSeries(dst, name, pairs)
	return append(strconv.AppendUint(dst, value, 10), '\n')
}

// appendFloatSample is appendSample for a value that is no whole number.
func appendFloatSample(dst []byte, name, pairs string, value float64) []byte {
	dst = appendSeries(dst, name, pairs)
	return append(append(dst, formatFloat(value)...), '\n')
}

// appendHistogram appends one histogram. Its counts are those of single buckets, one more than there
// are upper bounds; the lines are cumulative, and _count is their last, so that the two always agree.
func appendHistogram(dst []byte, name, pairs string, bounds []string, counts []uint64, sum float64) []byte {
	before := pairs
	if before != "" {
		before += ","
	}
	var total uint64
	for i, count := range counts {
		bound := "+Inf"
		if i < len(bounds) {
			bound = bounds[i]
		}
		total += count
		dst = appendSample(dst, name+"_bucket", before+labelPair("le", bound), total)
	}
	dst = appendFloatSample(dst, name+"_sum", pairs, sum)
	return appendSample(dst, name+"_count", pairs, total)
}

func appendSeries(dst []byte, name, pairs string) []byte {
	dst = append(dst, name...)
	if pairs != "" {
		dst = append(append(append(dst, '{'), pairs...), '}')
	}
	return append(dst, ' ')
}

// labelPairs returns the pair of name with each of values.
func labelPairs(name string, values []string) []string {
	pairs := make([]string, len(values))
	for i, v := range values {
		pairs[i] = labelPair(name, v)
	}
	return pairs
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func labelPair(name, value string) string {
	return name + `="` + labelEscaper.Replace(value) + `"`
}

// formatFloat returns the shortest text that reads back as v, in the form that Prometheus' own
// libraries use: 1e-05, 0.0001, 1.5.
func formatFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
