package codec

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// The files are what the vectors render to, the bytes in them decode to the vectors' frames, and
// those encode to the bytes again.
func TestGoldenFrames(t *testing.T) {
	for _, file := range goldenFiles() {
		var text strings.Builder
		fmt.Fprintf(&text, "# %s See README.md for the format.\n", file.about)
		for _, v := range file.vectors {
			fmt.Fprintf(&text, "\n# %s: %s\n", v.name, v.about)
			renderFrame(&text, AppendFrame(nil, &v.frame))
		}
		blocks := goldenBlocks(t, file.path, text.String())
		if len(blocks) != len(file.vectors) {
			t.Fatalf("%s has %d frames, want %d", file.path, len(blocks), len(file.vectors))
		}
		for i, v := range file.vectors {
			got, n, err := Decode(blocks[i])
			if err != nil || n != len(blocks[i]) || !equalFrames(&got, &v.frame) {
				t.Errorf("%s: %s decodes to %+v, %d, %v, want %+v", file.path, v.name, got, n, err, v.frame)
			}
			if again := AppendFrame(nil, &got); !slices.Equal(again, blocks[i]) {
				t.Errorf("%s: %s encodes to % x, want % x", file.path, v.name, again, blocks[i])
			}
		}
	}
}

func TestGoldenInvalid(t *testing.T) {
	for _, file := range badFiles() {
		var text strings.Builder
		fmt.Fprintf(&text, "# %s See ../README.md for the format.\n", file.about)
		for _, v := range file.vectors {
			connection := "stays"
			if v.closes {
				connection = "closes"
			}
			fmt.Fprintf(&text, "\n# %s: %s\n# refused: %s version=%d id=%d connection=%s\n", v.name, v.about, v.code.Name(), v.version, v.id, connection)
			if v.err != nil {
				fmt.Fprintf(&text, "# because: %s\n", strings.TrimPrefix(v.err.Error(), "codec: "))
			}
			renderFrame(&text, v.bytes)
		}
		blocks := goldenBlocks(t, file.path, text.String())
		if len(blocks) != len(file.vectors) {
			t.Fatalf("%s has %d frames, want %d", file.path, len(blocks), len(file.vectors))
		}
		for i, v := range file.vectors {
			f, n, err := Decode(blocks[i])
			switch {
			case v.closes:
				if n != 0 || !errors.Is(err, v.err) {
					t.Errorf("%s: got %d, %v, want 0, %v", v.name, n, err, v.err)
				}
			case n != len(blocks[i]):
				t.Errorf("%s: the frame has %d bytes, of which %d were read: %v", v.name, len(blocks[i]), n, err)
			case errors.Is(v.err, ErrMalformed) || err != nil:
				if !errors.Is(err, v.err) {
					t.Errorf("%s: got %v, want %v", v.name, err, v.err)
				}
			case !errors.Is(judge(&f), v.err):
				t.Errorf("%s: subject and headers are judged %v, want %v", v.name, judge(&f), v.err)
			}
			if f.Version != v.version || f.CorrelationID != v.id {
				t.Errorf("%s: to be answered in version %d, id %d, want %d, %d", v.name, f.Version, f.CorrelationID, v.version, v.id)
			}
		}
	}
}

// judge validates what a whole frame wants to pass on to NATS.
func judge(f *Frame) error {
	if f.Version == Version2 && f.Type == TypeRequest {
		if err := ValidateSubject(f.Subject); err != nil {
			return err
		}
	}
	return ValidateHeaders(f.Headers)
}

// Every type is in the golden files, in each version that has it, and every error code.
func TestGoldenIsComplete(t *testing.T) {
	seen := map[[2]byte]bool{}
	codes := map[int]bool{}
	for _, file := range goldenFiles() {
		for _, v := range file.vectors {
			seen[[2]byte{v.frame.Version, byte(v.frame.Type)}] = true
			if v.frame.Type == TypeResponseError {
				info, err := ParseError(v.frame.Payload)
				if err != nil {
					t.Errorf("%s: %s: %v", file.path, v.name, err)
				}
				codes[info.Code] = true
			}
		}
	}
	onlyV2 := []Type{TypePublish, TypeRequest, TypeCancel, TypeCredit, TypeSubscribe}
	for i := range 256 {
		known := !strings.HasPrefix(Type(i).String(), "0x")
		if known && !seen[[2]byte{Version2, byte(i)}] {
			t.Errorf("no golden frame of %v in version 2", Type(i))
		}
		if known && !slices.Contains(onlyV2, Type(i)) && !seen[[2]byte{Version1, byte(i)}] {
			t.Errorf("no golden frame of %v in version 1", Type(i))
		}
	}
	for _, code := range ErrorCodes() {
		if !codes[int(code)] {
			t.Errorf("no golden frame of %s", code.Name())
		}
	}
}

// goldenBlocks returns the frames that are in the file at path, whose text must be want.
func goldenBlocks(t *testing.T, path, want string) [][]byte {
	t.Helper()
	path = filepath.FromSlash(path)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("%s is not what the vectors render to: run go test ./codec -update and look at the difference", path)
	}
	var blocks [][]byte
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		var block []byte
		for line := range strings.Lines(paragraph) {
			digits, _, _ := strings.Cut(line, "#")
			part, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
			if err != nil {
				t.Fatalf("%s: %q: %v", path, line, err)
			}
			block = append(block, part...)
		}
		if len(block) > 0 {
			blocks = append(blocks, block)
		}
	}
	return blocks
}

// renderFrame writes b as commented hex, a line or more for each field, as far as there are any.
func renderFrame(text *strings.Builder, b []byte) {
	field := func(size int, comment func(field []byte) string) {
		size = min(size, len(b))
		for at := 0; at < size; at += 16 {
			part := b[at:min(at+16, size)]
			fmt.Fprintf(text, "%-47s # %s\n", fmt.Sprintf("% x", part), comment(part))
		}
		b = b[size:]
	}
	number := func(name string) func([]byte) string {
		return func(field []byte) string {
			var padded [8]byte
			copy(padded[8-len(field):], field)
			return fmt.Sprintf("%s %d", name, binary.BigEndian.Uint64(padded[:]))
		}
	}
	quoted := func(name string) func([]byte) string {
		return func(field []byte) string { return name + " " + strconv.QuoteToASCII(string(field)) }
	}
	var version byte
	var subjectBytes, headersBytes int
	if len(b) > offsetVersion {
		version = b[offsetVersion]
	}
	if len(b) >= HeaderBytesV2 {
		subjectBytes = int(binary.BigEndian.Uint16(b[offsetSubjectBytes:]))
		headersBytes = int(binary.BigEndian.Uint16(b[offsetHeadersBytes:]))
	}
	field(4, number("length"))
	field(1, number("version"))
	field(1, func(field []byte) string { return "type " + Type(field[0]).String() })
	if version == Version2 {
		field(2, func(field []byte) string { return fmt.Sprintf("flags 0x%x", field) })
		field(8, number("correlation id"))
		field(4, number("timeout in ms"))
		field(2, number("subject length"))
		field(2, number("headers length"))
		field(subjectBytes, quoted("subject"))
		field(headersBytes, quoted("headers"))
	}
	field(len(b), quoted("payload"))
}
