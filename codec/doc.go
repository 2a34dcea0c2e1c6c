// Package codec reads and writes the frames of the gateway's wire protocol.
package codec
