package compare

import (
	"strings"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	const text = "# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total 123456\n" +
		"go_gc_duration_seconds{quantile=\"1\"} 0.5\ngo_gc_duration_seconds_sum 1.5\ngo_gc_duration_seconds_count 7\n"
	got, err := parseMetrics(text)
	if want := (goMetrics{mallocs: 123456, collections: 7}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := parseMetrics(strings.Replace(text, "123456", "1.5e+06", 1)); err != nil || got.mallocs != 1_500_000 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := parseMetrics(strings.ReplaceAll(text, collectionsName, "other")); err == nil || !strings.Contains(err.Error(), collectionsName) {
		t.Errorf("got %v, want an error that names %s", err, collectionsName)
	}
	if _, err := parseMetrics(strings.Replace(text, "123456", "many", 1)); err == nil || !strings.Contains(err.Error(), mallocsName) {
		t.Errorf("got %v, want an error that names %s", err, mallocsName)
	}
}
