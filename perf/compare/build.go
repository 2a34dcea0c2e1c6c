package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// programs are the Go programs that a comparison runs.
var programs = []string{"./cmd/ipc-gateway", "./perf/natsd", "./perf/responder", "./perf/peers/direct", "./perf/peers/sidecar", "./perf/peers/ring"}

// buildTimeout is how long the builds may take, with nothing in the cache.
const buildTimeout = 10 * time.Minute

// errNoCompiler is returned by buildC where there is no C compiler.
var errNoCompiler = errors.New("no C compiler found for the clients: install gcc, or name one in CC")

// buildPrograms builds them into folder.
func buildPrograms(ctx context.Context, root, folder string) error {
	// The slash makes go build take folder for a folder.
	args := append([]string{"build", "-trimpath", "-o", folder + "/"}, programs...)
	return runTool(ctx, root, "go", args...)
}

// buildC builds a source, NAME.c, as folder/NAME.
func buildC(ctx context.Context, root, folder, source string) error {
	for _, compiler := range []string{os.Getenv("CC"), "gcc", "cc", "clang"} {
		if _, err := exec.LookPath(compiler); err == nil {
			return runTool(ctx, root, compiler, "-O2", "-o", filepath.Join(folder, strings.TrimSuffix(filepath.Base(source), ".c")), source)
		}
	}
	return errNoCompiler
}

// moduleRoot is the folder that the paths of the sources start from.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("run it inside the module: there is no go.mod here")
	}
	return filepath.Dir(file), nil
}

func runTool(ctx context.Context, folder, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
