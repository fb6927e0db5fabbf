package dbus

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

// session is the service on the bus, for the life of a connection.
type session struct {
	ctx    context.Context //nolint:containedctx // calls come without one; theirs ends with the connection
	log    *slog.Logger
	daemon Daemon

	shown      atomic.Pointer[snapshot]
	asking     *godbus.Conn // for questions about callers
	callers    *attendance
	routes     shared
	statistics shared
	readers    quota // calls that wait for a reading of the kernel
	steerers   quota // those that need a right
	users      quota // calls that wait for polkit
	floods     floodLog
	latest     func() (netvm.Status, uint64)
	behind     chan chan struct{} // asks for the latest status to be shown; the channel is closed then

	mu    sync.Mutex
	ended bool // no work begins any more
	works sync.WaitGroup
}

func newSession(ctx context.Context, s *Service, asking *godbus.Conn) *session {
	latest, edition := s.latest()
	session := &session{
		ctx: ctx, log: s.log, daemon: s.daemon, latest: s.latest, behind: make(chan chan struct{}),
		asking: asking, callers: newAttendance(s.daemon, asking),
		readers:  quota{each: callsOfSender, all: callsInWork},
		steerers: quota{each: callsOfSender, all: callsInWork},
		users:    quota{each: questionsOfUser, all: callsInWork},
		floods:   floodLog{log: s.log},
	}
	session.routes.read = session.readRoutes
	session.statistics.read = session.readStatistics
	session.shown.Store(newSnapshot(latest, edition))
	return session
}

// end waits for what is worked on. Both connections are closed.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.works.Wait()
	s.callers.follower.Wait()
}

// catchUp returns when everything that was published before is shown.
func (s *session) catchUp() {
	done := make(chan struct{})
	select {
	case s.behind <- done:
		select {
		case <-done:
		case <-s.ctx.Done():
		}
	case <-s.ctx.Done():
	}
}

// snapshot is one status as it is shown; it is never changed.
type snapshot struct {
	edition uint64 // of the status
	values  dict
	vifs    []netvm.Vif

	mu    sync.Mutex
	wires map[string]systembus.Body // what was asked for, as it goes over the bus: a flood is answered from here
}

func newSnapshot(status netvm.Status, edition uint64) *snapshot {
	return &snapshot{edition: edition, values: encode(status), vifs: status.Vifs, wires: map[string]systembus.Body{}}
}

// all is the answer of GetAll, property that of Get.
func (s *snapshot) all() (systembus.Body, error) { return s.wire("", s.values) }

func (s *snapshot) property(name string) (systembus.Body, error) {
	v, ok := s.values[name]
	if !ok {
		return systembus.Body{}, refusal(busUnknownProperty, "no property %s in %s", quote(name), Interface)
	}
	return s.wire(name, v)
}

func (s *snapshot) wire(key string, value any) (systembus.Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if body, ok := s.wires[key]; ok {
		return body, nil
	}
	body, err := systembus.Encode(value)
	if err == nil {
		s.wires[key] = body
	}
	return body, err
}

// show makes the latest status readable, then tells what changed: in one signal, the changed properties only.
func (s *session) show(conn *godbus.Conn) error {
	status, edition := s.latest()
	if edition == s.shown.Load().edition {
		return nil
	}
	now := newSnapshot(status, edition)
	before := s.shown.Swap(now)
	changed := dict{}
	for name, v := range now.values {
		if !reflect.DeepEqual(v.Value(), before.values[name].Value()) {
			changed[name] = v
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := conn.Emit(Path, properties+"."+propertiesChanged, Interface, changed, []string{}); err != nil {
		return fmt.Errorf("emit %s: %w", propertiesChanged, err)
	}
	if targets, ok := changed["DnsTargets"]; ok {
		if err := emit(conn, targetsChanged, targets.Value()); err != nil {
			return err
		}
	}
	went, came := movedVifs(before.vifs, now.vifs)
	for _, name := range went {
		if err := emit(conn, vifRemoved, name); err != nil {
			return err
		}
	}
	for _, name := range came {
		if err := emit(conn, vifAdded, name); err != nil {
			return err
		}
	}
	return nil
}

// emit sends a signal of our own interface.
func emit(conn *godbus.Conn, signal string, value any) error {
	if err := conn.Emit(Path, Interface+"."+signal, value); err != nil {
		return fmt.Errorf("emit %s: %w", signal, err)
	}
	return nil
}

// readRoutes and readStatistics give the answers of ListRoutes and GetStatistics.
func (s *session) readRoutes(ctx context.Context) (systembus.Body, error) {
	routes, err := s.daemon.Routes(ctx)
	if err != nil {
		return systembus.Body{}, err
	}
	return systembus.Encode(each(routes, encodeRoute))
}

func (s *session) readStatistics(ctx context.Context) (systembus.Body, error) {
	tally, err := s.daemon.Tally(ctx)
	if err != nil {
		return systembus.Body{}, err
	}
	status, _ := s.latest()
	return systembus.Encode(encodeStatistics(status.Statistics, tally))
}

// sharedPause is how far apart readings of the kernel begin that callers ask for. The first caller waits for nothing.
const sharedPause = 250 * time.Millisecond

// shared has the kernel read for callers: once for all that ask before it begins, so that no answer is older than its
// question, and a flood costs four readings a second.
type shared struct {
	read func(context.Context) (systembus.Body, error)

	mu    sync.Mutex
	next  *reading // that has not begun; nil = nobody asks
	began time.Time
	busy  sync.Mutex // held while reading
}

// reading is one look at the kernel.
type reading struct {
	done chan struct{}
	body systembus.Body // once done
	err  error
}

// get reads, or waits for the others' reading.
func (s *shared) get(ctx context.Context) (systembus.Body, error) {
	s.mu.Lock()
	r := s.next
	if r == nil {
		r = &reading{done: make(chan struct{})}
		s.next = r
		go s.run(ctx, r, sharedPause-time.Since(s.began))
	}
	s.mu.Unlock()
	<-r.done
	return r.body, r.err
}

func (s *shared) run(ctx context.Context, r *reading, pause time.Duration) {
	defer close(r.done)
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.busy.Lock()
	defer s.busy.Unlock()
	s.mu.Lock()
	s.next, s.began = nil, time.Now()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, workDeadline)
	defer cancel()
	r.body, r.err = s.read(ctx)
}
