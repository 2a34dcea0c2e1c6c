package compare

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// column is one figure of the runs.
type column struct {
	head     string
	value    func(*Sample) float64
	decimals int
}

func perSecond(s *Sample) float64 { return s.PerSecond() }
func p50(s *Sample) float64       { return latency(s, 0.5) }
func p99(s *Sample) float64       { return latency(s, 0.99) }
func p999(s *Sample) float64      { return latency(s, 0.999) }
func middleUs(s *Sample) float64  { return valueOf(s.MiddleUs) }
func rssMiB(s *Sample) float64    { return valueOf(s.RSSBytes) / (1 << 20) }
func mallocs(s *Sample) float64   { return valueOf(s.Mallocs) }

// latency is NaN where there were no answers to wait for.
func latency(s *Sample, quantile float64) float64 {
	if s.Latency(1) == 0 {
		return math.NaN()
	}
	return s.Latency(quantile)
}

var columns = []column{
	{"req/s", perSecond, 0},
	{"p50 us", p50, 1},
	{"p99 us", p99, 1},
	{"p99.9 us", p999, 1},
	{"middle us/req", middleUs, 2},
	{"all us/req", func(s *Sample) float64 { return s.AllUs }, 2},
	{"RSS MiB", rssMiB, 1},
	{"mallocs/req", mallocs, 4},
}

// spreadOf are the columns that say how far the runs lie apart.
var spreadOf = []string{"req/s", "p50 us", "p99 us", "p99.9 us", "middle us/req"}

// Write writes the tables, what else the machine did, and the goals.
func (r *Result) Write(w io.Writer) {
	r.writeTables(w)
	r.writeGoals(w)
	for _, why := range r.Failed {
		fmt.Fprintf(w, "\nFAILED: %s\n", why)
	}
}

