package codec

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The hex dumps in the protocol's document are frames of the golden files, and its table of errors
// is the table of the code.
func TestProtocolDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../docs/protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	var golden strings.Builder
	for _, file := range goldenFiles() {
		frames, err := os.ReadFile(filepath.FromSlash(file.path))
		if err != nil {
			t.Fatal(err)
		}
		golden.Write(frames)
	}
	dumps := regexp.MustCompile("(?s)```hex\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(dumps) == 0 {
		t.Error("the document has no hex dumps")
	}
	for _, dump := range dumps {
		if !strings.Contains(golden.String(), "\n"+dump[1]) {
			t.Errorf("this is not in the golden files:\n%s", dump[1])
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([A-Z_]+) \| (yes|no) \|`).FindAllStringSubmatch(string(text), -1)
	if len(rows) != len(ErrorCodes()) {
		t.Fatalf("the document has %d error codes, the code %d", len(rows), len(ErrorCodes()))
	}
	for i, code := range ErrorCodes() {
		retryable := "no"
		if code.Retryable() {
			retryable = "yes"
		}
		if row := rows[i]; row[1] != strconv.Itoa(int(code)) || row[2] != code.Name() || row[3] != retryable {
			t.Errorf("the document says %v, the code %d %s %s", row[1:], code, code.Name(), retryable)
		}
	}
	types := regexp.MustCompile(`(?m)^\| 0x([0-9A-F]{2}) \| ([A-Z_]+) \|`).FindAllStringSubmatch(string(text), -1)
	if len(types) != 17 {
		t.Errorf("the document has %d frame types, want 17", len(types))
	}
	for _, row := range types {
		if number, err := strconv.ParseUint(row[1], 16, 8); err != nil || Type(number).String() != row[2] {
			t.Errorf("the document says %v, the code %v", row[1:], Type(number))
		}
	}
}
