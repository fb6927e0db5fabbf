package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
)

// StandIn plays netvmd on the bus that DBUS_SYSTEM_BUS_ADDRESS names: the real service shows the statuses that it is told,
// and has overrides, which come and go as those of netvmd do. No kernel is behind it.
type StandIn struct {
	// Refreshed gets a value for each call of Refresh, as long as it has room.
	Refreshed chan struct{}

	service *dbus.Service
	cancel  context.CancelFunc
	done    chan struct{} // closed when the service has ended
	err     error         // what it ended with; valid after done

	mu        sync.Mutex
	status    netvm.Status // without overrides
	overrides []netvm.Override
	routes    []netvm.Route
	tally     netvm.Tally
	failure   error // the answer to what is asked for
}

// ServeStandIn has a stand-in play netvmd with a status, and returns when it is on the bus. Stop it.
func ServeStandIn(ctx context.Context, status netvm.Status) (*StandIn, error) {
	s := &StandIn{status: status, Refreshed: make(chan struct{}, 64)}
	return s, s.Serve(ctx)
}

// Serve has the stand-in play netvmd again after it was stopped.
func (s *StandIn) Serve(ctx context.Context) error {
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	service, done := dbus.NewService(s, slog.New(slog.NewTextHandler(io.Discard, nil))), make(chan struct{})
	s.service, s.cancel, s.done = service, cancel, done
	s.Publish(s.status)
	ctx, enough := context.WithTimeout(ctx, busTimeout)
	defer enough()
	seen := dbus.Watch(ctx)
	go func() {
		defer close(done)
		s.err = service.Run(serving)
	}()
	for e := range seen {
		if e.Running {
			return nil
		}
	}
	return fmt.Errorf("the stand-in for netvmd is not on the bus: %w", ctx.Err())
}

// Stop ends it; it may be stopped twice.
func (s *StandIn) Stop() error {
	s.cancel()
	<-s.done
	return s.err
}

// Publish shows another status.
func (s *StandIn) Publish(status netvm.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
	s.show()
}

// Count has the stand-in say what the kernel counted, and list routes.
func (s *StandIn) Count(tally netvm.Tally, routes []netvm.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally, s.routes = tally, routes
}

// Fail has Refresh answer with an error; nil = it works again.
func (s *StandIn) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// show publishes the status as it is with the newest override, if somebody has set one.
func (s *StandIn) show() {
	status := s.status
	if len(s.overrides) > 0 {
		status.DNSOverrides = slices.Clone(s.overrides)
		top := s.overrides[0]
		status.DNSSource, status.DNSReason = "override", "set over D-Bus by somebody"
		status.DNSServers, status.DNSTargets = nil, slices.Clone(status.DNSTargets)
		for _, a := range top.Servers {
			status.DNSServers = append(status.DNSServers, netvm.Resolver{Addr: a})
		}
		for i := range status.DNSTargets {
			status.DNSTargets[i].Resolver.Addr = top.Servers[i%len(top.Servers)]
		}
	}
	s.service.Publish(status)
}

// Refresh is part of dbus.Daemon, as is all below.
func (s *StandIn) Refresh(context.Context) (changed bool, err error) {
	select {
	case s.Refreshed <- struct{}{}:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.overrides) > 0, s.failure
}

// SetOverride notes an override.
func (s *StandIn) SetOverride(_ context.Context, o netvm.Override) error {
	if o.Servers[0].IsLoopback() {
		return netvm.InvalidError("127.0.0.1 cannot be a resolver: a loopback address")
	}
	o.By, o.Since = "somebody", time.UnixMicro(1_700_000_000_000_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overrides = slices.DeleteFunc(s.overrides, func(old netvm.Override) bool {
		return old.Persistent == o.Persistent && (o.Persistent || old.Holder == o.Holder)
	})
	s.overrides = slices.Insert(s.overrides, 0, o)
	s.show()
	return nil
}

// ClearOverride takes an override back.
func (s *StandIn) ClearOverride(_ context.Context, holder string) error {
	s.end(func(o netvm.Override) bool { return o.Persistent || o.Holder == holder })
	return nil
}

// Left ends the overrides of a holder.
func (s *StandIn) Left(holder string) {
	s.end(func(o netvm.Override) bool { return !o.Persistent && o.Holder == holder })
}

func (s *StandIn) end(these func(netvm.Override) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overrides = slices.DeleteFunc(s.overrides, these)
	s.show()
}

// Holders are those whose leaving ends an override.
func (s *StandIn) Holders() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, o := range s.overrides {
		if !o.Persistent {
			out = append(out, o.Holder)
		}
	}
	return out
}

// Routes lists what Count said.
func (s *StandIn) Routes(context.Context) ([]netvm.Route, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.routes, nil
}

// Tally is what Count said.
func (s *StandIn) Tally(context.Context) (netvm.Tally, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally, nil
}
