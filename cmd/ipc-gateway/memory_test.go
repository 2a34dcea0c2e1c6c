package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Goal: the least limit of the own cgroup and those above it is found, in both versions of cgroups and in a container.
func TestCgroupMemoryMax(t *testing.T) {
	const none1 = "9223372036854771712" // what version 1 says for no limit
	for _, c := range []struct {
		name, membership string
		files            map[string]string
		want             int64
	}{
		{"version 2, container", "0::/\n", map[string]string{"memory.max": "536870912\n"}, 512 << 20},
		{"version 2, service", "0::/system.slice/gw.service\n", map[string]string{"system.slice/gw.service/memory.max": "1000\n", "system.slice/memory.max": "max\n"}, 1000},
		{"version 2, limit of the slice", "0::/system.slice/gw.service\n", map[string]string{"system.slice/gw.service/memory.max": "max\n", "system.slice/memory.max": "2000\n"}, 2000},
		{"version 2, no limit", "0::/a\n", map[string]string{"a/memory.max": "max\n"}, 0},
		{"version 2, root without the file", "0::/\n", nil, 0},
		{"version 2, path out of the container", "0::/../../x\n", map[string]string{"memory.max": "3000\n"}, 3000},
		{"version 1, container, path of the host", "9:name=systemd:/\n4:memory:/docker/abc\n0::/\n", map[string]string{"memory/memory.limit_in_bytes": "4000\n"}, 4000},
		{"version 1, limit above", "4:memory:/a/b\n", map[string]string{"memory/a/b/memory.limit_in_bytes": none1 + "\n", "memory/a/memory.limit_in_bytes": "5000\n"}, 5000},
		{"version 1, no limit", "4:memory:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": none1 + "\n"}, 0},
		{"both", "4:memory:/\n0::/\n", map[string]string{"memory/memory.limit_in_bytes": "7000\n", "memory.max": "6000\n"}, 6000},
		{"garbage", "memory\n\n0::\n", map[string]string{"memory.max": "much\n"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			write := func(path, text string) string {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			for path, text := range c.files {
				write(path, text)
			}
			got, ok := cgroupMemoryMax(write("membership", c.membership), root)
			if ok != (c.want != 0) || ok && got != c.want {
				t.Errorf("got %d, %v, want %d", got, ok, c.want)
			}
		})
	}
	if _, ok := cgroupMemoryMax(filepath.Join(t.TempDir(), "none"), t.TempDir()); ok {
		t.Error("a limit without /proc")
	}
}

// Goal: the real program has the limit that its cgroup gives it, and that of GOMEMLIMIT if it is told one.
func TestMemoryLimitOfTheProgram(t *testing.T) {
	want := "9.223372036854776e+18" // none
	if limit, ok := cgroupMemoryMax("/proc/self/cgroup", "/sys/fs/cgroup"); ok {
		want = strconv.FormatInt(limit/100*memorySharePercent, 10)
	}
	for _, c := range []struct {
		env  []string
		want string
	}{{nil, want}, {[]string{"GOMEMLIMIT=123MiB"}, fmt.Sprint(123 << 20)}} {
		g := serve(t, c.env, "--nats-url", "nats://127.0.0.1:1")
		_, metrics, err := g.get("/metrics")
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`(?m)^go_memlimit_bytes (\S+)$`).FindStringSubmatch(metrics)
		if line == nil || number(t, line[1]) != number(t, c.want) {
			t.Errorf("%v: %v, want %s", c.env, line, c.want)
		}
		if told := strings.Contains(g.stderr.String(), "memory limit"); told != (c.env == nil && want[0] != '9') {
			t.Errorf("%v: told in the log: %v", c.env, told)
		}
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
