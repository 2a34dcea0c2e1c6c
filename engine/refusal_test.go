package engine

import (
	"fmt"
	"testing"
	"time"
)

// Goal: clients that may not connect can neither fill the log nor the memory, with however many uids they
// come, and what was not told is told later.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	cfg := testConfig(t, "")
	log := captureLog(t, &cfg)
	s := strangersLog{log: cfg.Logger, byUID: map[uint32]*stranger{}}
	tell := func(uid uint32) { s.tell(peerCredentials{uid: uid}, "a reason") }
	const uids = 2 * strangersMax
	for range 3 {
		for uid := range uint32(uids) {
			tell(uid)
		}
	}
	if n := log.count("client is refused"); n != strangersMax || len(s.byUID) != strangersMax {
		t.Errorf("%d messages, %d uids remembered, want %d of each", n, len(s.byUID), strangersMax)
	}

	// A minute later, as far as the uids know that are remembered.
	for _, who := range s.byUID {
		who.silentUntil = time.Now().Add(-time.Second)
	}
	tell(0)
	tell(0)
	if n := log.count("client is refused", "peer.uid=0 ", "untold_before=2"); n != 1 {
		t.Errorf("%d messages about those in between, want 1", n)
	}
	tell(uids)
	if n := log.count(fmt.Sprintf("peer.uid=%d ", uids)); n != 1 || len(s.byUID) != 2 {
		t.Errorf("%d messages about a new uid, %d remembered, want 1 and 2", n, len(s.byUID))
	}
}
