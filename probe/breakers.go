package probe

import (
	"strconv"

	"github.com/aigroup/ipc-gateway/engine"
)

var breakerStatePairs = labelPairs("state", engine.BreakerStateLabels[:])

func loopBreakers(dst []byte, name string, s *engine.Stats) []byte {
	for i := range s.LoopBreakers {
		loop := labelPair("loop", strconv.Itoa(i))
		for state, n := range s.LoopBreakers[i] {
			dst = appendSample(dst, name, loop+","+breakerStatePairs[state], n)
		}
	}
	return dst
}
