// Package audit keeps an append-only log of requests and their outcomes, in which what was cut out or changed
// afterwards shows.
//
// # Life of a record
//
//  1. append   a loop copies a record into its own [Ring]                       ring.go, record.go
//  2. drain    the log's goroutine takes what all rings hold, with checksums     log.go, ring.go
//  3. write    one write of many records to the open segment                     log.go, segment.go
//  4. close    a segment that is full or old ends with its hash, the next one
//     begins with it                                                             segment.go, record.go
//  5. keep     closed segments are compressed, and deleted in the end            tidy.go
//  6. read     records become entries again, one for each request                scanner.go, reader.go, verify.go
//
// # Files
//
// The log named FILE is in the segments FILE.00000001, FILE.00000002 and so on, or FILE.00000001.zst once compressed.
// Nothing is renamed or written again. FILE.00000001.end is the mark of a process that ended well (mark.go),
// FILE.00000001.cut what a later process cut off the segment and is no torn record (recovery.go). Whoever writes a segment has created it itself and holds its lock (flock), so
// that several processes may write the same log, each its own segments: this is how a takeover goes.
//
// # Format
//
// All numbers are big-endian. A segment is the magic "IPCAUD03" and then records:
//
//	u32 length of the body
//	u32 CRC-32C of the length and the body
//	body, of which the first byte is the kind
//
// The first record is the head, and in a closed segment the last one is the end. Bodies, by kind:
//
//	1 head      u8 kind, u8 0, u16 parents, u32 pid, u64 number, i64 time, 16 bytes run,
//	            and for each parent: u64 number, 32 bytes hash
//	2 request   a request that was taken into flight: the fields of 4, without an outcome
//	3 outcome   u8 kind, u8 code, u16 loop, u32 answer bytes, u64 id, i64 duration
//	4 answered  a request with its outcome: u8 kind, u8 version, u8 type, u8 flags, u16 loop, u16 subject bytes, u64 id,
//	            i64 time, u64 client, u64 correlation id, u32 uid, u32 gid, i32 pid, u32 timeout in ms,
//	            u32 header bytes, u32 payload bytes, 16 bytes trace id, u32 recorded header bytes, u32 answer bytes,
//	            i64 duration, u8 code, 7 bytes 0, 8 bytes span id, subject, recorded headers, recorded payload
//	5 gap       u8 kind, u8 0, u16 loop, u32 0, i64 time, u64 requests that are not in the log
//	6 end       u8 kind, u8 flags, u16 0, u32 bytes that were cut off before that, i64 time, u64 records, 16 bytes run of
//	            the head, 32 bytes hash; flags: 1 another process closed the segment, 2 what it cut off was no torn record, 4 the segment
//	            had been closed by its own process, and had lost that end
//
// Times are nanoseconds since 1970, durations nanoseconds. A run is one process that writes the log; an outcome goes with the
// last request of its run, loop and id.
//
// # Chain
//
// The hash of a segment is the SHA-256 of all that stands before it, from the magic on. The parents of a segment are the
// segments that were closed before it and that no other one has as its parent: normally the one before it. So each hash
// says what all earlier segments held. A segment whose process was killed before it wrote the head gets one from the process that
// closes it, with the last closed segment before it as its parent, and with the run of that, or 0 if that goes on.
package audit
