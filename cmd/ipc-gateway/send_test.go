package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aigroup/ipc-gateway/codec"
)

// The flags become exactly this frame: what the gateway makes of it is tested elsewhere.
func TestSendFrame(t *testing.T) {
	for name, c := range map[string]struct {
		command sendCommand
		want    codec.Frame
	}{
		"version 1": {
			sendCommand{Type: "query", Wire: 1, Count: 1, Timeout: time.Second, Payload: "x"},
			codec.Frame{Version: codec.Version1, Type: codec.TypeTaskQuery, Subject: []byte{}, Payload: []byte("x")},
		},
		"everything": {
			sendCommand{Type: "publish", Wire: 2, Count: 1, Subject: "a.b", Header: []string{"A:1", "B:  two: three "}, Timeout: 1500 * time.Millisecond, NoReply: true, Payload: "-"},
			codec.Frame{
				Version: codec.Version2, Type: codec.TypePublish, Flags: codec.FlagNoReply, TimeoutMs: 1500,
				Subject: []byte("a.b"), Headers: []byte("A: 1\r\nB: two: three\r\n"), Payload: []byte("input"),
			},
		},
	} {
		got, err := c.command.frame(strings.NewReader("input"))
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}
