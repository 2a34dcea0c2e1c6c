package chaos

import (
	"encoding/binary"
	"encoding/hex"
)

// mix spreads the bits of an id, for choices that everybody who knows the id makes alike.
func mix(id uint64) uint64 {
	id = (id ^ id>>30) * 0xbf58476d1ce4e5b9
	id = (id ^ id>>27) * 0x94d049bb133111eb
	return id ^ id>>31
}

const idDigits = 16 // hexadecimal, at the beginning of each payload

// heavy is set in the ids of requests so large that some of them fill every buffer on the way to NATS.
const heavy = 1 << 62

// payloadOf returns the payload that belongs to an id: its digits, and mostly little, sometimes much more.
func payloadOf(id uint64, k kind) []byte {
	size := int(mix(id) % 200)
	switch {
	case id&heavy != 0:
		size = 100_000 + int(mix(id)%200_000)
	case k == durableV2: // three servers keep it on disk
	case mix(id)>>32%100 == 0:
		size = int(mix(id) % 100_000)
	case mix(id)>>32%10 == 0:
		size = int(mix(id) % 5000)
	}
	payload := make([]byte, idDigits+size)
	var digits [8]byte
	binary.BigEndian.PutUint64(digits[:], id)
	hex.Encode(payload, digits[:])
	for i := range payload[idDigits:] {
		payload[idDigits+i] = 'a' + byte((id+uint64(i))%26)
	}
	return payload
}

// idOf returns the id that a payload begins with.
func idOf(payload []byte) (id uint64, ok bool) {
	if len(payload) < idDigits {
		return 0, false
	}
	var digits [8]byte
	if _, err := hex.Decode(digits[:], payload[:idDigits]); err != nil {
		return 0, false
	}
	return binary.BigEndian.Uint64(digits[:]), true
}
