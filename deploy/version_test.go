package deploy

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// Goal: dpkg takes each package for newer than the one before it, so that apt upgrades a release candidate to its release, and does
// not go back.
func TestDebianVersionsAreInOrder(t *testing.T) {
	dpkg := testtool.Find(t, "dpkg", "dpkg")
	before := "0~"
	for _, version := range []string{
		"0dd1e5a", "v1.2.0-alpha", "v1.2.0-beta.2", "v1.2.0-beta.10", "v1.2.0-rc1", "v1.2.0-rc1-3-g0dd1e5a", "v1.2.0-rc2", "v1.2.0", "v1.2.0-3-g0dd1e5a",
		"v1.2.0-12-g0dd1e5a", "v1.2.0-12-g0dd1e5a-dirty", "v1.2.1-rc1", "v1.2.1", "v1.10.0",
	} {
		output, err := exec.CommandContext(t.Context(), "debian/version", version).Output()
		if err != nil {
			t.Fatal(err)
		}
		is := strings.TrimSpace(string(output))
		if strings.Contains(is, "-") {
			t.Errorf("%s becomes %s, whose dash begins a revision", version, is)
		}
		if output, err := exec.CommandContext(t.Context(), dpkg, "--compare-versions", before, "lt", is).CombinedOutput(); err != nil {
			t.Errorf("%s becomes %s, which is not newer than %s: %v %s", version, is, before, err, output)
		}
		before = is
	}
}
