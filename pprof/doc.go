// Package pprof holds the profiling kit: capture.sh profiles a gateway, flame draws what was captured, pgo.sh records the
// profile that the compiler optimizes by. README.md teaches reading them.
package pprof
