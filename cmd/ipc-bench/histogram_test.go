package main

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Goal: what is written has the whole histogram: reading the lines again gives every bucket its count, and the percentiles
// are those of the counts.
func TestWriteHistogram(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	recorded := hdrhistogram.New(1, int64(time.Hour), 3)
	for range 50_000 {
		if err := recorded.RecordValue(int64(math.Exp(random.Float64() * math.Log(float64(time.Minute))))); err != nil {
			t.Fatal(err)
		}
	}
	if err := recorded.RecordValues(1_234_567, 1_000_000); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := writeHistogram(&text, recorded); err != nil {
		t.Fatal(err)
	}
	again := hdrhistogram.New(1, int64(time.Hour), 3)
	var before int64
	for lines := bufio.NewScanner(strings.NewReader(text.String())); lines.Scan(); {
		var (
			us, share float64
			upTo      int64
			inverse   string
		)
		if n, _ := fmt.Sscan(lines.Text(), &us, &share, &upTo, &inverse); n < 4 {
			continue // the head and the foot
		}
		if err := again.RecordValues(int64(math.Round(us*1e3)), upTo-before); err != nil {
			t.Fatal(err)
		}
		if want := float64(upTo) / float64(recorded.TotalCount()); math.Abs(share-want) > 1e-9 {
			t.Errorf("%d of %d are %v", upTo, recorded.TotalCount(), share)
		}
		before = upTo
	}
	if !again.Equals(recorded) || again.TotalCount() != recorded.TotalCount() {
		t.Errorf("%d values were read again, of %d", again.TotalCount(), recorded.TotalCount())
	}
	if !slices.Equal(again.Distribution(), recorded.Distribution()) {
		t.Error("the buckets have other counts")
	}
	if !strings.Contains(text.String(), fmt.Sprintf("Total count    = %12d", recorded.TotalCount())) {
		t.Errorf("the foot is %s", text.String()[text.Len()-200:])
	}
}

// Goal: a histogram of nothing is written too.
func TestWriteEmptyHistogram(t *testing.T) {
	var text strings.Builder
	if err := writeHistogram(&text, hdrhistogram.New(1, 1000, 3)); err != nil || !strings.Contains(text.String(), "Total count    =            0") {
		t.Errorf("%v: %s", err, text.String())
	}
}
