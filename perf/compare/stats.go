package compare

import (
	"math"
	"slices"
)

// median returns the middle of values, or the mean of the middle two; NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratio compares two series of runs that were made in turns.
type ratio struct {
	medians  float64 // median of the first / median of the second
	min, max float64 // of the ratios of runs made one after the other
}

// compare returns how a relates to b. Both have the same length, and a[i] was measured next to b[i].
func compare(a, b []float64) ratio {
	r := ratio{medians: median(a) / median(b), min: math.Inf(1), max: math.Inf(-1)}
	for i := range a {
		r.min = min(r.min, a[i]/b[i])
		r.max = max(r.max, a[i]/b[i])
	}
	return r
}
