package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// OnFull says what becomes of requests that cannot be recorded: the ring of their loop is full, or the disk is.
type OnFull string

// The policies for a log that is full.
const (
	// Drop serves them all the same. They are counted, and the log has a gap that says how many they were.
	Drop OnFull = "drop"
	// Block pauses their clients, and refuses them when they have waited for too long.
	Block OnFull = "block"
	// Fail refuses them.
	Fail OnFull = "fail"
)

// Sync says when what was written is forced to the disk.
type Sync string

// The policies for forcing what was written to the disk.
const (
	// SyncNone leaves it to the kernel: what was written outlives the process, but not the machine.
	SyncNone Sync = "none"
	// SyncInterval does it each SyncInterval, and when a segment is closed.
	SyncInterval Sync = "interval"
	// SyncAlways does it after every write, which carries many records under load.
	SyncAlways Sync = "always"
)

// Config says where the log is and what goes into it. Start from [Default].
type Config struct {
	// Path is what the names of the segments begin with. Empty: there is no log.
	Path string
	// PayloadBytes is how many bytes of the headers and the payload of each request are recorded; 0: none.
	PayloadBytes int
	// OnFull says what becomes of requests that cannot be recorded.
	OnFull OnFull
	// RingBytes is the size of each loop's ring, rounded up to a power of two.
	RingBytes int
	// SegmentBytes and SegmentAge bound a segment: at the first of them a new one is begun. SegmentAge 0: never by age.
	SegmentBytes int
	SegmentAge   time.Duration
	// Keep is how many closed segments are kept, and KeepAge for how long; older ones are deleted, once a newer one continues them.
	// 0: all, for ever.
	Keep    int
	KeepAge time.Duration
	// Compress has closed segments compressed.
	Compress bool
	// Sync and SyncEvery say when what was written is forced to the disk.
	Sync      Sync
	SyncEvery time.Duration
}

// Default returns the configuration of a log that was told nothing, not even its path.
func Default() Config {
	return Config{
		OnFull:       Drop,
		RingBytes:    8 << 20,
		SegmentBytes: 64 << 20,
		SegmentAge:   24 * time.Hour,
		Sync:         SyncInterval,
		SyncEvery:    time.Second,
	}
}

const (
	payloadBytesMax = 4 << 20
	ringBytesMin    = 256 << 10
	// ringRecordsMin is how many of the largest records a ring has room for: less, and it would be full all the time.
	ringRecordsMin = 2
)

// Validate returns every problem of c, joined, each with the name and the value of the field.
func (c *Config) Validate() error {
	if c.Path == "" {
		return nil
	}
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if base := filepath.Base(c.Path); base == "." || base == ".." || base == "/" || c.Path[len(c.Path)-1] == '/' {
		bad("audit is %q: want a file, as /var/log/ipc-gateway/audit", c.Path)
	}
	switch c.OnFull {
	case Drop, Block, Fail:
	default:
		bad("audit on full is %q: want drop, block or fail", c.OnFull)
	}
	switch c.Sync {
	case SyncNone, SyncInterval, SyncAlways:
	default:
		bad("audit sync is %q: want none, interval or always", c.Sync)
	}
	if c.PayloadBytes < 0 || c.PayloadBytes > payloadBytesMax {
		bad("audit payload is %d: want 0 to %d", c.PayloadBytes, payloadBytesMax)
	}
	if c.RingBytes < ringBytesMin || c.RingBytes > 1<<30 {
		bad("audit ring is %d: want %d to %d", c.RingBytes, ringBytesMin, 1<<30)
	} else if need := ringRecordsMin * (requestBytes + subjectBytesMax + c.PayloadBytes); c.RingBytes < need {
		bad("audit ring is %d: with audit payload %d want at least %d", c.RingBytes, c.PayloadBytes, need)
	}
	if c.SegmentBytes < 4096 || c.SegmentBytes > 1<<40 {
		bad("audit max size is %d: want 4096 to %d", c.SegmentBytes, 1<<40)
	}
	if c.SegmentAge != 0 && c.SegmentAge < 10*time.Millisecond {
		bad("audit max age is %v: want at least 10ms, or 0 for none", c.SegmentAge)
	}
	if c.Keep < 0 {
		bad("audit keep is %d: want at least 1, or 0 for all", c.Keep)
	}
	if c.KeepAge < 0 {
		bad("audit keep age is %v: want a time, or 0 for ever", c.KeepAge)
	}
	if c.SyncEvery < time.Millisecond || c.SyncEvery > time.Hour {
		bad("audit sync interval is %v: want 1ms to 1h", c.SyncEvery)
	}
	return errors.Join(problems...)
}
