package probe

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// scraped is a family as a scraper reads it.
type scraped struct {
	help   string
	kind   kind
	series map[string]float64 // by the whole series: name and labels
	order  []string
}

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)$`)
	labelText  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(, ?|$)`)
	helpText   = regexp.MustCompile(`^(?:[^\\]|\\[\\n])*$`)
	suffixes   = map[kind]string{counter: "", gauge: "", histogram: "_bucket _sum _count", "summary": " _sum _count"}
)

// parse reads an exposition, and is stricter than the format: each family has HELP, TYPE and samples,
// in this order and in one piece, no series comes twice, no line is empty, and histograms are whole.
func parse(text string) (map[string]*scraped, error) {
	families := map[string]*scraped{}
	var name string
	var family *scraped
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line does not end")
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fail := func(format string, args ...any) (map[string]*scraped, error) {
			return nil, fmt.Errorf("line %d %q: %s", i+1, line, fmt.Sprintf(format, args...))
		}
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			var help string
			name, help, _ = strings.Cut(rest, " ")
			if families[name] != nil {
				return fail("the family is there already")
			}
			if !helpText.MatchString(help) {
				return fail("bad escape")
			}
			family = &scraped{help: help, series: map[string]float64{}}
			families[name] = family
			continue
		}
		if family == nil {
			return fail("no HELP before it")
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			typed, k, _ := strings.Cut(rest, " ")
			if _, known := suffixes[kind(k)]; !known || typed != name || family.kind != "" {
				return fail("not the TYPE of %s", name)
			}
			family.kind = kind(k)
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || family.kind == "" {
			return fail("not a sample after HELP and TYPE")
		}
		suffix, ok := strings.CutPrefix(m[1], name)
		if !ok || !strings.Contains(" "+suffixes[family.kind]+" ", " "+suffix+" ") {
			return fail("not a sample of the %s %s", family.kind, name)
		}
		if _, err := labelsOf(m[2]); err != nil {
			return fail("%v", err)
		}
		series := strings.TrimSuffix(line, " "+m[3])
		if _, twice := family.series[series]; twice {
			return fail("the series is there already")
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil || math.IsNaN(v) || family.kind == counter && v < 0 {
			return fail("not a value of a %s", family.kind)
		}
		family.series[series] = v
		family.order = append(family.order, series)
	}
	for name, f := range families {
		if len(f.series) == 0 {
			return nil, fmt.Errorf("%s has no samples", name)
		}
		if f.kind == histogram {
			if err := f.checkHistogram(name); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return families, nil
}

// labelsOf reads what stands between the braces: pairs of name and escaped value.
func labelsOf(text string) (pairs [][2]string, err error) {
	seen := map[string]bool{}
	for rest := text; rest != ""; {
		m := labelText.FindStringSubmatch(rest)
		if m == nil || seen[m[1]] {
			return nil, fmt.Errorf("bad labels at %q", rest)
		}
		seen[m[1]] = true
		pairs = append(pairs, [2]string{m[1], m[2]})
		rest = rest[len(m[0]):]
		if m[3] != "" && rest == "" {
			return nil, fmt.Errorf("labels end with a comma")
		}
	}
	return pairs, nil
}

// withoutSum are the histograms of the Go runtime, which knows no sum.
var withoutSum = map[string]bool{"go_sched_latencies_seconds": true, "go_gc_pauses_seconds": true}

// checkHistogram checks each histogram of the family: bounds and counts rise, the last bound is +Inf,
// and _count is its count.
func (f *scraped) checkHistogram(name string) error {
	type state struct {
		bound, count float64
		begun        bool
	}
	states := map[string]state{} // by the labels but le
	for _, series := range f.order {
		m := sampleLine.FindStringSubmatch(series + " 0")
		pairs, err := labelsOf(m[2])
		if err != nil {
			return err
		}
		if m[1] != name+"_bucket" {
			continue
		}
		if len(pairs) == 0 || pairs[len(pairs)-1][0] != "le" {
			return fmt.Errorf("%s has no le at its end", series)
		}
		last := pairs[len(pairs)-1]
		bound, err := strconv.ParseFloat(last[1], 64)
		if err != nil {
			return fmt.Errorf("%s: %w", series, err)
		}
		key := strings.TrimSuffix(strings.TrimSuffix(m[2], `le="`+last[1]+`"`), ",")
		before := states[key]
		if before.begun && bound <= before.bound || f.series[series] < before.count {
			return fmt.Errorf("%s does not rise", series)
		}
		states[key] = state{bound, f.series[series], true}
	}
	if len(states) == 0 {
		return fmt.Errorf("no buckets")
	}
	for key, last := range states {
		if !math.IsInf(last.bound, 1) {
			return fmt.Errorf("{%s} has no bucket +Inf", key)
		}
		if withoutSum[name] {
			continue
		}
		labels := ""
		if key != "" {
			labels = "{" + key + "}"
		}
		if count, ok := f.series[name+"_count"+labels]; !ok || count != last.count {
			return fmt.Errorf("_count%s is %v, want that of the bucket +Inf, %v", labels, count, last.count)
		}
		if _, ok := f.series[name+"_sum"+labels]; !ok {
			return fmt.Errorf("no _sum%s", labels)
		}
	}
	if sums := len(f.series) - countBuckets(f.order, name); !withoutSum[name] && sums != 2*len(states) {
		return fmt.Errorf("%d _sum and _count for %d histograms", sums, len(states))
	}
	return nil
}

func countBuckets(series []string, name string) (n int) {
	for _, s := range series {
		if strings.HasPrefix(s, name+"_bucket") {
			n++
		}
	}
	return n
}

// The other tests are worth what the parser refuses.
func TestParserRefusesWhatIsWrong(t *testing.T) {
	const good = "# HELP a_total Text.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\"\\\\\\n\"} 1\na_total 2\n" +
		"# HELP h Text.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n"
	if _, err := parse(good); err != nil {
		t.Fatalf("refused what is right: %v", err)
	}
	for _, c := range []struct{ why, old, new string }{
		{"no HELP", "# HELP a_total Text.\n", ""},
		{"no TYPE", "# TYPE a_total counter\n", ""},
		{"TYPE of another", "TYPE h ", "TYPE g "},
		{"unknown type", "TYPE a_total counter", "TYPE a_total counting"},
		{"TYPE twice", "# TYPE h histogram\n", "# TYPE h histogram\n# TYPE h histogram\n"},
		{"family twice", "# HELP h ", "# HELP a_total "},
		{"family in two pieces", "h_sum 3.5\n", "h_sum 3.5\na_total{z=\"1\"} 1\n"},
		{"series twice", "a_total 2\n", "a_total 2\na_total 2\n"},
		{"sample of another", "a_total 2", "b_total 2"},
		{"suffix of another type", "a_total 2", "a_total_sum 2"},
		{"histogram without suffix", "h_sum 3.5", "h 3.5"},
		{"empty line", "a_total 2\n", "a_total 2\n\n"},
		{"no end", "h_count 2\n", "h_count 2"},
		{"carriage return", "a_total 2\n", "a_total 2\r\n"},
		{"no value", "a_total 2", "a_total"},
		{"no number", "a_total 2", "a_total two"},
		{"not a number", "a_total 2", "a_total NaN"},
		{"negative counter", "a_total 2", "a_total -2"},
		{"timestamp", "a_total 2", "a_total 2 1700000000000"},
		{"open quote", `x="1"`, `x="1`},
		{"unknown escape", `x="1"`, `x="\t"`},
		{"bad label name", `x="1"`, `1x="1"`},
		{"label twice", `x="1"`, `y="1"`},
		{"comma at the end", `{le="1"}`, `{le="1",}`},
		{"unknown escape in HELP", "# HELP h Text.", `# HELP h Te\xt.`},
		{"no samples", "h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n", ""},
		{"no +Inf", "h_bucket{le=\"+Inf\"} 2\n", ""},
		{"bucket without le", `h_bucket{le="1"}`, `h_bucket{ge="1"}`},
		{"bound no number", `le="1"`, `le="one"`},
		{"counts fall", `h_bucket{le="1"} 1`, `h_bucket{le="1"} 3`},
		{"bounds fall", "h_bucket{le=\"1\"} 1\n", "h_bucket{le=\"1\"} 1\nh_bucket{le=\"0.5\"} 1\n"},
		{"no _sum", "h_sum 3.5\n", ""},
		{"no _count", "h_count 2\n", ""},
		{"other _count", "h_count 2", "h_count 3"},
		{"_sum of nothing", "h_sum 3.5\n", "h_sum 3.5\nh_sum{x=\"1\"} 3.5\n"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%s: %q is not there to be replaced", c.why, c.old)
		}
		if _, err := parse(bad); err == nil {
			t.Errorf("%s: accepted\n%s", c.why, bad)
		}
	}
}
