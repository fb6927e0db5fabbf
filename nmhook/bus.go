package nmhook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/systembus"
)

const (
	busName      = "org.freedesktop.DBus"
	nmName       = "org.freedesktop.NetworkManager"
	resolvedName = "org.freedesktop.resolve1"
	loginName    = "org.freedesktop.login1"

	ownerChanged      = busName + ".NameOwnerChanged"
	propertiesChanged = busName + ".Properties.PropertiesChanged"
)

// busTimeout bounds each call to the bus daemon itself, which answers without asking anyone.
const busTimeout = 5 * time.Second

// busFollower follows the sources on the system bus, over as many connections as it takes.
type busFollower struct {
	board *board
	log   *slog.Logger
	nm    nmMemory
}

// run follows until ctx ends.
func (f *busFollower) run(ctx context.Context) {
	systembus.Persist(ctx, f.log, func(ctx context.Context) (bool, error) {
		connected, err := f.session(ctx)
		if ctx.Err() == nil {
			f.away(err)
		}
		return connected, err
	})
}

// away says that what is known is the bus's last word.
func (f *busFollower) away(err error) {
	fault := fmt.Sprintf("the system bus is away, what it said last stays in force: %v", err)
	f.board.publish(sourceBus, pending{}, []string{fault}, nil)
	if errors.Is(err, fs.ErrNotExist) { // not even a socket: nothing to wait for with the first view
		f.board.settle(sourceNMDNS, sourceUplinks, sourceResolved)
	}
}

// session is one connection to the bus.
type session struct {
	board *board
	log   *slog.Logger
	conn  *godbus.Conn
	nm    *nmMemory

	mu     sync.Mutex
	owners map[string]string          // well-known name: unique name of its owner, "" = nobody
	points map[godbus.ObjectPath]bool // access points that are in use, see followPoints
}

var errBusClosed = errors.New("the connection was closed")

// session connects, reads everything and follows until the connection or ctx ends. It tells whether there was
// a bus that answered.
func (f *busFollower) session(ctx context.Context) (connected bool, err error) {
	s := &session{board: f.board, log: f.log, nm: &f.nm, owners: map[string]string{}, points: map[godbus.ObjectPath]bool{}}
	conn, err := systembus.Listen(ctx, s.heeds)
	if err != nil {
		return false, err
	}
	s.conn = conn
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer func() {
		cancel()
		if err := conn.Close(); err != nil {
			f.log.Debug("close the connection to the system bus", "error", err)
		}
		readers.Wait()
	}()
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := s.subscribe(ctx); err != nil {
		return false, err
	}
	f.board.publish(sourceBus, pending{}, nil, nil)
	for _, read := range []*reader{s.dnsReader(), s.uplinksReader(), s.resolvedReader()} {
		readers.Add(1)
		go func() {
			defer readers.Done()
			read.run(ctx)
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case signal, open := <-signals:
			if !open {
				return true, errBusClosed
			}
			s.dispatch(signal, time.Now())
		}
	}
}

// subscribe asks for the signals first and for the owners then, so that no change falls between.
func (s *session) subscribe(ctx context.Context) error {
	for _, rule := range matchRules() {
		if err := s.match(ctx, rule); err != nil {
			return err
		}
	}
	for _, name := range []string{nmName, resolvedName, loginName} {
		owner, err := s.askOwner(ctx, name)
		if err != nil {
			return err
		}
		s.setOwner(name, owner, pending{})
	}
	s.board.markAll(pending{})
	return nil
}

func (s *session) match(ctx context.Context, rule []godbus.MatchOption) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := s.conn.AddMatchSignalContext(ctx, rule...); err != nil {
		return fmt.Errorf("subscribe on the system bus: %w", err)
	}
	return nil
}

// askOwner gives the unique name behind a well-known one, "" if there is none.
func (s *session) askOwner(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var owner string
	err := s.conn.BusObject().CallWithContext(ctx, busName+".GetNameOwner", 0, name).Store(&owner)
	var refused godbus.Error
	if errors.As(err, &refused) && refused.Name == busName+".Error.NameHasNoOwner" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask the system bus who owns %s: %w", name, err)
	}
	return owner, nil
}

func (s *session) owner(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owners[name]
}

// heeds tells whether a sender is one of those that we follow. A signal that is told before its sender is known to be is
// not missed: all is read again then.
func (s *session) heeds(sender string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, owner := range s.owners {
		if owner == sender {
			return true
		}
	}
	return false
}
