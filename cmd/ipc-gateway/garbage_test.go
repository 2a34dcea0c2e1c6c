package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// garbageKinds make streams that are no protocol, of some bytes at least.
var garbageKinds = []func(rng *rand.Rand, bytes int) []byte{
	// Random bytes: nearly all end at the first frame's length.
	randomBytes,
	// Frames whose length is right, and nothing else.
	func(rng *rand.Rand, bytes int) (stream []byte) {
		for len(stream) < bytes {
			frame := randomBytes(rng, codec.HeaderBytesV1+rng.IntN(300))
			copy(frame, []byte{0, 0, byte(len(frame) >> 8), byte(len(frame)), byte(1 + rng.IntN(2))}) // length and version
			stream = append(stream, frame...)
		}
		return stream
	},
	// Frames with a byte here and there that is wrong.
	func(rng *rand.Rand, bytes int) (stream []byte) {
		for len(stream) < bytes {
			f := codec.Frame{Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: rng.Uint64(), Subject: []byte("echo"), Payload: randomBytes(rng, rng.IntN(300))}
			if rng.IntN(2) == 0 {
				f = codec.Frame{Version: codec.Version1, Type: codec.TypeTaskSubmit, Payload: f.Payload}
			}
			stream = codec.AppendFrame(stream, &f)
		}
		for at := rng.IntN(500); at < len(stream); at += 1 + rng.IntN(500) {
			stream[at] = byte(rng.Uint32())
		}
		return stream
	},
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// Goal: whatever clients send, each of them is answered with whole frames and then with the end of the stream, the others do
// not notice, and nothing is left behind. Method: connections without end, several at a time, that send garbage from a seed
// (IPC_TEST_SEED repeats one) for 1.5 s, or for IPC_TEST_GARBAGE_TIME, as 10m.
func TestGarbageFromClients(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("IPC_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	long, err := time.ParseDuration(os.Getenv("IPC_TEST_GARBAGE_TIME"))
	if err != nil {
		long = 1500 * time.Millisecond
	}
	t.Logf("IPC_TEST_SEED=%d", seed)
	g := echoingGateway(t, "--frame-timeout", "10s")
	other := g.dial()
	end := time.Now().Add(long)
	_ = other.SetDeadline(end.Add(20 * time.Second))
	var connections, sent, answers atomic.Int64
	var senders sync.WaitGroup
	for i := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		senders.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				stream := garbageKinds[rng.IntN(len(garbageKinds))](rng, 1+rng.IntN(20_000))
				got, err := sendGarbage(g.socket, stream)
				if err != nil {
					t.Errorf("client %d, connection %d: %v", i, n, err)
					return
				}
				connections.Add(1)
				sent.Add(int64(len(stream)))
				answers.Add(int64(got))
			}
		})
	}
	asked := 0
	for ; time.Now().Before(end); asked++ {
		other.ask(fmt.Sprint("meanwhile ", asked))
	}
	senders.Wait()
	t.Logf("%d connections with %d bytes of garbage, %d answers; another client had %d", connections.Load(), sent.Load(), answers.Load(), asked)
	if connections.Load() < 50 || asked < 10 {
		t.Error("the test does not test what it says")
	}
	_ = other.Close()
	g.checkNothingLeft()
	if n := g.metric("ipc_internal_errors_total"); n != 0 {
		t.Errorf("%v bugs were caught", n)
	}
	g.checkIdle("after them")
}

// sendGarbage sends a stream on a connection of its own, and returns how many frames were answered up to its end.
func sendGarbage(socket string, stream []byte) (answers int, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		_, _ = conn.Write(stream) // the gateway has had enough before all of it, as a rule
		_ = conn.CloseWrite()
	})
	said, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return 0, err
	}
	for len(said) > 0 {
		f, n, err := codec.Decode(said)
		if err != nil || n == 0 {
			return answers, fmt.Errorf("no whole frame at the end of the answers: %.100q, %w", said, err)
		}
		if f.Type != codec.TypeResponseOK && f.Type != codec.TypeResponseError && f.Type != codec.TypePong {
			return answers, fmt.Errorf("the answer %v", f.Type)
		}
		answers++
		said = said[n:]
	}
	return answers, nil
}
