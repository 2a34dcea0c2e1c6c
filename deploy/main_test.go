// Package deploy checks the files in this folder against the program: that they name only what there is, and all that there is.
package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/aigroup/ipc-gateway/engine"
	"github.com/aigroup/ipc-gateway/internal/testtool"
	"github.com/aigroup/ipc-gateway/probe"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(readFile(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// exposition is what a gateway that was not started yet tells on /metrics: every series is there from the start.
func exposition(t *testing.T) string {
	t.Helper()
	gateway, err := engine.New(engine.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	probe.NewHandler(gateway).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	return recorder.Body.String()
}

var typeLine = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)

// metricNames returns the names of all samples that there are, and of the gateway's own families.
func metricNames(text string) (samples map[string]bool, families []string) {
	samples = map[string]bool{}
	for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
		name, kind := m[1], m[2]
		if strings.HasPrefix(name, "ipc_") {
			families = append(families, name)
		}
		suffixes := map[string][]string{"histogram": {"_bucket", "_sum", "_count"}, "summary": {"", "_sum", "_count"}}[kind]
		if suffixes == nil {
			suffixes = []string{""}
		}
		for _, suffix := range suffixes {
			samples[name+suffix] = true
		}
	}
	return samples, families
}

// dashboard is what matters here of Grafana's format.
type dashboard struct {
	Annotations struct{ List []struct{ Name, Expr string } }
	Panels      []panel
}

type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ X, Y, W, H int }
	Targets []struct {
		Expr       string
		Datasource struct{ UID string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, "grafana/dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries returns every query of the dashboard, by the title of its panel and its number.
func (d *dashboard) queries() (list []query) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list = append(list, query{"panel " + p.Title, target.Expr})
		}
	}
	for _, a := range d.Annotations.List {
		list = append(list, query{"annotation " + a.Name, a.Expr})
	}
	return list
}

type query struct{ where, expr string }

type rules struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert       string
	Expr        string
	Labels      map[string]string
	Annotations map[string]string
}

func readRules(t *testing.T) (list []rule) {
	t.Helper()
	var r rules
	readYAML(t, "prometheus/alerts.yml", &r)
	for _, g := range r.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// allQueries returns those of the dashboard and those of the rules.
func allQueries(t *testing.T) []query {
	t.Helper()
	d := readDashboard(t)
	list := d.queries()
	for _, r := range readRules(t) {
		list = append(list, query{"alert " + r.Alert, r.Expr})
	}
	return list
}

var (
	metricName = regexp.MustCompile(`\b(?:ipc|go|process)_\w+`)
	matcher    = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"([^"]*)"`)
)

// Goal: a query of a metric, or of a value of a label, that does not exist returns nothing for ever, and nobody notices.
func TestQueriesNameOnlyWhatThereIs(t *testing.T) {
	text := exposition(t)
	samples, _ := metricNames(text)
	for _, q := range allQueries(t) {
		names := metricName.FindAllString(q.expr, -1)
		for _, name := range names {
			if !samples[name] {
				t.Errorf("%s: there is no %s", q.where, name)
			}
		}
		if len(names) == 0 && !strings.Contains(q.expr, "up{") && !strings.Contains(q.expr, "ALERTS{") {
			t.Errorf("%s asks for no metric: %s", q.where, q.expr)
		}
		for _, m := range matcher.FindAllStringSubmatch(q.expr, -1) {
			if slices.Contains([]string{"instance", "job", "alertname", "alertstate", "quantile"}, m[1]) {
				continue
			}
			for value := range strings.SplitSeq(m[2], "|") {
				if !strings.Contains(text, m[1]+`="`+value+`"`) {
					t.Errorf("%s: no series has %s=%q", q.where, m[1], value)
				}
			}
		}
	}
}

// Goal: every metric of the gateway is on the dashboard or in a rule. Those of Go and the process are explained in docs/metrics.md,
// where a test of the probe looks.
func TestEveryMetricOfTheGatewayIsShown(t *testing.T) {
	_, families := metricNames(exposition(t))
	var all strings.Builder
	for _, q := range allQueries(t) {
		all.WriteString(q.expr + "\n")
	}
	for _, name := range families {
		if !regexp.MustCompile(`\b` + name + `(_bucket|_sum|_count)?\b`).MatchString(all.String()) {
			t.Errorf("%s is neither on the dashboard nor in a rule", name)
		}
	}
	if len(families) < 40 {
		t.Errorf("only %d families", len(families))
	}
}