func (r *Result) writeTables(w io.Writer) {
	fmt.Fprintf(w, "%s; medians of %d runs of %v each, in turns; ± is half of what lies between the least and the greatest run\n",
		r.Machine, r.Settings.Repeats, r.Settings.Duration)
	for _, why := range r.LeftOut {
		fmt.Fprintf(w, "left out: %s\n", why)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, c := range r.Cells {
		if i == 0 || c.Kind != r.Cells[i-1].Kind {
			// The writer below is the terminal, or a file whose Close says what went wrong.
			_ = table.Flush()
			fmt.Fprintf(w, "\n%s\n", titles[c.Kind])
			fmt.Fprintln(table, strings.Join(heads(), "\t")+"\t")
		}
		for _, row := range c.rows() {
			fmt.Fprintln(table, strings.Join(row, "\t")+"\t")
		}
	}
	_ = table.Flush()
	r.writeNoise(w)
}

var titles = map[string]string{
	KindRequest:         "request/reply: version 1 TASK_SUBMIT of programs in C, against nats.go",
	KindConnect:         "connect, request/reply, close: the same programs, for each request",
	KindPing:            "PING of programs in C",
	KindPublish:         "publish without answers: messages that the NATS server got",
	KindPublishAnswered: "publish, the gateway answering each, against nats.go, which does not wait",
	KindJetStream:       "publish to a stream, and its acknowledgement, against nats.go's asynchronous publish with as many outstanding",
}

// WriteMarkdown writes the same as Write: a side in each row, with its medians and how far its runs lie apart.
func (r *Result) WriteMarkdown(w io.Writer) {
	fmt.Fprintf(w, "Medians of %d runs of %v each, in turns. ± is half of what lies between the least and the greatest run.\n", r.Settings.Repeats, r.Settings.Duration)
	r.writeNoise(w)
	if len(r.Cells) > 0 {
		head := []string{"", "side"}
		for _, c := range columns {
			head = append(head, c.head)
		}
		fmt.Fprintf(w, "\n| %s | gateway/it | min..max |\n", strings.Join(head, " | "))
		fmt.Fprintf(w, "| --- | --- |%s\n", strings.Repeat(" ---: |", len(columns)+2))
	}
	for _, c := range r.Cells {
		for i, row := range c.markdownRows() {
			if i == 0 {
				row[0] = c.Cell.String()
			}
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		}
	}
	writeList(w, "Left out", r.LeftOut)
	writeList(w, "Failed", r.Failed)
	if judged := r.judged(); len(judged) > 0 {
		fmt.Fprint(w, "\n### Goals\n\n| goal | | measured | |\n| --- | --- | ---: | --- |\n")
		for _, g := range judged {
			fmt.Fprintf(w, "| %s | %s | %s | %s |\n", g.what, g.bound, g.got, g.verdict)
		}
	}
}

// writeList writes a paragraph with a list, if there is anything to list.
func writeList(w io.Writer, title string, list []string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n\n", title)
	for _, one := range list {
		fmt.Fprintf(w, "- %s\n", strings.ReplaceAll(one, "\n", " "))
	}
}

// markdownRows are the rows of a cell with the spread beside the medians, in the same field.
func (c *CellResult) markdownRows() [][]string {
	var rows [][]string
	gateway := c.side(SideGateway)
	for _, s := range c.Sides {
		row := []string{"", s.Name}
		for _, col := range columns {
			values := s.values(col.value)
			text := number(median(values), col.decimals)
			if slices.Contains(spreadOf, col.head) && text != "-" {
				text += " ±" + spread(values)
			}
			row = append(row, text)
		}
		rows = append(rows, append(row, beside(gateway, s)...))
	}
	return rows
}

// beside compares the rate of a side with the gateway's: the ratio, and those of runs made one after the other. Of the gateway
// itself both are empty.
func beside(gateway, s *SideResult) []string {
	if gateway == nil || s == gateway {
		return []string{"", ""}
	}
	ratio := compare(gateway.values(perSecond), s.values(perSecond))
	return []string{fmt.Sprintf("%.2fx", ratio.medians), fmt.Sprintf("%.2f..%.2f", ratio.min, ratio.max)}
}

func heads() []string {
	all := []string{"conns x window, payload", ""}
	for _, c := range columns {
		all = append(all, c.head)
		if slices.Contains(spreadOf, c.head) {
			all = append(all, "±")
		}
	}
	return append(all, "gateway/it", "min..max")
}

// rows are those of one cell, a side in each.
func (c *CellResult) rows() [][]string {
	var rows [][]string
	gateway := c.side(SideGateway)
	for i, s := range c.Sides {
		name := ""
		if i == 0 {
			name = strings.TrimPrefix(c.Cell.String(), c.Kind+" ")
		}
		row := []string{name, s.Name}
		for _, col := range columns {
			values := s.values(col.value)
			row = append(row, number(median(values), col.decimals))
			if slices.Contains(spreadOf, col.head) {
				row = append(row, spread(values))
			}
		}
		rows = append(rows, append(row, beside(gateway, s)...))
	}
	return rows
}

func number(value float64, decimals int) string {
	if math.IsNaN(value) {
		return "-"
	}
	return fmt.Sprintf("%.*f", decimals, value)
}

// spread is half of what lies between the least and the greatest value, relative to the median.
func spread(values []float64) string {
	m := median(values)
	if math.IsNaN(m) || m == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*(slices.Max(values)-slices.Min(values))/2/m)
}

// quietCPUs is how many CPUs other processes may keep busy in a run that is to be believed.
const quietCPUs = 0.1

// writeNoise says how much the machine had to do besides, which is what to look at first.
func (r *Result) writeNoise(w io.Writer) {
	var others, stolen []float64
	for _, c := range r.Cells {
		for _, s := range c.Sides {
			others = append(others, s.values(func(s *Sample) float64 { return s.OthersCPUs })...)
			stolen = append(stolen, s.values(func(s *Sample) float64 { return s.StolenCPUs })...)
		}
	}
	if len(others) == 0 {
		return
	}
	fmt.Fprintf(w, "\nCPUs kept busy by other processes meanwhile: median %.2f, most %.2f; taken by the host: median %.2f, most %.2f\n",
		median(others), slices.Max(others), median(stolen), slices.Max(stolen))
	if median(others)+median(stolen) > quietCPUs {
		fmt.Fprintln(w, "THE MACHINE WAS NOT QUIET: that moves ratios, and not only widens them. Do not judge goals by this run.")
	}
}
