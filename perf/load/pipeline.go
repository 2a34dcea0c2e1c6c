package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// readBytesMin is the least size of a connection's read buffer.
const readBytesMin = 32 << 10

// dialog is what is said on a connection.
type dialog interface {
	// appendRequest appends request seq.
	appendRequest(dst []byte, seq uint64) []byte
	// takeAnswer checks the answer at the front of src and says which request it belongs to, and how
	// many bytes it has: 0 if src holds only a part of it. oldest is the request in flight that was
	// sent first.
	takeAnswer(src []byte, oldest uint64) (n int, seq uint64, err error)
	// answerBytesMax bounds the answers.
	answerBytesMax() int
}

// pipeline keeps window requests in flight on a Unix socket. Requests are numbered so that the one
// which follows an answer has a number that is window higher: number modulo window is its slot.
type pipeline struct {
	conn   *net.UnixConn
	dialog dialog

	slots  []slot // by request number modulo their count, which is the window
	oldest uint64 // all before it are answered, if answers come in order
	next   uint64 // above all numbers that were used

	in, out []byte // reused
}

// slot is the state of one request in flight.
type slot struct {
	seq    uint64
	sent   time.Time
	waited bool // for an answer
}

func dialPipeline(s *settings, d dialog) (worker, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &pipeline{
		conn: conn, dialog: d, slots: make([]slot, s.window),
		in: make([]byte, max(readBytesMin, 2*d.answerBytesMax())),
	}, nil
}

func (p *pipeline) run(until time.Time, stop *atomic.Bool, latencies *latencies) error {
	now := time.Now()
	deadline := now.Add(answerTimeout)
	if until.After(now) {
		deadline = until.Add(answerTimeout)
	}
	if err := p.conn.SetDeadline(deadline); err != nil {
		return err
	}
	p.oldest = p.next
	for range p.slots {
		p.send(p.next, now)
	}
	waiting, have := len(p.slots), 0 // requests in flight; bytes in p.in
	for {
		if err := p.flush(); err != nil {
			return err
		}
		if waiting == 0 {
			return nil
		}
		n, err := p.conn.Read(p.in[have:])
		if err != nil {
			return p.readError(err, waiting)
		}
		have += n
		now = time.Now()
		goOn := now.Before(until) && !stop.Load()
		rest := p.in[:have]
		for {
			n, sent, err := p.take(rest)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			rest = rest[n:]
			latencies.record(now.Sub(sent.sent))
			if goOn {
				p.send(sent.seq+uint64(len(p.slots)), now)
			} else {
				waiting--
			}
		}
		have = copy(p.in, rest)
	}
}

// send appends request seq to the output.
func (p *pipeline) send(seq uint64, now time.Time) {
	p.out = p.dialog.appendRequest(p.out, seq)
	p.slots[seq%uint64(len(p.slots))] = slot{seq: seq, sent: now, waited: true}
	p.next = max(p.next, seq+1)
}

func (p *pipeline) flush() error {
	if len(p.out) == 0 {
		return nil
	}
	_, err := p.conn.Write(p.out)
	p.out = p.out[:0]
	return err
}

// take reads the answer at the front of src, n bytes, and returns the request that it belongs to.
func (p *pipeline) take(src []byte) (n int, sent slot, err error) {
	if len(src) == 0 {
		return 0, slot{}, nil
	}
	n, seq, err := p.dialog.takeAnswer(src, p.oldest)
	if n == 0 || err != nil {
		return 0, slot{}, err
	}
	at := &p.slots[seq%uint64(len(p.slots))]
	if !at.waited || at.seq != seq {
		return 0, slot{}, fmt.Errorf("an answer to request %d, which is not in flight", seq)
	}
	at.waited = false
	p.oldest++
	return n, *at, nil
}

func (p *pipeline) readError(err error, waiting int) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the connection was closed with %d requests in flight", waiting)
	}
	return fmt.Errorf("with %d requests in flight: %w", waiting, err)
}

func (p *pipeline) Close() error { return p.conn.Close() }