// Goal: Grafana can show the dashboard: each panel has an id and a place of its own, a title, and the data source that was chosen.
func TestDashboardIsWhole(t *testing.T) {
	d := readDashboard(t)
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Title == "" || ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("panel %d %q: no title, an id that is taken, or no place: %+v", p.ID, p.Title, p.GridPos)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" {
					t.Fatalf("%q covers %q", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
		if (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("%q has %d queries", p.Title, len(p.Targets))
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || !strings.Contains(target.Expr, `instance=~"$instance"`) {
				t.Errorf("%q does not follow the choice of data source and gateway: %s", p.Title, target.Expr)
			}
		}
	}
}

// Goal: who is woken by an alert finds what to do: each has an entry in the manual, its link leads there, and there is none for others.
func TestAlertsHaveRunbooksAndTests(t *testing.T) {
	_, manual, _ := strings.Cut(readFile(t, "../docs/operations.md"), "\n## Alerts\n")
	var cases struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	readYAML(t, "prometheus/alerts_test.yml", &cases)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, c := range cases.Tests {
		for _, a := range c.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				quiet[a.Alertname] = true
			}
		}
	}
	alerts := map[string]bool{}
	for _, r := range readRules(t) {
		alerts[r.Alert] = true
		if !strings.Contains(manual, "\n### "+r.Alert+"\n") {
			t.Errorf("docs/operations.md has no entry for %s", r.Alert)
		}
		if link := r.Annotations["runbook_url"]; !strings.HasSuffix(link, "/docs/operations.md#"+strings.ToLower(r.Alert)) {
			t.Errorf("%s: the link is %s", r.Alert, link)
		}
		if r.Annotations["summary"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s: summary or severity is missing", r.Alert)
		}
		if !fires[r.Alert] || !quiet[r.Alert] {
			t.Errorf("%s: want a test in which it fires, and one in which it does not", r.Alert)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (IPCGateway\w+)$`).FindAllStringSubmatch(manual, -1) {
		if !alerts[m[1]] {
			t.Errorf("docs/operations.md has an entry for %s, which is no alert", m[1])
		}
	}
}

// Goal: the panel of all breakers shows the worst of them, and open, which is 1, is worse than half-open, which is 2. Method:
// promtool evaluates its query, with gateways in several states at a time each.
func TestBreakerPanelShowsTheWorst(t *testing.T) {
	promtool := testtool.Find(t, "promtool", "prometheus")
	var expr string
	d := readDashboard(t)
	for _, p := range d.Panels {
		if p.Type == "stat" && p.Title == "Circuit breakers" {
			expr = strings.ReplaceAll(p.Targets[0].Expr, "$instance", ".*")
		}
	}
	type object = map[string]any
	sample := func(eval string, value int) object {
		return object{"expr": expr, "eval_time": eval, "exp_samples": []any{object{"labels": "{}", "value": value}}}
	}
	cases, err := yaml.Marshal(object{"tests": []any{object{
		"interval": "1m",
		"input_series": []any{
			object{"series": `ipc_circuit_breaker_state{instance="a"}`, "values": "0 1 2 2"},
			object{"series": `ipc_circuit_breaker_state{instance="b"}`, "values": "0 2 1 0"},
		},
		"promql_expr_test": []any{sample("0m", 0), sample("1m", 1), sample("2m", 1), sample("3m", 2)},
	}}})
	path := filepath.Join(t.TempDir(), "panel_test.yml")
	if err == nil {
		err = os.WriteFile(path, cases, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.CommandContext(t.Context(), promtool, "test", "rules", path).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// Goal: Prometheus' own tool finds the configuration and the rules right, and the rules pass their tests.
func TestPromtool(t *testing.T) {
	promtool := testtool.Find(t, "promtool", "prometheus")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = "prometheus"
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, output)
		}
	}
}
