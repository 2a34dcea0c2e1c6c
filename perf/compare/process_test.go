package compare

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aigroup/ipc-gateway/codec"
)

// startTest starts a program that ends with the test at the latest.
func startTest(t *testing.T, program string, args ...string) *process {
	t.Helper()
	// The child must not be killed because the scheduler ends the thread that started it.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	p, err := start(ctx, "child", program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

func TestProcessTalks(t *testing.T) {
	p := startTest(t, "sh", "-c", "echo ready and willing; exec cat")
	rest, err := p.awaitReady()
	if err != nil || rest != "and willing" {
		t.Fatalf("got %q, %v", rest, err)
	}
	if _, err := p.stdin.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if got, err := p.line(); err != nil || got != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := p.alive(); err != nil {
		t.Fatal(err)
	}
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	if p.alive() == nil {
		t.Fatal("it has ended and is alive")
	}
}

// When a child fails, the error has all that one would look for.
func TestProcessFails(t *testing.T) {
	_, err := startTest(t, "sh", "-c", "echo the disk is full >&2; exit 3").awaitReady()
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got %v", err)
	}
	_, err = startTest(t, "sh", "-c", "echo hello; exec cat").awaitReady()
	if err == nil || !strings.Contains(err.Error(), `"hello"`) {
		t.Errorf("got %v", err)
	}
}

// A child outlives neither stop, nor its context, nor the thread that started it, which is how it
// is with a benchmark that was killed itself.
func TestProcessEnds(t *testing.T) {
	for name, end := range map[string]func(start func(context.Context) *process) *process{
		"stop": func(start func(context.Context) *process) *process {
			p := start(t.Context())
			p.stop()
			return p
		},
		"context": func(start func(context.Context) *process) *process {
			ctx, cancel := context.WithCancel(t.Context())
			p := start(ctx)
			cancel()
			return p
		},
		"thread": func(start func(context.Context) *process) *process {
			return <-startOnThread(func() *process { return start(t.Context()) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := end(func(ctx context.Context) *process {
				p, err := start(ctx, "child", "sleep", "60")
				if err != nil {
					t.Error(err)
				}
				return p
			})
			if p == nil {
				return
			}
			defer p.stop()
			select {
			case <-p.ended:
			case <-time.After(10 * time.Second):
				t.Fatal("it still runs")
			}
		})
	}
}

// startOnThread calls start on a thread that ends afterwards, and is not the main thread, which would not.
func startOnThread(start func() *process) <-chan *process {
	started := make(chan *process, 1)
	go func() {
		// The runtime ends the thread of a goroutine that ends locked to it.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the main thread, another one gets another.
			started <- <-startOnThread(start)
			runtime.UnlockOSThread()
			return
		}
		started <- start()
	}()
	return started
}

// A gateway must not pick up settings from the environment that the benchmark does not know of.
func TestEnvironment(t *testing.T) {
	t.Setenv("IPC_LOOPS", "7")
	t.Setenv("CGW_IPC_TIMEOUT_MS", "7")
	t.Setenv("IPCHESS", "kept")
	all := strings.Join(environment(), "\n")
	if strings.Contains(all, "IPC_LOOPS") || strings.Contains(all, "CGW_") || !strings.Contains(all, "IPCHESS=kept") {
		t.Error("wrong environment")
	}
}

func TestTail(t *testing.T) {
	var kept tail
	if kept.quoted() != "" {
		t.Error("nothing was written")
	}
	for range 3000 {
		if n, err := kept.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(kept.bytes) != tailBytesMax || !strings.HasSuffix(kept.quoted(), "abc") {
		t.Errorf("%d bytes kept", len(kept.bytes))
	}
}

// The C echo answers each PING, however the bytes come, and hangs up on anything else.
func TestEcho(t *testing.T) {
	folder := buildForTest(t, "perf/peers/echo/echo.c")
	p := startTest(t, folder+"/echo", folder+"/s")
	if _, err := p.awaitReady(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", folder+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const pings = 1000
	sent := bytes.Repeat(codec.AppendHeaderV1(nil, codec.TypePing, 0), pings)
	want := bytes.Repeat(codec.AppendHeaderV1(nil, codec.TypePong, 0), pings)
	for chunk := 1; len(sent) > 0; chunk = chunk%97 + 1 {
		n, err := conn.Write(sent[:min(chunk, len(sent))])
		if err != nil {
			t.Fatal(err)
		}
		sent = sent[n:]
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the answers are not all PONG: %v", err)
	}
	if _, err := conn.Write(codec.AppendHeaderV1(nil, codec.TypeTaskSubmit, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(got); n > 0 || err == nil {
		t.Fatalf("TASK_SUBMIT was answered with %x", got[:n])
	}
}
