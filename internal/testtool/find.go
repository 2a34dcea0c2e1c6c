// Package testtool finds the programs that tests need and that are not part of Go.
package testtool

import (
	"os"
	"os/exec"
	"testing"
)

// required is the variable by which .ci/run says that it has installed them all.
const required = "CI_REQUIRE_TOOLS"

// Find returns the path of a program. Where it is missing the test is skipped, or fails if all are to be there.
func Find(t testing.TB, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed (Debian's package %s)", name, debianPackage)
	}
	return path
}

// Missing skips a test that cannot be run without something, or fails it if all is to be there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(required) == "1" {
		t.Fatalf(format+", and "+required+" says that all is there", args...)
	}
	t.Skipf(format, args...)
}
