package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Linux wakes whoever sleeps in a Unix socket's recv not only when bytes come, but also when the other side has read what
// he sent: there is room to write again, and the two waits are not told apart. A program that sends a request and
// waits for the answer is woken in vain when the gateway reads the request. That costs both as much as the answer.
//
// So the requests of such programs are read with MSG_PEEK, which leaves them in the socket; SO_PEEK_OFF lets the next peek
// begin behind them. They are taken out many at a time, when an answer was written: then the program is awake. A session
// peeks while its client keeps to that rhythm: a small request, nothing more until it has its answer, and the next
// one soon. With anything else it goes back to plain reads: to peek at those who keep several requests in flight, or only
// send PING, gained nothing. A session that peeks is watched edge-triggered, for there is always something to be read.

const (
	// peekBytesMax bounds one peek, and peekFramesMax what may come in it.
	peekBytesMax  = 4 << 10
	peekFramesMax = 24
	// peekedRoomMax bounds what is left in a socket, in bytes of the client's buffer for sending: the kernel counts it as not sent
	// yet, with its own part of each write. With one more peek it has to be below the 53 KiB from which on poll finds the
	// client's side full.
	peekedRoomMax = 24 << 10
	// peekAfter is how many reads in a row have to keep to the rhythm before a session peeks.
	peekAfter = 4
	// peekPause is how soon, in nanoseconds, a client has to send its next request. After so much time what was peeked is
	// taken out: a client with a small buffer for sending might be waiting for that. One that goes on within peekStall,
	// peekStallsMax times in a row, was, and is not peeked any more.
	peekPause     = int64(50e6)
	peekStall     = int64(1e6)
	peekStallsMax = 3
)

// peeker is what a loop needs for peeking.
type peeker struct {
	header   unix.Msghdr
	part     unix.Iovec
	taken    [peekBytesMax + peekedRoomMax/2]byte
	pause    int64      // peekPause, but in tests
	sessions []*session // that peek, and others that did
	look     int64      // when to look at them next, in nanoseconds since Gateway.started
}

// newPeeker returns one that peeks into buffer.
func newPeeker(buffer []byte) *peeker {
	p := &peeker{pause: peekPause}
	p.part.Base = &buffer[0]
	p.part.SetLen(peekBytesMax)
	p.header.Iov = &p.part
	p.header.SetIovlen(1)
	return p
}

// peek returns how many bytes it found. all says that there are no more.
func (p *peeker) peek(fd int) (n int, all bool, err unix.Errno) {
	got, _, err := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.header)), unix.MSG_PEEK)
	if err != 0 {
		return 0, false, err
	}
	// A peek stops at a descriptor that was passed along, which is cut off.
	return int(got), got < peekBytesMax && p.header.Flags&unix.MSG_CTRUNC == 0, 0
}

// peekedRoom returns about how much of the client's buffer for sending the kernel uses for what was served and is still in the
// socket. Each frame may have been a write of its own.
func (s *session) peekedRoom() int { return 512*s.peekedFrames + 2*s.peekedBytes }

// noteRhythm takes note of a plain read that was served: asked says that nothing was in flight before, and that it was
// small; since is when bytes last went either way.
func (l *loop) noteRhythm(s *session, asked bool, since int64) {
	if s.takenAt != 0 {
		s.stalls++
		if l.now-s.takenAt > peekStall {
			s.stalls = 0
		}
		s.takenAt = 0
	}
	if !asked || s.inflight == 0 || s.in != nil || s.paused != 0 || l.now-since > l.peeker.pause {
		s.rhythm = 0
		return
	}
	if s.stalls == peekStallsMax {
		return
	}
	if s.rhythm++; s.rhythm < peekAfter || s.finishing || s.doomed {
		return
	}
	s.rhythm = 0
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0) != nil {
		return
	}
	s.peeks = true
	l.touch(s)
	if !s.inPeeker {
		s.inPeeker = true
		if len(l.peeker.sessions) == 0 {
			l.peeker.look = l.now + l.peeker.pause
			l.rearm = true
		}
		l.peeker.sessions = append(l.peeker.sessions, s)
	}
}

// peekClient serves what a client sent and leaves it in the socket.
func (l *loop) peekClient(s *session, events uint32) {
	if s.waitsForAnswers() || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		l.endPeeking(s) // it did not wait, or there is an end to be seen, which is told once
		return
	}
	n, all, err := l.peeker.peek(s.fd)
	if n == 0 {
		if err != unix.EAGAIN && err != unix.EINTR {
			l.endPeeking(s)
		}
		return
	}
	s.peekedBytes += n
	before := s.usage.requests
	l.read(s, l.readBuffer[:n])
	frames := int(s.usage.requests - before)
	s.peekedFrames += frames
	if !all || frames > peekFramesMax || s.in != nil || s.paused != 0 || !s.waitsForAnswers() {
		l.endPeeking(s)
	}
}

// endPeeking goes back to plain reads. What there is to be read will be told again.
func (l *loop) endPeeking(s *session) {
	if !s.peeks {
		return
	}
	l.takePeeked(s)
	s.peeks = false
	l.touch(s)
}

// takeSomePeeked takes what was served out of the socket of s, if it is much.
func (l *loop) takeSomePeeked(s *session) {
	if s.peekedRoom() >= peekedRoomMax {
		l.takePeeked(s)
	}
}

// takePeeked takes out of the socket of s what was served.
func (l *loop) takePeeked(s *session) {
	for s.peekedBytes > 0 {
		n, err := unix.Read(s.fd, l.peeker.taken[:s.peekedBytes])
		if n > 0 {
			s.peekedBytes -= n
			continue
		}
		if err != unix.EINTR {
			s.peekedBytes = 0
			l.doom(s) // what is not there cannot be served a second time
		}
	}
	s.peekedFrames = 0
}

// endIdlePeeking goes back to plain reads from clients that have lost the rhythm by sending nothing.
func (l *loop) endIdlePeeking() {
	p := l.peeker
	if len(p.sessions) == 0 || l.now < p.look {
		return
	}
	kept := p.sessions[:0]
	for _, s := range p.sessions {
		if s.peeks && !s.doomed && l.now-s.usage.activeAt > p.pause {
			l.endPeeking(s)
			s.takenAt = l.now
		}
		if s.doomed || !s.peeks {
			s.inPeeker = false
			continue
		}
		kept = append(kept, s)
	}
	clear(p.sessions[len(kept):])
	p.sessions = kept
	p.look = l.now + p.pause
	l.rearm = true
}
