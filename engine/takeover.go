package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Inheritance is what a gateway gets that takes over from another process.
type Inheritance struct {
	// Socket is where clients connect. Listen takes it over.
	Socket *SocketFile
	// Probe is the probe's listener, and ProbeAddress the setting by which it was made. Nil: there was none. It is the
	// caller's.
	Probe        *os.File
	ProbeAddress string

	conn *net.UnixConn
}

// Inherit asks the process at the other end of conn, which is in [Gateway.HandOver], for its sockets. It goes on with
// them as well until [Gateway.TakeClients].
func Inherit(conn *net.UnixConn) (*Inheritance, error) {
	if _, err := conn.Write([]byte{wantSockets}); err != nil {
		return nil, err
	}
	m, fds, err := receive(conn, handoverWait)
	if err != nil {
		return nil, fmt.Errorf("engine: taking the socket over: %w", err)
	}
	var described passedSocket
	err = json.Unmarshal(m.in, &described)
	if err != nil || m.kind != messageSockets || len(fds) < 1 || len(fds) > 2 {
		closeAll(fds)
		return nil, fmt.Errorf("engine: taking the socket over: unexpected message %q with %d descriptors", m.kind, len(fds))
	}
	i := &Inheritance{ProbeAddress: described.Probe, conn: conn}
	if len(fds) == 2 {
		i.Probe = os.NewFile(uintptr(fds[1]), "probe")
	}
	listener := os.NewFile(uintptr(fds[0]), described.Path)
	defer listener.Close() //nolint:errcheck // AdoptSocket works on a duplicate
	if i.Socket, err = AdoptSocket(listener); err != nil {
		i.Close()
		return nil, err
	}
	i.Socket.path, i.Socket.device, i.Socket.inode = described.Path, described.Device, described.Inode
	i.Socket.adopted = described.Adopted
	return i, nil
}

// Close gives up what nobody has taken over.
func (i *Inheritance) Close() {
	if i.Socket != nil {
		_ = i.Socket.Close()
	}
	if i.Probe != nil {
		_ = i.Probe.Close()
	}
}

// AwaitHandover waits, in the process that hands over, until the other one asks for the sockets.
func AwaitHandover(conn *net.UnixConn, wait time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	asked := make([]byte, 1)
	if _, err := conn.Read(asked); err != nil {
		return fmt.Errorf("engine: the process that takes over does not ask for the socket: %w", err)
	}
	if asked[0] != wantSockets {
		return fmt.Errorf("engine: the process that takes over asks for 0x%02x", asked[0])
	}
	return nil
}

// TakeClients tells the other process that this one accepts clients, which it must do by now, and takes that one's clients
// as they come, until there are none left there. It returns their number; after an error too, what was taken is served. patience
// bounds the wait for the next client.
func (g *Gateway) TakeClients(i *Inheritance, patience time.Duration) (clients int, err error) {
	if err := acknowledge(i.conn); err != nil {
		return 0, err
	}
	for {
		m, fds, err := receive(i.conn, patience)
		if err != nil {
			return clients, err
		}
		switch {
		case m.kind == messageDone && len(fds) == 0:
			return clients, acknowledge(i.conn)
		case m.kind == messageClient && len(fds) == 1:
		default:
			closeAll(fds)
			return clients, fmt.Errorf("engine: unexpected message %q with %d descriptors", m.kind, len(fds))
		}
		// Once it is acknowledged it is ours alone, so it is not read before.
		if err := errors.Join(unix.SetNonblock(fds[0], true), acknowledge(i.conn)); err != nil {
			closeAll(fds)
			return clients, err
		}
		g.takeClient(fds[0], m.in, m.out)
		clients++
	}
}

// takeClient gives a client of another process to a loop. Limits on connections do not count for it: it was
// admitted once.
func (g *Gateway) takeClient(fd int, in, out []byte) {
	peer := credentialsOf(fd)
	rule := g.policy.Load().peers.ruleFor(peer, fd)
	g.connections.Add(1)
	rule.state.connections.Add(1)
	g.clientsTakenOver.Add(1)
	l, id := g.assign()
	g.log.Debug("client taken over", "client", id, "loop", l.index, "peer", peer, "rule", rule.name)
	l.post(func() { l.open(fd, id, peer, rule, in, out) })
}
