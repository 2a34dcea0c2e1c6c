package probe

import (
	"bytes"
	"compress/gzip"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Content types of /metrics.
const (
	textType        = "text/plain; version=0.0.4; charset=utf-8"
	openMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8"
)

// wantsOpenMetrics reports whether the header Accept names OpenMetrics 1.0.0, and does not prefer the text format. Who accepts
// anything, or nothing of what there is, gets the text format.
func wantsOpenMetrics(header http.Header) bool {
	var openMetrics, text float64
	for _, item := range listOf(header, "Accept") {
		kind, params, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		switch version := params["version"]; {
		case kind == "application/openmetrics-text" && (version == "" || version == "1.0.0"):
			openMetrics = max(openMetrics, quality(params["q"]))
		case kind == "text/plain" && (version == "" || version == "0.0.4"):
			text = max(text, quality(params["q"]))
		}
	}
	return openMetrics > 0 && openMetrics >= text
}

// acceptsGzip reports whether the header Accept-Encoding lets an answer be compressed with gzip.
func acceptsGzip(header http.Header) bool {
	named, others := -1.0, 0.0
	for _, item := range listOf(header, "Accept-Encoding") {
		coding, params, _ := strings.Cut(item, ";")
		_, q, _ := strings.Cut(params, "q=")
		switch strings.ToLower(strings.TrimSpace(coding)) {
		case "gzip", "x-gzip":
			named = quality(strings.TrimSpace(q))
		case "*":
			others = quality(strings.TrimSpace(q))
		}
	}
	return named > 0 || named < 0 && others > 0
}

// listOf returns the items of a header whose values are lists.
func listOf(header http.Header, name string) (items []string) {
	for _, value := range header.Values(name) {
		for item := range strings.SplitSeq(value, ",") {
			items = append(items, strings.TrimSpace(item))
		}
	}
	return items
}

// quality reads the weight of an item: 1 if it has none, 0 if it cannot be read.
func quality(text string) float64 {
	if text == "" {
		return 1
	}
	q, err := strconv.ParseFloat(text, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}

// compressors are kept because each is nearly a megabyte, and a scrape comes every few seconds.
var compressors = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is one
	}
	return w
}}

func compress(text []byte) []byte {
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	return out.Bytes()
}
