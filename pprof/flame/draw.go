package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// Sizes in pixels.
const (
	pictureWidth = 1200
	margin       = 10
	headHeight   = 58
	rowHeight    = 17
	frameWidth   = pictureWidth - 2*margin
	charWidth    = 6.6 // of the font, on average
	leastWidth   = 0.4 // narrower frames are left out
)

// layer is a kind of code, in the colour that its frames have.
type layer struct {
	name, colour string
	has          func(function string) bool
}

// layers are looked through in this order: the first that has a function wins.
var layers = []layer{
	{"label or thread", "#d4d4d8", func(f string) bool { return strings.HasPrefix(f, "thread ") || isLabel(f) }},
	{"the gateway", "#86c98a", func(f string) bool {
		return strings.HasPrefix(f, "github.com/aigroup/ipc-gateway/") || strings.HasPrefix(f, "main.")
	}},
	{"kernel", "#f2a35e", func(f string) bool { return strings.HasSuffix(f, kernelSuffix) }},
	{"system calls", "#f4cf65", func(f string) bool {
		return strings.HasPrefix(f, "syscall.") || strings.HasPrefix(f, "internal/runtime/syscall") || strings.HasPrefix(f, "golang.org/x/sys/unix.")
	}},
	{"Go runtime", "#e8857d", func(f string) bool {
		return strings.HasPrefix(f, "runtime.") || strings.HasPrefix(f, "internal/runtime/")
	}},
	{"other packages", "#8fb8de", func(string) bool { return true }},
}

func isLabel(name string) bool {
	return strings.Contains(name, "=") && !strings.ContainsAny(name, "(.")
}

func colourOf(name string) string {
	for _, l := range layers {
		if l.has(name) {
			return l.colour
		}
	}
	return ""
}

// draw writes the flame graph of p, whose root has samples.
func draw(w *bytes.Buffer, p *profile, title string) {
	least := int64(leastWidth / frameWidth * float64(p.root.total))
	height := headHeight + p.root.depth(max(least, 1))*rowHeight + margin
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="monospace" font-size="11">`+"\n",
		pictureWidth, height, pictureWidth, height)
	fmt.Fprintf(w, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n"+`<text x="%d" y="20" font-size="15">%s</text>`+"\n",
		margin, escape(fmt.Sprintf("%s: %s", title, amount(p.root.total, p.unit))))
	drawLegend(w)
	d := drawing{w: w, unit: p.unit, all: p.root.total, least: max(least, 1), bottom: height - margin - rowHeight}
	d.frame(p.root, 0, 0)
	w.WriteString(zoom + "</svg>\n")
}

func drawLegend(w *bytes.Buffer) {
	x := margin
	for _, l := range layers {
		fmt.Fprintf(w, `<rect x="%d" y="32" width="12" height="12" fill="%s"/><text x="%d" y="42">%s</text>`+"\n", x, l.colour, x+16, l.name)
		x += 40 + int(charWidth*float64(len(l.name)))
	}
}

type drawing struct {
	w          *bytes.Buffer
	unit       string
	all, least int64
	bottom     int // y of the lowest row
}

// frame draws f, with before of the samples to its left, and what stands on it.
func (d *drawing) frame(f *frame, before int64, row int) {
	x := margin + float64(before)/float64(d.all)*frameWidth
	width := float64(f.total) / float64(d.all) * frameWidth
	y := d.bottom - row*rowHeight
	share := 100 * float64(f.total) / float64(d.all)
	fmt.Fprintf(d.w, `<g><title>%s: %s, %.2f%%</title><rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s" stroke="#fff" stroke-width=".5"/>`+
		`<text x="%.2f" y="%d">%s</text></g>`+"\n",
		escape(f.name), amount(f.total, d.unit), share, x, y, width, rowHeight, colourOf(f.name), x+3, y+rowHeight-5, escape(shorten(f.name, width)))
	for _, child := range f.sorted() {
		if child.total >= d.least {
			d.frame(child, before, row+1)
		}
		before += child.total
	}
}

// shorten returns as much of a function's name as fits: without the path of its package, then cut off.
func shorten(name string, width float64) string {
	room := int((width - 6) / charWidth)
	if len(name) > room {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	switch {
	case len(name) <= room:
		return name
	case room < 3:
		return ""
	}
	return name[:room-2] + ".."
}

// amount is a value as people read it.
func amount(value int64, unit string) string {
	if unit == "nanoseconds" {
		return time.Duration(value).Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%d %s", value, unit)
}

func escape(text string) string {
	var escaped bytes.Buffer
	_ = xml.EscapeText(&escaped, []byte(text)) // a buffer takes everything
	return escaped.String()
}

// zoom is what a click does, in a program that shows SVG with scripts: a browser.
const zoom = `<script><![CDATA[
const groups = [...document.querySelectorAll("g")].map(g => {
  const r = g.querySelector("rect"), t = g.querySelector("text"), name = g.querySelector("title").textContent.replace(/: [^:]*$/, "");
  return {g, r, t, name, x: +r.getAttribute("x"), w: +r.getAttribute("width")};
});
function fit(name, w) {
  const room = Math.floor((w - 6) / 6.6);
  if (name.length > room) name = name.slice(name.lastIndexOf("/") + 1);
  return name.length <= room ? name : room < 3 ? "" : name.slice(0, room - 2) + "..";
}
for (const to of groups) to.g.addEventListener("click", () => {
  const scale = groups[0].w / to.w;
  for (const f of groups) {
    const below = f.x <= to.x + .01 && f.x + f.w >= to.x + to.w - .01;
    const x = below ? groups[0].x : groups[0].x + (f.x - to.x) * scale, w = below ? groups[0].w : f.w * scale;
    f.g.style.display = below || f.x >= to.x - .01 && f.x + f.w <= to.x + to.w + .01 ? "" : "none";
    f.r.setAttribute("x", x); f.r.setAttribute("width", w); f.t.setAttribute("x", x + 3);
    f.t.textContent = fit(f.name, w);
  }
});
]]></script>
`
