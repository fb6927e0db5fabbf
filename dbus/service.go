package dbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

// nameDeadline is how long a name that another process owns is waited for: a netvmd that was killed a moment ago may
// not have left the bus yet.
const nameDeadline = 5 * time.Second

// ErrNameTaken says that another process owns org.qubes_os.NetVM1.
var ErrNameTaken = errors.New(Name + " is owned by another process: is netvmd running already?")

// Service shows the latest published status on the bus, and asks the daemon for what callers want. It comes back when the
// bus does.
type Service struct {
	log    *slog.Logger
	daemon Daemon
	fresh  chan struct{} // capacity 1: there is something to show

	mu      sync.Mutex
	status  netvm.Status
	edition uint64 // counts the statuses
}

// NewService makes a service that shows an empty status until the first Publish, and asks daemon what callers want.
func NewService(daemon Daemon, log *slog.Logger) *Service {
	return &Service{log: log, daemon: daemon, fresh: make(chan struct{}, 1)}
}

// Publish replaces the status; it never blocks. Of statuses that follow faster than the bus takes them, the last
// is shown.
func (s *Service) Publish(status netvm.Status) {
	s.mu.Lock()
	s.status = status
	s.edition++
	s.mu.Unlock()
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

func (s *Service) latest() (status netvm.Status, edition uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.edition
}

// Run serves until ctx ends. A bus that is away is waited for; only ErrNameTaken is final.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var final error
	level := slog.LevelWarn
	systembus.Persist(ctx, s.log, func(ctx context.Context) (bool, error) {
		connected, err := s.serve(ctx)
		if errors.Is(err, ErrNameTaken) {
			final = err
			cancel()
		}
		if connected {
			level = slog.LevelWarn
		}
		if ctx.Err() == nil {
			s.log.Log(ctx, level, "not on the system bus; coming back with it", "err", err)
			level = slog.LevelDebug // once is enough until it was there again
		}
		return connected, err
	})
	return final
}

// serve holds a connection until it breaks, and another to ask the bus and polkit about callers: that one works on when
// callers who do not read their answers have the bus stop reading from the first (dbus-daemon(1), max_incoming_bytes).
func (s *Service) serve(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	asking, err := systembus.Connect(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	session := newSession(ctx, s, asking)
	defer session.end()
	defer cancel()                        // which ends both connections
	defer func() { _ = asking.Close() }() // it is broken, or we are leaving
	if err := session.callers.begin(ctx); err != nil {
		return false, err
	}
	bus, err := systembus.Serve(ctx, session.take)
	if err != nil {
		return false, err
	}
	defer func() { _ = bus.Close() }()
	if err := own(ctx, bus.Conn); err != nil {
		return false, err
	}
	s.log.Info("on the system bus", "name", Name)
	for {
		select {
		case <-bus.Context().Done():
			return true, errBusGone
		case <-asking.Context().Done():
			return true, errBusGone
		case <-s.fresh:
			if err := session.show(bus.Conn); err != nil {
				return true, err
			}
		case done := <-session.behind:
			err := session.show(bus.Conn)
			close(done)
			if err != nil {
				return true, err
			}
		}
	}
}

// own asks for our name and, when another process has it, waits for it a little.
func own(ctx context.Context, conn *godbus.Conn) error {
	signals := make(chan *godbus.Signal, 16)
	conn.Signal(signals)
	defer conn.RemoveSignal(signals)
	var reply uint32
	if err := ask(ctx, conn, "RequestName", &reply, Name, uint32(0)); err != nil {
		return err
	}
	if godbus.RequestNameReply(reply) != godbus.RequestNameReplyInQueue {
		return nil
	}
	timeout := time.NewTimer(nameDeadline)
	defer timeout.Stop()
	for {
		select {
		case sig, ok := <-signals:
			if !ok {
				return errBusGone
			}
			if sig.Name == busName+".NameAcquired" && len(sig.Body) == 1 && sig.Body[0] == Name {
				return nil
			}
		case <-timeout.C:
			return ErrNameTaken
		}
	}
}

// ask calls a method of the bus itself.
func ask(ctx context.Context, conn *godbus.Conn, method string, result any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	if err := conn.BusObject().CallWithContext(ctx, busName+"."+method, 0, args...).Store(result); err != nil {
		return fmt.Errorf("ask the bus, %s %v: %w", method, args, err)
	}
	return nil
}
