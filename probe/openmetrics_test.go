package probe

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/aigroup/ipc-gateway/engine"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// Goal: what real scrapers send gets what they can read, and everybody else the text format.
func TestNegotiation(t *testing.T) {
	for _, c := range []struct {
		name, accept string
		want         string
	}{
		{"no header", "", textType},
		{"curl", "*/*", textType},
		{"a browser", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", textType},
		{"Prometheus 2.42", "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", openMetricsType},
		{"Prometheus 2.5", "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", textType},
		{"Prometheus 3", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", openMetricsType},
		{"Prometheus 3 with protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", openMetricsType},
		{"VictoriaMetrics", "text/plain;version=0.0.4;q=1,*/*;q=0.1", textType},
		{"text preferred", "application/openmetrics-text;q=0.3, text/plain;q=0.9", textType},
		{"without a version", "application/openmetrics-text", openMetricsType},
		{"any case", "Application/OpenMetrics-Text; Version=1.0.0", openMetricsType},
		{"refused", "application/openmetrics-text;q=0", textType},
		{"another version", "application/openmetrics-text;version=2.0.0", textType},
		{"a weight that is none", "application/openmetrics-text;q=much", textType},
		{"nothing of what there is", "application/json", textType},
		{"garbage", ";;,,=/;q", textType},
	} {
		header := http.Header{}
		if c.accept != "" {
			header.Set("Accept", c.accept)
		}
		got := textType
		if wantsOpenMetrics(header) {
			got = openMetricsType
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	for encoding, want := range map[string]bool{
		"": false, "gzip": true, "deflate, gzip;q=0.5": true, "GZIP": true, "gzip;q=0": false, "*": true, "*;q=0": false, "br, *": true,
		"gzip;q=0, *": false, "identity": false, "gzip; q=1.0, identity": true, "zstd": false,
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {encoding}}); got != want {
			t.Errorf("Accept-Encoding %q: gzip %v, want %v", encoding, got, want)
		}
	}
}

// Goal: over HTTP the format, its Content-Type and the coding go together, for HEAD as well.
func TestFormatsOverHTTP(t *testing.T) {
	server := serve(t, &state{stats: engine.Stats{Connections: 7}})
	for _, c := range []struct {
		accept, encoding, contentType string
	}{
		{"application/openmetrics-text", "gzip", openMetricsType}, {"application/openmetrics-text", "identity", openMetricsType},
		{"text/plain", "gzip", textType}, {"text/plain", "identity", textType},
	} {
		header := http.Header{"Accept": {c.accept}, "Accept-Encoding": {c.encoding}}
		got := ask(t, server, http.MethodGet, "/metrics", header)
		wantHeaders(t, got, c.contentType, len(got.body))
		if vary := got.header.Get("Vary"); vary != "Accept, Accept-Encoding" {
			t.Errorf("Vary is %q", vary)
		}
		text := got.body
		if coded := got.header.Get("Content-Encoding"); coded != strings.TrimPrefix(c.encoding, "identity") {
			t.Errorf("Content-Encoding is %q, want that of %s", coded, c.encoding)
		}
		if c.encoding == "gzip" {
			if len(text) > metricsBytes/4 {
				t.Errorf("%d bytes after compression", len(text))
			}
			text = unzip(t, text)
		}
		if ends := strings.HasSuffix(text, "\n# EOF\n"); ends != (c.contentType == openMetricsType) {
			t.Errorf("%s: ends with # EOF: %v", c.contentType, ends)
		}
		if !strings.Contains(text, "\nipc_connections 7\n") {
			t.Errorf("%s: ipc_connections is not 7", c.contentType)
		}
		if head := ask(t, server, http.MethodHead, "/metrics", header); head.header.Get("Content-Type") != c.contentType || head.body != "" {
			t.Errorf("HEAD: %v %q", head.header, head.body)
		}
	}
}

func unzip(t *testing.T, text string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// Goal: the rules of OpenMetrics that the text format does not have hold for a real exposition: no two families with one name, counters
// with _total, floating-point bounds, labels without spaces, the end marked once. And the samples are those of the text format.
func TestOpenMetricsOfARealExposition(t *testing.T) {
	h := NewHandler(&state{stats: engine.Stats{Requests: [engine.TypeCount]uint64{1, 2, 3}}}).(*handler)
	text := h.exposition()
	open := string(appendOpenMetrics(nil, text))
	families := map[string]string{}
	for line := range strings.Lines(open) {
		line = strings.TrimSuffix(line, "\n")
		if typed, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(typed, " ")
			if _, twice := families[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			families[name] = kind
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%q is no sample", line)
		}
		pairs, err := labelsOf(m[2])
		if err != nil || strings.Contains(m[2], `", `) {
			t.Errorf("%s: labels of another form: %v", line, err)
		}
		for _, pair := range pairs {
			if (pair[0] == "le" || pair[0] == "quantile") && !regexp.MustCompile(`[.eI]`).MatchString(pair[1]) {
				t.Errorf("%s: the bound is not a floating-point number", line)
			}
		}
		base, total := strings.CutSuffix(m[1], "_total")
		if kind, ok := families[base]; total && ok && kind != "counter" && families[m[1]] != "unknown" || families[m[1]] == "counter" {
			t.Errorf("%s: its family is %s", line, kind)
		}
	}
	if strings.Count(open, "# EOF") != 1 || !strings.HasSuffix(open, "\n# EOF\n") {
		t.Error("the end is not marked once")
	}
	for name, want := range map[string]string{
		"ipc_requests": "counter", "ipc_connections": "gauge", "ipc_connections_total": "unknown", "go_gc_forced_count": "unknown",
		"ipc_request_duration_seconds": "histogram", "go_gc_duration_seconds": "summary",
	} {
		if families[name] != want {
			t.Errorf("%s is a %q, want a %s", name, families[name], want)
		}
	}
	if got, want := values(t, open), values(t, string(text)); got != want {
		t.Error("the values are not those of the text format")
	}
}

// values returns the values of all samples, one a line.
func values(t *testing.T, text string) string {
	t.Helper()
	var all strings.Builder
	for line := range strings.Lines(text) {
		if line[0] != '#' {
			all.WriteString(line[strings.LastIndex(line, " "):])
		}
	}
	if all.Len() < 1000 {
		t.Fatal("no samples")
	}
	return all.String()
}

// Goal: the translation is what people have looked at; run with -update to write it anew.
func TestOpenMetricsGolden(t *testing.T) {
	const text = "# HELP a_total Counted.\n# TYPE a_total counter\na_total{x=\"le=\\\"1\\\"\"} 1\n" +
		"# HELP b Now.\n# TYPE b gauge\nb 2\n# HELP b_total All.\n# TYPE b_total counter\nb_total 3\n" +
		"# HELP c_count Without total.\n# TYPE c_count counter\nc_count 4\n" +
		"# HELP h Times.\n# TYPE h histogram\nh_bucket{t=\"x\",le=\"1e-05\"} 1\nh_bucket{t=\"x\",le=\"1\"} 2\nh_bucket{t=\"x\",le=\"+Inf\"} 2\nh_sum{t=\"x\"} 0.5\nh_count{t=\"x\"} 2\n" +
		"# HELP s Pauses.\n# TYPE s summary\ns{quantile=\"0\"} 0\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 1\n"
	got := appendOpenMetrics(nil, []byte(text))
	const golden = "testdata/openmetrics.txt"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Goal: no header of a stranger makes the probe panic, and a weight is never over 1.
func FuzzNegotiation(f *testing.F) {
	for _, seed := range []string{"", "*/*", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain", `a/b;c="d,e"`, "gzip;q=", ",;,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		wantsOpenMetrics(http.Header{"Accept": {text}})
		acceptsGzip(http.Header{"Accept-Encoding": {text}})
		if q := quality(text); !(q >= 0 && q <= 1) {
			t.Errorf("%s is a weight of %v", strconv.Quote(text), q)
		}
	})
}
