package compare

import (
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{5}, 5},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{1, 1, 1, 1000}, 1},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 {
		t.Error("median sorts the caller's values: pairs no longer belong together")
	}
}

// The ratio is that of the medians; min and max are of pairs that were measured together.
func TestCompare(t *testing.T) {
	got := compare([]float64{20, 30, 40}, []float64{10, 10, 40})
	if want := (ratio{medians: 3, min: 1, max: 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := compare([]float64{math.NaN()}, []float64{1}); !math.IsNaN(got.medians) {
		t.Errorf("the ratio to something not measured is %v", got.medians)
	}
}
