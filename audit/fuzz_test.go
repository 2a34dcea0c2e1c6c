package audit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// segmentSeed is a closed segment with a record of every kind.
func segmentSeed() []byte {
	b := appendHead([]byte(magic), &head{number: 3, time: 5, pid: 7, parents: []parent{{number: 1}, {number: 2}}})
	var framed [frameBytes + requestBytes]byte
	for _, kind := range []byte{kindRequest, kindAnswered} {
		q := request(1)
		putRequest(&framed, kind, &q, &Outcome{Code: 5, AnswerBytes: 6, Duration: 7})
		body := append(append(append(bytes.Clone(framed[frameBytes:]), q.Subject...), q.Headers...), q.Payload...)
		b = appendRecord(b, body)
	}
	var outcome [frameBytes + outcomeBytes]byte
	putOutcome(&outcome, 1, 2, &Outcome{Code: 3, AnswerBytes: 4, Duration: 5})
	b = appendRecord(b, outcome[frameBytes:])
	b = appendGap(b, 1, 2, 3)
	body := (&end{records: 4}).body()
	return appendRecord(b, body[:])
}

// FuzzSegment reads any bytes as a segment: it never panics, says the same however the bytes come, and a log that has them as its
// last segment opens again and is then verified, or is refused as no segment.
func FuzzSegment(f *testing.F) {
	seed := segmentSeed()
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Add([]byte(magic))
	f.Add([]byte{})
	for i := 0; i < len(seed); i += 7 {
		changed := bytes.Clone(seed)
		changed[i]++
		f.Add(changed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		at := examine(bytes.NewReader(b), nil)
		slow := examine(iotest.OneByteReader(bytes.NewReader(b)), nil)
		if at.whole != slow.whole || at.records != slow.records || !errors.Is(slow.problem, errors.Unwrap(at.problem)) && at.problem == nil {
			t.Fatalf("at once: %+v, byte by byte: %+v", at, slow)
		}
		if at.whole > int64(len(b)) {
			t.Fatalf("%d of %d bytes are whole", at.whole, len(b))
		}
		path := filepath.Join(dir, "audit")
		name := segmentPath(path, 3)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := segmentFile{number: 3, path: name}
		e, err := recoverSegment(&s, head{number: 3})
		if err != nil {
			if !errors.Is(err, ErrMagic) {
				t.Fatal(err)
			}
			return
		}
		after, err := s.open()
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		found := examine(after, nil)
		if e != nil && (!found.closed || found.problem != nil || found.sum() != found.end.hash) {
			t.Fatalf("closed again: %+v", found)
		}
		_ = Read(t.Context(), name, false, &Visitor{
			Request: func(*Request, *Outcome) error { return nil }, Gap: func(Gap) error { return nil }, Problem: func(string, error) {},
		})
	})
}

// FuzzRequest writes and reads a request of any content.
func FuzzRequest(f *testing.F) {
	f.Add("app.x", []byte("A: b\r\n"), []byte("payload"), uint64(1), int64(2), uint32(3), byte(4))
	f.Fuzz(func(t *testing.T, subject string, headers, payload []byte, id uint64, time int64, uid uint32, code byte) {
		if len(subject) > subjectBytesMax {
			return
		}
		q := Request{ID: id, Time: time, UID: uid, PID: int32(uid), Version: code, Subject: []byte(subject), Headers: headers, Payload: payload,
			HeaderBytes: uint32(len(headers)), PayloadBytes: uint32(len(payload))}
		var framed [frameBytes + requestBytes]byte
		putRequest(&framed, kindAnswered, &q, &Outcome{Code: code, Duration: time})
		body := append(append(append(bytes.Clone(framed[frameBytes:]), subject...), headers...), payload...)
		in := newScanner(bytes.NewReader(append([]byte(magic), appendRecord(nil, body)...)))
		read, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		got, o, err := decodeRequest(read[frameBytes:])
		if err != nil || string(got.Subject) != subject || !bytes.Equal(got.Headers, headers) || !bytes.Equal(got.Payload, payload) ||
			got.ID != id || got.Time != time || got.UID != uid || got.PID != int32(uid) || o.Code != code || o.Duration != time {
			t.Fatalf("got %+v %+v, %v", got, o, err)
		}
		if _, err := in.next(); err != io.EOF {
			t.Fatalf("got %v", err)
		}
	})
}
