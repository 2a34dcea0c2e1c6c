package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

func TestTapReadsWhatWasFedThenTheError(t *testing.T) {
	tp := newTap(nil, nil, func() {})
	go func() {
		tp.feed([]byte("hel"))
		tp.feed([]byte("lo"))
		tp.fail(io.EOF)
	}()
	got, err := io.ReadAll(tp)
	if err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := tp.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing to a lost connection: %v, want %v", err, net.ErrClosed)
	}
}

func TestTapReadDeadline(t *testing.T) {
	tp := newTap(nil, nil, func() {})
	_ = tp.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := tp.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want %v", err, os.ErrDeadlineExceeded)
	}
	_ = tp.SetDeadline(time.Time{})
	tp.feed([]byte("x"))
	if n, err := tp.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read after the deadline was lifted: %d, %v", n, err)
	}
	// A deadline that is set while Read waits counts too.
	waiting := make(chan error, 1)
	go func() {
		_, err := tp.Read(make([]byte, 1))
		waiting <- err
	}()
	_ = tp.SetReadDeadline(time.Now().Add(-time.Second))
	if err := <-waiting; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want %v", err, os.ErrDeadlineExceeded)
	}
}

func TestTapGivesWritesAndCloseToTheLoop(t *testing.T) {
	var wakes atomic.Int32
	tp := newTap(nil, nil, func() { wakes.Add(1) })
	for _, s := range []string{"CONNECT {}\r\n", "PING\r\n"} {
		if n, err := tp.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !tp.attention.Load() || wakes.Load() != 2 {
		t.Errorf("attention %v, %d wakes", tp.attention.Load(), wakes.Load())
	}
	out, closed := tp.take([]byte("before "))
	if string(out) != "before CONNECT {}\r\nPING\r\n" || closed || tp.attention.Load() {
		t.Errorf("took %q, closed %v", out, closed)
	}
	_ = tp.Close()
	_ = tp.Close()
	if _, closed := tp.take(nil); !closed || wakes.Load() != 3 {
		t.Errorf("closed %v after %d wakes", closed, wakes.Load())
	}
	if _, err := tp.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want %v", err, net.ErrClosed)
	}
}
