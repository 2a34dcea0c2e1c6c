package main

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// picture is some lines over an axis.
type picture struct {
	file, title  string
	xName, yName string
	xTicks       []plot.Tick // where x has values
	lines        []*line
}

// line is the points of one side.
type line struct {
	name   string
	points plotter.XYs // all over 0: both axes are logarithmic
}

const (
	width  = 20 * vg.Centimeter
	height = 12 * vg.Centimeter
)

// colors of the sides, ours first; easy to tell apart for most eyes (Okabe and Ito).
var colors = map[string]color.Color{
	"gateway": color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	"direct":  color.RGBA{0x00, 0x72, 0xb2, 0xff},
	"haproxy": color.RGBA{0x56, 0xb4, 0xe9, 0xff},
	"sidecar": color.RGBA{0x00, 0x9e, 0x73, 0xff},
	"ring":    color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	"echo":    color.RGBA{0x00, 0x00, 0x00, 0xff},
	"base":    color.RGBA{0xe6, 0x9f, 0x00, 0xff},
}

// others are the colors of lines that are no side.
var others = []color.Color{colors["gateway"], colors["direct"], colors["sidecar"], colors["ring"]}

// save draws p in folder.
func (p *picture) save(folder string) error {
	canvas := plot.New()
	canvas.Title.Text = p.title
	canvas.X.Label.Text, canvas.Y.Label.Text = p.xName, p.yName
	canvas.X.Scale, canvas.Y.Scale = plot.LogScale{}, plot.LogScale{}
	canvas.X.Tick.Marker = plot.ConstantTicks(p.xTicks)
	canvas.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	canvas.Legend.Top, canvas.Legend.Left = true, true
	canvas.Legend.Padding, canvas.Title.Padding = vg.Millimeter, 3*vg.Millimeter
	canvas.Add(plotter.NewGrid())
	for i, l := range p.lines {
		drawn, dots, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return err
		}
		paint, known := colors[l.name]
		if !known {
			paint = others[i%len(others)]
		}
		drawn.Color, dots.Color, dots.Shape = paint, paint, draw.CircleGlyph{}
		drawn.Width = vg.Points(1.2)
		if l.name == "gateway" {
			drawn.Width = vg.Points(2.4)
		}
		canvas.Add(drawn, dots)
		canvas.Legend.Add(l.name, drawn, dots)
	}
	roundUp(&canvas.Y)
	return canvas.Save(width, height, filepath.Join(folder, p.file))
}

// roundUp makes an axis end at powers of ten, which have labels.
func roundUp(axis *plot.Axis) {
	axis.Min = math.Pow(10, math.Floor(math.Log10(axis.Min)))
	axis.Max = math.Pow(10, math.Ceil(math.Log10(axis.Max)))
}

// percentileX is where a quantile stands: each nine is as wide as the one before. The last one drawn is 99.99%.
func percentileX(quantile float64) float64 { return 1 / (1 - quantile) }

var percentileTicks = []plot.Tick{
	{Value: percentileX(0), Label: "0%"}, {Value: percentileX(0.5), Label: "50%"}, {Value: percentileX(0.9), Label: "90%"},
	{Value: percentileX(0.99), Label: "99%"}, {Value: percentileX(0.999), Label: "99.9%"}, {Value: percentileX(0.9999), Label: "99.99%"},
}

func connectionTicks(counts []int) []plot.Tick {
	var ticks []plot.Tick
	for _, n := range counts {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: fmt.Sprint(n)})
	}
	return ticks
}
