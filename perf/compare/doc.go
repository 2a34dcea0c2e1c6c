// Package compare measures the gateway and its peers on one machine, in turns and in one go.
//
// It builds and starts what it needs, each part a process of its own, on loopback and in a temporary folder, and ends it
// again. A [Cell] is a kind of request, a number of connections, a window and a payload. In each cell every side that can
// do it makes a run after the other, as often as [Settings] say: so whatever else the machine does meets all of
// them. See perf/README.md for how to read the result.
package compare
