package compare

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// goMetrics is what a gateway's /metrics says about its Go runtime, since the start.
type goMetrics struct{ mallocs, collections int64 }

// Names as VictoriaMetrics/metrics exports them.
const (
	mallocsName     = "go_memstats_mallocs_total"
	collectionsName = "go_gc_duration_seconds_count"
)

// scrape reads the metrics at url. Each scrape allocates in the gateway.
func scrape(ctx context.Context, url string) (goMetrics, error) {
	body, err := get(ctx, url)
	if err != nil {
		return goMetrics{}, err
	}
	return parseMetrics(body)
}

// parseMetrics reads the Prometheus text format. The error says which metric is missing or no number.
func parseMetrics(text string) (goMetrics, error) {
	var m goMetrics
	want := map[string]*int64{mallocsName: &m.mallocs, collectionsName: &m.collections}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, number, _ := strings.Cut(lines.Text(), " ")
		target, wanted := want[name]
		if !wanted {
			continue
		}
		// Large counters may be written as 1.5e+06.
		value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil {
			return goMetrics{}, fmt.Errorf("metric %s: %w", name, err)
		}
		*target = int64(value)
		delete(want, name)
	}
	for name := range want {
		return goMetrics{}, fmt.Errorf("metric %s is missing", name)
	}
	return m, lines.Err()
}

// get returns the body of a 200 answer.
func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
