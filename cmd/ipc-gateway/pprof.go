package main

import (
	"fmt"
	"net"
	"runtime"
	"strconv"

	"github.com/aigroup/ipc-gateway/probe"
)

// Where profiles of the process may be read.
const (
	pprofOff      = "off"
	pprofLoopback = "loopback" // on the probe's address, which has to be on loopback
	pprofAnywhere = "anywhere" // on the probe's address, whatever it is
)

// pprofValue takes one of them, or true or false for the first two.
func pprofValue(p *string) value {
	v := fieldValue(p, func(text string) (string, error) {
		switch text {
		case pprofOff, pprofLoopback, pprofAnywhere:
			return text, nil
		}
		on, err := strconv.ParseBool(text)
		if err != nil {
			return "", fmt.Errorf("%q is unknown: want %s, %s or %s", text, pprofOff, pprofLoopback, pprofAnywhere)
		}
		if on {
			return pprofLoopback, nil
		}
		return pprofOff, nil
	}, func(where string) string { return where })
	v.toggle = true
	return v
}

// pprofProblem says why profiles cannot be served as o wants it, and what to do. Empty: they can, or are not wanted.
func (o *options) pprofProblem() string {
	if o.pprof == pprofOff {
		return ""
	}
	source := o.sourceOf("pprof")
	switch {
	case o.probeAddr == "":
		return source + ": profiles are served by the probe, which is off: give it an address with --probe-addr"
	case o.pprof == pprofLoopback && !isLoopback(o.probeAddr):
		return fmt.Sprintf("%s: other machines could read the profiles, as the probe's address is %s: "+
			"choose one on loopback, as --probe-addr 127.0.0.1:8080, or allow it with --pprof=%s", source, o.probeAddr, pprofAnywhere)
	}
	return ""
}

// isLoopback reports whether a listener at address, host:port, is out of reach for other machines.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// probeOptions returns what the probe is to serve beside health and metrics.
func (o *options) probeOptions() []probe.Option {
	if o.pprof == pprofOff {
		return nil
	}
	return []probe.Option{probe.WithProfiles(o.pprof == pprofAnywhere)}
}

// sampleHeap stops the sampling of allocations, which the Go runtime does from the start on in a program that could show
// them, unless this process will.
func (o *options) sampleHeap() {
	if o.pprof == pprofOff {
		runtime.MemProfileRate = 0
	}
}
