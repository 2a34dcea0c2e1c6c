package probe

import "github.com/aigroup/ipc-gateway/engine"

// othersLabel stands for the clients that have no rule.
const othersLabel = "others"

var peerReasonPairs = labelPairs("reason", engine.PeerRefusalLabels[:])

func peerConnections(dst []byte, name string, s *engine.Stats) []byte {
	for i := range s.Peers {
		dst = appendSample(dst, name, labelPair("peer", s.Peers[i].Name), s.Peers[i].Connections)
	}
	return appendSample(dst, name, labelPair("peer", othersLabel), s.OtherPeers.Connections)
}

func peerRefusals(dst []byte, name string, s *engine.Stats) []byte {
	for i := range s.Peers {
		dst = appendPeerRefusals(dst, name, s.Peers[i].Name, &s.Peers[i].PeerCounts)
	}
	return appendPeerRefusals(dst, name, othersLabel, &s.OtherPeers)
}

func appendPeerRefusals(dst []byte, name, peer string, c *engine.PeerCounts) []byte {
	for i, refusals := range c.Refusals {
		dst = appendSample(dst, name, labelPair("peer", peer)+","+peerReasonPairs[i], refusals)
	}
	return dst
}
