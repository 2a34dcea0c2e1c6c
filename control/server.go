package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aigroup/ipc-gateway/engine"
)

// SocketSuffix makes the usual path of the control socket from that of the gateway's.
const SocketSuffix = ".ctl"

const (
	// socketMode lets nobody but the gateway's user, and root, open the control socket.
	socketMode = 0o600
	// loopWait bounds the wait for the event loops. A pass takes milliseconds at most: one that has not turned
	// for this long is stuck.
	loopWait = 2 * time.Second

	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	closeTimeout  = time.Second
)

// Options is what a server tells of, and whom it asks to do something.
type Options struct {
	Gateway *engine.Gateway
	Version string
	Log     *slog.Logger
	// Reload reads the configuration again. After an error everything is as before.
	Reload func(ctx context.Context) (Reloaded, error)
	// Drain begins a graceful shutdown, if none has begun, and returns at once.
	Drain func() Shutdown
	// Settings returns every setting that counts now, with its secrets masked.
	Settings func() []Setting
	// HandOver hands over to another process on conn, which it does not close, and returns when that is done or has
	// failed. nil: a takeover is refused.
	HandOver func(conn *net.UnixConn)
}

// Reloaded names the settings that a reload has found different.
type Reloaded struct {
	Changed     []string `json:"changed"`      // these count now
	NeedRestart []string `json:"need_restart"` // these count after a restart
}

// Server is a control server. Handlers are added before Serve.
type Server struct {
	Options
	endpoints map[string]endpoint // by path
	http      http.Server
	socket    *engine.SocketFile
	served    chan struct{} // closed when the server's goroutine has ended

	handingOver sync.Mutex // held during a takeover
}

type endpoint struct {
	method string
	serve  http.HandlerFunc
}

// Listen makes the control socket at path. A socket there that nobody serves is replaced; one that
// somebody does is left alone, unless that is a gateway that is about to end.
func Listen(path string) (*engine.SocketFile, error) {
	socket, err := engine.ListenAt(path, socketMode)
	if errors.Is(err, engine.ErrServed) && drains(path) {
		socket, err = engine.TakePath(path, socketMode)
	}
	if err != nil {
		return nil, fmt.Errorf("control %w", err)
	}
	return socket, nil
}

// New returns a server with the endpoints of the package.
func New(o Options) *Server {
	s := &Server{Options: o, endpoints: map[string]endpoint{}, served: make(chan struct{})}
	s.Handle(http.MethodGet, "/v1/status", s.status)
	s.Handle(http.MethodGet, "/v1/clients", s.clients)
	s.Handle(http.MethodGet, "/v1/links", s.links)
	s.Handle(http.MethodGet, "/v1/routes", s.routes)
	s.Handle(http.MethodGet, "/v1/breakers", s.breakers)
	s.Handle(http.MethodGet, "/v1/config", s.config)
	s.Handle(http.MethodGet, "/v1/errors", s.errors)
	s.Handle(http.MethodPost, "/v1/kill", s.kill)
	s.Handle(http.MethodPost, "/v1/drain", s.drain)
	s.Handle(http.MethodPost, "/v1/reload", s.reload)
	s.Handle(http.MethodPost, takeoverPath, s.takeover)
	s.http = http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ConnContext:       withUser,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	return s
}

// Handle adds an endpoint. Who calls it was checked. It gets the server's own ResponseWriter, and may take its
// connection over, a *net.UnixConn, with http.NewResponseController(w).Hijack. REQUIRES: before Serve.
func (s *Server) Handle(method, path string, serve http.HandlerFunc) {
	s.endpoints[path] = endpoint{method, serve}
}

// Serve begins to serve socket, which the server owns from now on, in the background.
func (s *Server) Serve(socket *engine.SocketFile) error {
	s.socket = socket
	listener, err := net.FileListener(socket.File)
	if err != nil {
		close(s.served)
		return errors.Join(fmt.Errorf("control socket: %w", err), socket.Remove(), socket.Close())
	}
	go func() {
		defer close(s.served)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("the control socket is gone, the gateway goes on without it", "error", err)
		}
	}()
	return nil
}

// RemovePath removes the socket if it is still ours, for a process that ends at once. Close does that as well.
func (s *Server) RemovePath() error { return s.socket.Remove() }

// Socket returns the socket that is served.
func (s *Server) Socket() *engine.SocketFile { return s.socket }

// Leave accepts nobody any more: another process does, on the same socket. Close is still to be called.
func (s *Server) Leave() {
	atOnce, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.http.Shutdown(atOnce) // whatever goes on is for Close to wait for
}

// Close removes the socket if it is still ours, and ends the server. Answers that are being written have a
// moment to get out.
func (s *Server) Close() error {
	err := s.socket.Remove()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	<-s.served
	return errors.Join(err, s.socket.Close())
}

// userKey is the key of a connection's user in its context.
type userKey struct{}

// withUser notes who connected. Of somebody unknown nothing is noted.
func withUser(ctx context.Context, conn net.Conn) context.Context {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return ctx
	}
	_ = raw.Control(func(fd uintptr) {
		if uid, ok := engine.UserOf(int(fd)); ok {
			ctx = context.WithValue(ctx, userKey{}, uid)
		}
	})
	return ctx
}

// admitted reports whether the caller is the gateway's own user or root.
func admitted(r *http.Request) bool {
	uid, known := r.Context().Value(userKey{}).(uint32)
	return known && (uid == 0 || uid == uint32(os.Geteuid()))
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if !admitted(r) {
		fail(w, http.StatusForbidden, "only uid %d, which the gateway runs as, and root may use the control socket: run the command as one of them", os.Geteuid())
		return
	}
	e, ok := s.endpoints[r.URL.Path]
	switch {
	case !ok:
		paths := strings.Join(slices.Sorted(maps.Keys(s.endpoints)), ", ")
		fail(w, http.StatusNotFound, "nothing is at %s: this gateway (%s) has %s", r.URL.Path, s.Version, paths)
	case r.Method != e.method:
		w.Header().Set("Allow", e.method)
		fail(w, http.StatusMethodNotAllowed, "%s wants the method %s", r.URL.Path, e.method)
	default:
		e.serve(w, r)
	}
}

// fail answers with an error.
func fail(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, problem{fmt.Sprintf(format, args...)})
}

// problem is the answer that is an error.
type problem struct {
	Error string `json:"error"`
}

// answer sends v, which always has a JSON form.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // a caller that left gets no answer, and nobody else minds
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), loopWait)
	defer cancel()
	reloaded, err := s.Reload(ctx)
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, "%v", err)
		return
	}
	answer(w, http.StatusOK, reloaded)
}
