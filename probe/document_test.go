package probe

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/aigroup/ipc-gateway/engine"
)

// documented is a row of the tables in docs/metrics.md.
type documented struct{ kind, labels string }

var (
	documentRow  = regexp.MustCompile("(?m)^\\| `((?:ipc|go|process)_\\w+)` \\| (\\w+) \\| (.*?) ?\\| (.+) \\|$")
	metricName   = regexp.MustCompile(`\b(?:ipc|go|process)_\w+`)
	ofHistograms = regexp.MustCompile(`_(bucket|sum|count)$`)
)

func readDocument(t *testing.T) (text string, rows map[string]documented) {
	t.Helper()
	content, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string]documented{}
	for _, m := range documentRow.FindAllStringSubmatch(string(content), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has two rows", m[1])
		}
		rows[m[1]] = documented{m[2], strings.NewReplacer("`", "", " ", "").Replace(m[3])}
	}
	return string(content), rows
}

// The document has a row for each metric, and for nothing else, with the right type and labels.
func TestDocumentListsEveryMetric(t *testing.T) {
	_, rows := readDocument(t)
	for _, f := range gatewaysOwn() {
		if want := (documented{string(f.kind), f.labels}); rows[f.name] != want {
			t.Errorf("%s: the document says %q, want %q", f.name, rows[f.name], want)
		}
		delete(rows, f.name)
	}
	NewHandler(nil) // switches HELP and TYPE on
	library := mustParse(t, string(appendProcess(nil)))
	for name := range processHelp {
		row, ok := rows[name]
		if f := library[name]; !ok || f != nil && row.kind != string(f.kind) {
			t.Errorf("%s: the document says %q, want what is in %+v", name, row, f)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is in the document, but is no metric", name)
	}
}

// Alerts on a metric that does not exist never fire, so every name in the document must be one,
// and the values of labels must be those that there are.
func TestDocumentNamesOnlyWhatThereIs(t *testing.T) {
	text, rows := readDocument(t)
	names := 0
	for _, name := range metricName.FindAllString(text, -1) {
		names++
		base := ofHistograms.ReplaceAllString(name, "")
		_, whole := rows[name]
		_, part := rows[base]
		if !whole && (!part || rows[base].kind != string(histogram)) && !isPrefix(name, rows) {
			t.Errorf("%s is no metric", name)
		}
	}
	if names < 100 {
		t.Errorf("found only %d names", names)
	}
	for _, label := range append(append(outcomeLabels(), engine.TypeLabels[:]...), "inflight", "connection_inflight", "upstream_buffer", "connections",
		"peer_connections", "unauthorized", "others", "rate", "subject") {
		if !strings.Contains(text, "`"+label+"`") {
			t.Errorf("the document does not mention the label value %s", label)
		}
	}
}

// isPrefix reports whether name stands for a group of metrics, as process_io_ does.
func isPrefix(name string, rows map[string]documented) bool {
	if !strings.HasSuffix(name, "_") {
		return false
	}
	for row := range rows {
		if strings.HasPrefix(row, name) {
			return true
		}
	}
	return false
}
