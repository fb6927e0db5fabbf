package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const (
	netvmdName = "org.qubes_os.NetVM1"
	netvmdPath = godbus.ObjectPath("/org/qubes_os/NetVM1")

	busName          = "org.freedesktop.DBus"
	busPath          = godbus.ObjectPath("/org/freedesktop/DBus")
	propertiesName   = "org.freedesktop.DBus.Properties"
	ownerChanged     = "NameOwnerChanged"
	propertiesChange = "PropertiesChanged"

	// busTimeout is for one call on the lab's bus; they take 1 ms.
	busTimeout = 10 * time.Second
)

// Target is where one virtual address leads, as netvmd says. The zero Resolver = unserved.
type Target struct {
	Virtual, Resolver netip.Addr
}

// Report is what netvmd says on D-Bus.
type Report struct {
	State, Source, Reason, Backend string
	Servers                        []string
	Targets                        []Target
	ChangedAt                      time.Time     // when the kernel last changed
	ApplyTime                      time.Duration // from the signal's arrival to the kernel's acknowledgement, of that change
	Problems                       []string
}

// Target returns where a virtual address leads; the zero Addr = nowhere.
func (r Report) Target(virtual netip.Addr) netip.Addr {
	for _, t := range r.Targets {
		if t.Virtual == virtual {
			return t.Resolver
		}
	}
	return netip.Addr{}
}

// Report asks netvmd for all that it publishes.
func (v *NetVM) Report(ctx context.Context) (Report, error) {
	var all map[string]godbus.Variant
	if err := v.callNetvmd(ctx, propertiesName+".GetAll", &all, netvmdName); err != nil {
		return Report{}, err
	}
	return parseReport(all)
}

// Statistics asks netvmd for its counters; those that are not numbers are left out.
func (v *NetVM) Statistics(ctx context.Context) (map[string]uint64, error) {
	var all map[string]godbus.Variant
	if err := v.callNetvmd(ctx, netvmdName+".GetStatistics", &all); err != nil {
		return nil, err
	}
	counters := make(map[string]uint64, len(all))
	for key, value := range all {
		if n, ok := value.Value().(uint64); ok {
			counters[key] = n
		}
	}
	return counters, nil
}

func (v *NetVM) callNetvmd(ctx context.Context, method string, result any, args ...any) error {
	conn, err := v.busClient()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	call := conn.Object(netvmdName, netvmdPath).CallWithContext(ctx, method, godbus.FlagNoAutoStart, args...)
	if err := call.Store(result); err != nil {
		return fmt.Errorf("netvmd: %s: %w", method, err)
	}
	return nil
}

// property reads one property into a value of type T.
func property[T any](all map[string]godbus.Variant, name string) (value T, err error) {
	v, ok := all[name]
	if !ok {
		return value, fmt.Errorf("netvmd: property %s is missing", name)
	}
	if err := v.Store(&value); err != nil {
		return value, fmt.Errorf("netvmd: property %s is %s: %w", name, v.Signature(), err)
	}
	return value, nil
}

func parseReport(all map[string]godbus.Variant) (Report, error) {
	var r Report
	var errs [8]error
	var changed, apply uint64
	var pairs []struct{ Virtual, Resolver string }
	r.State, errs[0] = property[string](all, "State")
	r.Source, errs[1] = property[string](all, "DnsSource")
	r.Reason, errs[2] = property[string](all, "DnsReason")
	r.Backend, errs[3] = property[string](all, "Backend")
	r.Servers, errs[4] = property[[]string](all, "DnsServers")
	r.Problems, errs[5] = property[[]string](all, "Problems")
	changed, errs[6] = property[uint64](all, "DnsChangedAt")
	apply, errs[7] = property[uint64](all, "DnsApplyTime")
	if err := errors.Join(errs[:]...); err != nil {
		return Report{}, err
	}
	if changed != 0 {
		r.ChangedAt = time.UnixMicro(int64(changed))
	}
	r.ApplyTime = time.Duration(apply) * time.Microsecond
	pairs, err := property[[]struct{ Virtual, Resolver string }](all, "DnsTargets")
	if err != nil {
		return Report{}, err
	}
	for _, p := range pairs {
		t := Target{}
		if t.Virtual, err = netip.ParseAddr(p.Virtual); err != nil {
			return Report{}, fmt.Errorf("netvmd: property DnsTargets: %w", err)
		}
		if p.Resolver != "" {
			if t.Resolver, err = netip.ParseAddr(p.Resolver); err != nil {
				return Report{}, fmt.Errorf("netvmd: property DnsTargets: %w", err)
			}
		}
		r.Targets = append(r.Targets, t)
	}
	return r, nil
}

