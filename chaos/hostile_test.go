package chaos

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// hostiles are clients that mean harm, each a life of one connection or some. Nobody keeps a record of what they
// ask: it goes to a subject of its own.
var hostiles = []struct {
	name string
	live func(h *hostile)
}{
	{"never reads", (*hostile).neverRead},
	{"floods", (*hostile).flood},
	{"one byte a second", (*hostile).drip},
	{"random bytes", (*hostile).babble},
	{"connects and closes", (*hostile).storm},
	{"half open", (*hostile).halfOpen},
	{"ends, and never reads", (*hostile).endUnread},
}

// unreadLife is how long a client stays that has ended its side and takes nothing: through whole takeovers.
const unreadLife = 8 * time.Second

// hostileLife is how long a hostile client waits for anything.
const hostileLife = 2 * time.Second

type hostile struct {
	w    *world
	rng  *rand.Rand
	stop <-chan struct{}
}

// run lives one life after the other. The pauses between them are those of an attacker who is not to take all of a
// small machine.
func (h *hostile) run(live func(*hostile)) {
	for h.sleep(time.Duration(100+h.rng.IntN(300)) * time.Millisecond) {
		live(h)
	}
}

// sleep reports whether there is time for more.
func (h *hostile) sleep(d time.Duration) bool {
	select {
	case <-h.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// dial returns nil while the gateway is away.
func (h *hostile) dial() *net.UnixConn {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.w.gateway.socket})
	if err != nil {
		return nil
	}
	h.w.connections.Add(1)
	_ = conn.SetDeadline(time.Now().Add(hostileLife))
	return conn
}

func (h *hostile) request(id uint64, bytes int) []byte {
	f := codec.Frame{
		Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: id, TimeoutMs: 500, Subject: []byte(subjectHostile), Payload: make([]byte, bytes),
	}
	return codec.AppendFrame(nil, &f)
}

// neverRead asks for more than the gateway may keep for a client, and takes none of it.
func (h *hostile) neverRead() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	for id := range uint64(200) {
		if _, err := conn.Write(h.request(id, 64<<10)); err != nil {
			break
		}
		h.sleep(time.Millisecond)
	}
	h.sleep(time.Second) // its answers wait
}

// flood asks without end for a moment, more than may be in flight, and reads along.
func (h *hostile) flood() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	var burst []byte
	for id := range uint64(64) {
		burst = append(burst, h.request(id, 10)...)
		ping := codec.Frame{Version: codec.Version1, Type: codec.TypePing}
		burst = codec.AppendFrame(burst, &ping)
	}
	for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
		if _, err := conn.Write(burst); err != nil {
			return
		}
	}
}

// drip sends a frame byte by byte, for longer than the gateway lets a frame take.
func (h *hostile) drip() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Time{})
	for _, b := range h.request(1, 10) {
		if _, err := conn.Write([]byte{b}); err != nil || !h.sleep(time.Second) {
			return
		}
	}
}

// babble sends no protocol at all, and reads what the gateway has to say to that.
func (h *hostile) babble() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	garbage := make([]byte, 1+h.rng.IntN(64<<10))
	for i := range garbage {
		garbage[i] = byte(h.rng.Uint32())
	}
	if h.rng.IntN(2) == 0 {
		garbage[0], garbage[1] = 0, 0 // a length that may be that of a frame
	}
	_, _ = conn.Write(garbage)
	_, _ = io.Copy(io.Discard, conn)
}

// storm connects and closes as fast as it can.
func (h *hostile) storm() {
	for range 50 {
		conn := h.dial()
		if conn == nil {
			return
		}
		if h.rng.IntN(2) == 0 {
			_, _ = conn.Write(h.request(1, 10)[:1+h.rng.IntN(50)])
		}
		_ = conn.Close()
	}
}

// halfOpen shuts down its writing side at once, or says nothing at all, and stays.
func (h *hostile) halfOpen() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	if h.rng.IntN(2) == 0 {
		_, _ = conn.Write(h.request(1, 10))
		_ = conn.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
}

// endUnread asks for more than a socket holds, and then shuts down its writing side, or talks rubbish, and takes nothing for long.
func (h *hostile) endUnread() {
	conn := h.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	for id := range uint64(8) {
		if _, err := conn.Write(h.request(id, 128<<10)); err != nil {
			return
		}
	}
	h.sleep(200 * time.Millisecond) // some answers wait
	if h.rng.IntN(2) == 0 {
		_ = conn.CloseWrite()
	} else {
		_, _ = conn.Write(bytes.Repeat([]byte{0xff}, 64))
	}
	h.sleep(unreadLife)
}
