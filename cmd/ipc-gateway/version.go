package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: go build -ldflags "-X main.version=v1.2.3".
var version string

// versionCommand prints what was built, from what, with what.
type versionCommand struct{}

// Run prints one line.
func (v *versionCommand) Run(a *app) error {
	_, err := fmt.Fprintf(a.stdout, "ipc-gateway %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildVersion returns the stamped version, else what the Go tool noted in the binary: the module's
// version or the commit, else "unknown".
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