// Await waits, by netvmd's signals, until what it says satisfies holds, and returns that.
func (v *NetVM) Await(ctx context.Context, holds func(Report) bool) (Report, error) {
	w, err := v.Watch(ctx)
	if err != nil {
		return Report{}, err
	}
	defer w.Close()
	return w.Await(ctx, holds)
}

// AwaitTargets waits until each virtual address, in order, leads where wanted says; the zero Addr = unserved.
func (v *NetVM) AwaitTargets(ctx context.Context, wanted ...netip.Addr) (Report, error) {
	r, err := v.Await(ctx, func(r Report) bool { return sameResolvers(r.Targets, wanted) })
	if err != nil {
		return r, fmt.Errorf("targets %v never came: %w", wanted, err)
	}
	return r, nil
}

func sameResolvers(have []Target, wanted []netip.Addr) bool {
	if len(have) != len(wanted) {
		return false
	}
	for i, t := range have {
		if t.Resolver != wanted[i] {
			return false
		}
	}
	return true
}

// Watch follows netvmd's PropertiesChanged from the moment that it is made.
type Watch struct {
	netvm   *NetVM
	conn    *godbus.Conn
	signals chan *godbus.Signal
}

// Watch starts to follow netvmd. Close it.
func (v *NetVM) Watch(ctx context.Context) (*Watch, error) {
	conn, err := dialBus()
	if err != nil {
		return nil, err
	}
	w := &Watch{netvm: v, conn: conn, signals: make(chan *godbus.Signal, 64)}
	conn.Signal(w.signals)
	err = errors.Join(
		match(ctx, conn, godbus.WithMatchSender(netvmdName), godbus.WithMatchObjectPath(netvmdPath),
			godbus.WithMatchInterface(propertiesName), godbus.WithMatchMember(propertiesChange)),
		match(ctx, conn, godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName),
			godbus.WithMatchMember(ownerChanged), godbus.WithMatchArg(0, netvmdName)))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	_ = w.conn.Close() // nothing that was sent is awaited
}

// Await reads what netvmd says now and after every signal, until it satisfies holds. On a timeout the last
// report comes with the error.
func (w *Watch) Await(ctx context.Context, holds func(Report) bool) (Report, error) {
	for {
		report, err := w.netvm.Report(ctx)
		if err == nil && holds(report) {
			return report, nil
		}
		select {
		case _, open := <-w.signals:
			if !open {
				return report, errors.New("the bus is gone")
			}
		case <-ctx.Done():
			return report, errors.Join(fmt.Errorf("netvmd: waited in vain: %w; it says %+v", ctx.Err(), report), err)
		}
	}
}

func match(ctx context.Context, conn *godbus.Conn, options ...godbus.MatchOption) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := conn.AddMatchSignalContext(ctx, options...); err != nil {
		return fmt.Errorf("lab's bus: subscribe: %w", err)
	}
	return nil
}

// dialBus opens a connection of its own to the lab's bus; signals come in order.
func dialBus() (*godbus.Conn, error) {
	conn, err := godbus.Connect(busAddress, godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, fmt.Errorf("lab's bus: connect to %s: %w", busAddress, err)
	}
	return conn, nil
}

// Bus opens a connection of its own to the netvm's bus, for whoever wants to speak to the daemons there.
// Close it.
func (v *NetVM) Bus() (*godbus.Conn, error) { return dialBus() }

// busClient is the lab's shared connection for calls.
func (v *NetVM) busClient() (*godbus.Conn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil && v.client.Connected() {
		return v.client, nil
	}
	var err error
	v.client, err = dialBus()
	return v.client, err
}

func (v *NetVM) closeBusClient() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		_ = v.client.Close() // nothing that was sent is awaited
		v.client = nil
	}
}

// awaitName returns a channel that is closed when somebody takes the name; the watch begins before the return.
func (v *NetVM) awaitName(ctx context.Context, name string) (<-chan struct{}, error) {
	conn, err := dialBus()
	if err != nil {
		return nil, err
	}
	signals := make(chan *godbus.Signal, 64)
	conn.Signal(signals)
	if err := match(ctx, conn, godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName),
		godbus.WithMatchMember(ownerChanged), godbus.WithMatchArg(0, name)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	owned := make(chan struct{})
	go func() {
		defer func() { _ = conn.Close() }() // nothing that was sent is awaited
		for s := range signals {
			if len(s.Body) == 3 && s.Body[0] == name && s.Body[2] != "" {
				close(owned)
				return
			}
		}
	}()
	return owned, nil
}
