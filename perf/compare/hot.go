package compare

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// hot are functions of the data path that are small for a reason: each is on the way of every request, and the compiler has to
// put it into its callers. Who renames one renames it here.
var hot = map[string][]string{
	"./codec":    {"FrameBytes", "AppendHeaderV1"},
	"./pool":     {"(*Counts).Acquired", "(*Counts).Released", "Handle.Index", "Handle.generation"},
	"./upstream": {"(*Link).Ready", "(*Link).Pending", "(*Link).PendingBytes", "MessageBytes", "appendSize", "appendToken", "parseToken"},
	"./engine":   {"(*loop).readClock", "(*loop).turnOf", "(*session).waitsForAnswers", "fits", "(*loop).outBuffer", "(*loop).touch", "(*localBudget).take", "(*localBudget).give", "(*idSet).hash", "(*loop).keyOf", "latencyBucket", "outcomeOf"},
}

// inlinable finds the functions that the compiler can inline in what -gcflags=-m prints.
var inlinable = regexp.MustCompile(`(?m): can inline (\S+?)(?: with cost.*)?$`)

// inlined asks the compiler about the hot functions.
func inlined(ctx context.Context, root string) ([]*Check, error) {
	var checks []*Check
	for _, folder := range []string{"./codec", "./pool", "./upstream", "./engine"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-gcflags=-m", folder)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("go build -gcflags=-m %s: %w\n%s", folder, err, out)
		}
		checks = append(checks, notInlined(folder, hot[folder], string(out)))
	}
	return checks, nil
}

// notInlined checks that of the functions of a package none is missing in the compiler's output.
func notInlined(folder string, names []string, output string) *Check {
	can := map[string]bool{}
	for _, match := range inlinable.FindAllStringSubmatch(output, -1) {
		can[match[1]] = true
	}
	var missing []string
	for _, name := range names {
		if !can[name] {
			missing = append(missing, name)
		}
	}
	check := &Check{Name: "hot functions of " + folder + " that are not inlined", Got: float64(len(missing))}
	if len(missing) > 0 {
		check.Name += ", or have another name now: " + strings.Join(missing, ", ")
	}
	return check
}
