package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A process that ends well leaves a mark beside its last segment, FILE.00000001.end, which has the number, the length and the hash
// of that. Without it the newest segment would be the only one that nothing else tells the end of: one whose last records
// are cut off looks as if its process had been killed. The next segment has the hash in its head; once that is on the
// disk the mark is deleted. One that does not fit its segment stays, and its number is not used again.
const markName = ".end"

// mark is what the one of a segment says.
type mark struct {
	bytes int64 // of the whole segment, not compressed
	hash  [hashBytes]byte
}

// writeMark notes the end of a segment that is whole on the disk, and whose lock this process holds. The mark gets its name once it is
// whole itself: half of one, as a kill would leave it, would accuse the segment for ever.
func writeMark(path string, number uint64, m mark) error {
	partial := path + markName + partialName
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, filePermission)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %d %x\n", number, m.bytes, m.hash)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(partial, path+markName)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return syncFolder(path)
}

// readMark returns the mark of the segment at path. ok is false if there is none. One that cannot be read as a mark fits no segment.
func readMark(path string) (m mark, ok bool, err error) {
	text, err := os.ReadFile(path + markName)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	var number uint64
	var hash []byte
	if n, _ := fmt.Sscanf(string(text), "%d %d %x\n", &number, &m.bytes, &hash); n != 3 || copy(m.hash[:], hash) != hashBytes {
		m = mark{}
	}
	return m, true, nil
}

// removeMark deletes the mark of a segment that another one continues by this hash, if it says the same.
func removeMark(path string, hash [hashBytes]byte) {
	if m, ok, err := readMark(path); err == nil && ok && m.hash == hash {
		_ = os.Remove(path + markName)
	}
}

// numbersBeside returns the numbers of the segments of the log at path that have a file with this ending beside them, whether the
// segments are there or not.
func numbersBeside(path, ending string) (numbers []uint64, err error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, entry := range entries {
		digits, ours := strings.CutPrefix(entry.Name(), filepath.Base(path)+".")
		digits, beside := strings.CutSuffix(digits, ending)
		if !ours || !beside {
			continue
		}
		if number, err := strconv.ParseUint(digits, 10, 64); err == nil && filepath.Base(segmentPath(path, number))+ending == entry.Name() {
			numbers = append(numbers, number)
		}
	}
	return numbers, err
}

func (m *mark) String() string { return hex.EncodeToString(m.hash[:]) }
