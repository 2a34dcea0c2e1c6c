package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int{
		"0": 0, "4096": 4096, "4096B": 4096, "1KiB": 1024, "8MiB": 8 << 20, "8 MiB": 8 << 20, "1GiB": 1 << 30, "1kB": 1000, "2MB": 2e6,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "8mib", "8M", "0x10", "9999999999GiB", "99999999999999999999"} {
		if got, err := parseSize(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %d, %v, want an error that names it", text, got, err)
		}
	}
}

func TestShowSize(t *testing.T) {
	for n, want := range map[int]string{0: "0", 100: "100", 1024: "1KiB", 8 << 20: "8MiB", 1 << 30: "1GiB", 1<<20 + 1: "1048577"} {
		if got := showSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string][]int{
		"": nil, "3": {3}, "2,3": {2, 3}, "2-5": {2, 3, 4, 5}, "0,4-6, 9": {0, 4, 5, 6, 9},
	} {
		if got, err := parseCPUs(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{",", "1,", "a", "-1", "3-1", "1-", "1-2-3", "2,2", "1-3,2", "0-4000000000", "0-1024"} {
		if got, err := parseCPUs(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, %v, want an error that names it", text, got, err)
		}
	}
}

func TestParsePermission(t *testing.T) {
	for text, want := range map[string]os.FileMode{"600": 0o600, "0660": 0o660, "0o666": 0o666} {
		if got, err := parsePermission(text); err != nil || got != want {
			t.Errorf("%q: got %#o, %v, want %#o", text, got, err, want)
		}
	}
	for _, text := range []string{"", "rw", "0680", "-600", "0x1ff"} {
		if got, err := parsePermission(text); err == nil {
			t.Errorf("%q: got %#o, want an error", text, got)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{"": "", "off": "", "127.0.0.1:0": "127.0.0.1:0", ":8080": ":8080", "[::1]:80": "[::1]:80"} {
		if got, err := parseAddress(text); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"8080", "localhost", "localhost:http", "h:65536", "::1:80"} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

// What a value shows is what it reads: the defaults in the help can be typed.
func TestValuesReadWhatTheyShow(t *testing.T) {
	o := defaultOptions()
	for _, s := range o.settings() {
		shown := s.value.show()
		if err := s.value.set(shown); err != nil {
			t.Errorf("%s%s: %v", s.flag, s.key, err)
		}
		if again := s.value.show(); again != shown {
			t.Errorf("%s%s: %q became %q", s.flag, s.key, shown, again)
		}
	}
}
