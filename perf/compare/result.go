package compare

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// Result is a whole comparison.
type Result struct {
	Started  time.Time     `json:"started"`
	Machine  string        `json:"machine"`
	Settings Settings      `json:"settings"`
	LeftOut  []string      `json:"left_out,omitempty"` // why some sides and cells did not take part
	Cells    []*CellResult `json:"results"`
	Failed   []string      `json:"failed,omitempty"` // cells without a result, and why: a failed run, or an interruption
}

// CellResult is what all sides did in one cell.
type CellResult struct {
	Cell
	Sides []*SideResult `json:"sides"` // the gateway first, if it took part
}

// SideResult is the runs of one side. Run i was made next to run i of the others.
type SideResult struct {
	Name string    `json:"name"`
	Runs []*Sample `json:"runs"`
}

func newResult(s Settings) *Result {
	return &Result{
		Started: time.Now(), Settings: s,
		Machine: fmt.Sprintf("%s/%s, %s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.Version(), runtime.NumCPU()),
	}
}

// side returns that with the name, or nil.
func (c *CellResult) side(name string) *SideResult {
	for _, s := range c.Sides {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// String is the rates, for whoever waits.
func (c *CellResult) String() string {
	rates := make([]string, len(c.Sides))
	for i, s := range c.Sides {
		rates[i] = fmt.Sprintf("%s %.0f/s", s.Name, s.median(perSecond))
	}
	return fmt.Sprintf("%v: %s", c.Cell, strings.Join(rates, ", "))
}

// values are those of all runs.
func (s *SideResult) values(value func(*Sample) float64) []float64 {
	values := make([]float64, len(s.Runs))
	for i, run := range s.Runs {
		values[i] = value(run)
	}
	return values
}

func (s *SideResult) median(value func(*Sample) float64) float64 { return median(s.values(value)) }
