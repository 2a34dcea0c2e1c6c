// Package client speaks the gateway's wire protocol from the other end of the Unix socket.
//
// A [Conn] is one connection. It keeps two buffers, one for each direction, and reuses them: a
// program that sends and receives frames of a steady size allocates nothing per request.
//
//	c, err := client.Dial(ctx, "/tmp/beamline-gateway.sock")
//	...
//	defer c.Close()
//	answer, err := c.Do(&codec.Frame{
//		Version: codec.Version2, Type: codec.TypeRequest, CorrelationID: 1,
//		Subject: []byte("orders.lookup"), Payload: []byte(`{"id":7}`),
//	})
//
// An error of this package means that the connection is of no more use. A request that the gateway
// could not serve is not such an error: it is a frame of type RESPONSE_ERROR, which
// [codec.ParseError] reads.
package client
