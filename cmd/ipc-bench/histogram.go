package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// writeHDR writes a whole histogram of nanoseconds to a file.
func writeHDR(path string, h *hdrhistogram.Histogram) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeHistogram(f, h), f.Close())
}

// writeHistogram writes h in HdrHistogram's text format of percentiles, in microseconds. Its own tools write some percentiles; here
// each value that was recorded has a line, so that nothing of the histogram is lost: a value's count is the difference of two
// lines' third columns, and a value is the greatest of its bucket, exact to the nanosecond.
func writeHistogram(w io.Writer, h *hdrhistogram.Histogram) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, " Value\tPercentile\tTotalCount\t1/(1-Percentile)\n\n")
	total, upTo := h.TotalCount(), int64(0)
	for _, bar := range h.Distribution() {
		if bar.Count == 0 {
			continue
		}
		upTo += bar.Count
		inverse := "inf"
		if upTo < total {
			inverse = fmt.Sprintf("%.2f", float64(total)/float64(total-upTo))
		}
		fmt.Fprintf(out, "%12.3f %14.12f %12d %12s\n", us(bar.To), float64(upTo)/float64(total), upTo, inverse)
	}
	fmt.Fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", h.Mean()/1e3, h.StdDev()/1e3)
	fmt.Fprintf(out, "#[Max     = %12.3f, Total count    = %12d]\n", us(h.Max()), total)
	return out.Flush()
}
