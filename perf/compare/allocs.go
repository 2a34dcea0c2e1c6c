package compare

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// allocTested are the packages of the data path, whose tests named Alloc count what one call, or one request, allocates.
var allocTested = []string{"./codec", "./pool", "./upstream", "./engine"}

// allocationTests runs them, each package a check.
func allocationTests(ctx context.Context, root string) []*Check {
	var checks []*Check
	for _, folder := range allocTested {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-run", "Alloc", "-v", folder)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		checks = append(checks, allocationCheck(folder, string(out), err))
	}
	return checks
}

// allocationCheck reads what go test -v says of the tests of a package.
func allocationCheck(folder, output string, failed error) *Check {
	passed := strings.Count(output, "\n--- PASS: ")
	check := &Check{Name: fmt.Sprintf("tests of %s that count allocations and fail, of %d", folder, passed+strings.Count(output, "\n--- FAIL: ")),
		Got: float64(strings.Count(output, "\n--- FAIL: "))}
	if failed != nil && check.Got == 0 || failed == nil && passed == 0 {
		check.Name += fmt.Sprintf(": go test could not run them (%v)", failed)
		check.Got = 1
	}
	if check.Got > 0 {
		check.Name += "\n" + output + "\n"
	}
	return check
}
