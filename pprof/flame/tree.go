package main

import (
	"maps"
	"slices"
)

// frame is a function in a flame graph, in the place where its callers put it.
type frame struct {
	name     string
	total    int64 // of itself and all that it called
	children map[string]*frame
}

func newFrame(name string) *frame { return &frame{name: name, children: map[string]*frame{}} }

// add counts value for a stack, the outermost frame first.
func (f *frame) add(stack []string, value int64) {
	f.total += value
	for _, name := range stack {
		child := f.children[name]
		if child == nil {
			child = newFrame(name)
			f.children[name] = child
		}
		child.total += value
		f = child
	}
}

// sorted returns the children by name.
func (f *frame) sorted() []*frame {
	list := make([]*frame, 0, len(f.children))
	for _, name := range slices.Sorted(maps.Keys(f.children)) {
		list = append(list, f.children[name])
	}
	return list
}

// depth returns how many frames stand on each other, f included, of those that count for least or more.
func (f *frame) depth(least int64) int {
	deepest := 0
	for _, child := range f.children {
		if child.total >= least {
			deepest = max(deepest, child.depth(least))
		}
	}
	return deepest + 1
}
