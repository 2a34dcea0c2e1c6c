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

// inheritWait bounds the wait for the sockets of the other process. Until they are taken it serves on.
const inheritWait = 10 * time.Second

// ErrPredecessorEnded says that the process that handed over has died, or was told to stop, before it had passed all its clients
// on. This one has the service, and what it has taken.
var ErrPredecessorEnded = errors.New("engine: the other process has ended before it had passed all its clients on")

// Inheritance is what a gateway gets that takes over from another process. Its Probe and its Control are the caller's.
type Inheritance struct {
	Legacy
	conn            *net.UnixConn
	socket, control *SocketFile // where clients connect, and Legacy.Control, whoever has them
	listening       bool        // a gateway has socket
}

// Inherit asks the process at the other end of conn, which is in [Gateway.HandOver], for its sockets. That one goes on with
// them alone until [Gateway.TakeSocket].
func Inherit(conn *net.UnixConn) (*Inheritance, error) {
	if err := conn.SetDeadline(time.Now().Add(inheritWait)); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{wantSockets}); err != nil {
		return nil, err
	}
	m, fds, err := receive(conn)
	if err != nil {
		return nil, fmt.Errorf("engine: taking the socket over: %w", err)
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = os.NewFile(uintptr(fd), "passed")
	}
	i, err := newInheritance(&m, files)
	if err == nil {
		err = conn.SetDeadline(time.Time{}) // an answer that comes late is none the worse from here on
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, fmt.Errorf("engine: taking the socket over: %w", err)
	}
	i.conn = conn
	return i, nil
}

// newInheritance takes files over if it succeeds.
func newInheritance(m *message, files []*os.File) (*Inheritance, error) {
	var described passedSockets
	err := json.Unmarshal(m.in, &described)
	want := 1
	if described.HasProbe {
		want++
	}
	if described.Control != nil {
		want++
	}
	if err != nil || m.kind != messageSockets || len(files) != want {
		return nil, fmt.Errorf("unexpected message %q with %d descriptors", m.kind, len(files))
	}
	i := &Inheritance{Legacy: Legacy{ProbeAddress: described.ProbeAddress, NotifySocket: described.NotifySocket, Watchdog: described.Watchdog}}
	if i.socket, err = described.Main.socketFrom(files[0]); err != nil {
		return nil, err
	}
	if described.Control != nil {
		if i.control, err = described.Control.socketFrom(files[want-1]); err != nil {
			return nil, errors.Join(err, i.socket.Close())
		}
		i.Control = i.control
		_ = files[want-1].Close() // socketFrom works on a duplicate
	}
	_ = files[0].Close()
	if described.HasProbe {
		i.Probe = files[1]
	}
	return i, nil
}

// Close gives up what nobody has taken over.
func (i *Inheritance) Close() {
	if !i.listening {
		_ = i.socket.Close()
	}
	if i.Control != nil {
		_ = i.Control.Close()
	}
	if i.Probe != nil {
		_ = i.Probe.Close()
	}
}

// keepPaths makes this process look after the paths of the sockets: the other one has ended, or is about to.
func (i *Inheritance) keepPaths() {
	i.socket.borrowed.Store(false)
	if i.control != nil {
		i.control.borrowed.Store(false)
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

// TakeSocket accepts clients on the socket of the other process, which stops to. If it fails nothing was taken over.
func (g *Gateway) TakeSocket(i *Inheritance) error {
	if err := acknowledge(i.conn); err != nil {
		return fmt.Errorf("engine: taking the socket over: %w", err)
	}
	err := g.Listen(i.socket)
	i.listening = err == nil
	return err
}

// TakeClients takes the other process's clients as they come, until there are none left there. It waits for it as long as
// it lives. inCharge is called when this process gets the service, before the other one ends. It returns the number of clients
// taken, and nil or [ErrPredecessorEnded] if this process has the service. After another error, as of a connection that was closed here,
// the other process has it: this gateway is to be drained and closed.
func (g *Gateway) TakeClients(i *Inheritance, inCharge func()) (clients int, err error) {
	for {
		done, err := g.takeNext(i.conn)
		if done {
			inCharge()
			err = acknowledge(i.conn)
			if err == nil || isEnd(err) {
				i.keepPaths()
				return clients, nil
			}
		}
		if isEnd(err) {
			inCharge()
			i.keepPaths()
			return clients, fmt.Errorf("%w: %w", ErrPredecessorEnded, err)
		}
		if err != nil {
			return clients, fmt.Errorf("engine: taking clients over: %w", err)
		}
		clients++
	}
}

// takeNext takes a client, or says that there are no more.
func (g *Gateway) takeNext(conn *net.UnixConn) (done bool, err error) {
	m, fds, err := receive(conn)
	if err != nil {
		return false, err
	}
	switch {
	case m.kind == messageDone && len(fds) == 0:
		return true, nil
	case m.kind == messageClient && len(fds) == 1:
	default:
		closeAll(fds)
		return false, fmt.Errorf("unexpected message %q with %d descriptors", m.kind, len(fds))
	}
	err = unix.SetNonblock(fds[0], true)
	if err == nil {
		err = acknowledge(conn) // before it is read: it is ours from then on
	}
	if err != nil {
		closeAll(fds)
		return false, err
	}
	g.takeClient(fds[0], &m)
	return false, nil
}

// takeClient gives a client of another process to a loop. Limits on connections do not count for it: it was
// admitted once. But who may connect is for the settings of this process to say: see loop.enter.
func (g *Gateway) takeClient(fd int, m *message) {
	peer := credentialsOf(fd)
	rule := g.policy.Load().peers.ruleFor(peer, fd)
	g.connections.Add(1)
	rule.state.connections.Add(1)
	g.clientsTakenOver.Add(1)
	l, id := g.assign()
	g.log.Debug("client taken over", "client", id, "loop", l.index, "peer", peer, "rule", rule.name)
	s := &session{
		loop: l, id: id, peer: peer, rule: rule, fd: fd, watched: unix.EPOLLIN,
		finishing: m.flags&flagFinishing != 0, eof: m.flags&flagEOF != 0,
	}
	l.post(func() {
		s.usage.opened(l.now)
		l.enter(s, m.in, m.out)
	})
}
