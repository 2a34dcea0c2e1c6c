package upstream

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"
)

// Goal: who ends a link does not wait for a server that takes connections and says nothing, however long an attempt may take, and the
// connection is closed.
func TestCloseDoesNotWaitForAMuteServer(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, tlsFirst := range []bool{false, true} {
		cfg := Default()
		cfg.URLs, cfg.TLSFirst, cfg.ConnectTimeout = []string{"nats://" + mute.Addr().String()}, tlsFirst, time.Minute
		_, control := NewLink(cfg, &loopStub{}, func(net.Conn, *Wire) error { return errors.New("there is no loop") }, 1<<20, slog.New(slog.DiscardHandler))
		control.Start()
		conn, err := mute.Accept()
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			control.Close()
		}()
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("the end of the link waits for the server")
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for err = nil; err == nil; {
			_, err = conn.Read(make([]byte, 1024)) // with TLS first there is a ClientHello
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is still open")
		}
		_ = conn.Close()
	}
}
