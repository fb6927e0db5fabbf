package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

const (
	busName      = "org.freedesktop.DBus"
	ownerChanged = "NameOwnerChanged"

	// busTimeout is for one call on the lab's bus; they take 1 ms.
	busTimeout = 10 * time.Second
)

// at has dbus find the netvm's bus.
func (v *NetVM) at(ctx context.Context) context.Context { return systembus.At(ctx, v.bus) }

// Status asks netvmd for all that it publishes.
func (v *NetVM) Status(ctx context.Context) (status netvm.Status, err error) {
	client, err := dbus.Connect(v.at(ctx))
	if err != nil {
		return status, fmt.Errorf("%s: %w", v.Name, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if status, err = client.Status(ctx); err != nil {
		return status, err
	}
	status.Statistics, _, err = client.Statistics(ctx)
	return status, err
}

// Await waits, by netvmd's signals, until what it says satisfies holds, and returns that. On a timeout the
// last status comes with the error.
func (v *NetVM) Await(ctx context.Context, holds func(netvm.Status) bool) (netvm.Status, error) {
	w := v.Watch(ctx)
	defer w.Close()
	return w.Await(ctx, holds)
}

// AwaitTargets waits until the virtual addresses, in order, lead where wanted says; the zero Addr = unserved.
func (v *NetVM) AwaitTargets(ctx context.Context, wanted ...netip.Addr) (netvm.Status, error) {
	return v.Await(ctx, LeadsTo(wanted...))
}

// LeadsTo tells whether the virtual addresses, in order, lead where wanted says; the zero Addr = unserved.
func LeadsTo(wanted ...netip.Addr) func(netvm.Status) bool {
	return func(s netvm.Status) bool {
		if len(s.DNSTargets) != len(wanted) {
			return false
		}
		for i, t := range s.DNSTargets {
			if t.Resolver.Addr != wanted[i] {
				return false
			}
		}
		return true
	}
}

// Watch follows what netvmd says from the moment that it is made, over its restarts.
type Watch struct {
	cancel context.CancelFunc
	events <-chan dbus.Event
}

// Watch starts to follow netvmd. Close it.
func (v *NetVM) Watch(ctx context.Context) *Watch {
	ctx, cancel := context.WithCancel(ctx)
	return &Watch{cancel, dbus.Watch(v.at(ctx))}
}

// Close ends the watch.
func (w *Watch) Close() { w.cancel() }

// Await waits until a status that was not awaited before satisfies holds; the first is that of the moment
// when the watch began.
func (w *Watch) Await(ctx context.Context, holds func(netvm.Status) bool) (last netvm.Status, err error) {
	for {
		select {
		case e, open := <-w.events:
			if !open {
				return last, errors.New("netvm: the watch was closed")
			}
			if last = e.Status; e.Running && holds(last) {
				return last, nil
			}
		case <-ctx.Done():
			return last, fmt.Errorf("netvmd: waited in vain: %w; its targets are %v", ctx.Err(), last.DNSTargets)
		}
	}
}
