package dbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
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

// Service shows the latest published status on the bus. It comes back when the bus does.
type Service struct {
	log    *slog.Logger
	daemon Daemon
	fresh  chan struct{} // capacity 1: there is something to show

	mu     sync.Mutex
	status netvm.Status
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
	s.mu.Unlock()
	select {
	case s.fresh <- struct{}{}:
	default:
	}
}

func (s *Service) latest() netvm.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
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

// serve holds one connection until it breaks.
func (s *Service) serve(ctx context.Context) (connected bool, err error) {
	conn, err := systembus.Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // the connection is broken, or we are leaving
	latest := s.latest()
	face := &face{service: s, shown: encode(latest), vifs: latest.Vifs}
	if err := face.export(conn); err != nil {
		return false, err
	}
	if err := own(ctx, conn); err != nil {
		return false, err
	}
	s.log.Info("on the system bus", "name", Name)
	for {
		select {
		case <-conn.Context().Done():
			return true, errBusGone
		case <-s.fresh:
			if err := face.show(conn, s.latest()); err != nil {
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
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	var reply uint32
	err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.RequestName", 0, Name, uint32(0)).Store(&reply)
	if err != nil {
		return fmt.Errorf("own %s: %w", Name, err)
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
			if sig.Name == "org.freedesktop.DBus.NameAcquired" && len(sig.Body) == 1 && sig.Body[0] == Name {
				return nil
			}
		case <-timeout.C:
			return ErrNameTaken
		}
	}
}

// face is the exported object, for the life of one connection. Calls come in goroutines of godbus.
type face struct {
	service *Service

	mu    sync.Mutex
	shown map[string]godbus.Variant // never changed once set
	vifs  []netvm.Vif               // as shown
}

func (f *face) export(conn *godbus.Conn) error {
	for iface, methods := range map[string]map[string]any{
		Interface: {"GetStatistics": f.getStatistics, "ListRoutes": f.listRoutes, "Refresh": f.refresh,
			"SetDnsOverride": f.setDNSOverride, "ClearDnsOverride": f.clearDNSOverride},
		properties: {"Get": f.get, "GetAll": f.getAll, "Set": f.set},
		"org.freedesktop.DBus.Introspectable": {
			"Introspect": func() (string, *godbus.Error) { return Contract, nil },
		},
	} {
		if err := conn.ExportMethodTable(methods, Path, iface); err != nil {
			return fmt.Errorf("export %s: %w", iface, err)
		}
	}
	return nil
}

// show makes the status readable, then tells what changed: in one signal, the changed properties only.
func (f *face) show(conn *godbus.Conn, status netvm.Status) error {
	now := encode(status)
	f.mu.Lock()
	before, vifsBefore := f.shown, f.vifs
	f.shown, f.vifs = now, status.Vifs
	f.mu.Unlock()
	changed := map[string]godbus.Variant{}
	for name, v := range now {
		if !reflect.DeepEqual(v.Value(), before[name].Value()) {
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
	went, came := movedVifs(vifsBefore, status.Vifs)
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

func (f *face) values() map[string]godbus.Variant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shown
}

func (f *face) get(iface, name string) (godbus.Variant, *godbus.Error) {
	if iface != Interface && iface != "" {
		return godbus.Variant{}, unknown("Interface", "no interface %q at %s", iface, Path)
	}
	v, ok := f.values()[name]
	if !ok {
		return godbus.Variant{}, unknown("Property", "no property %q in %s", name, Interface)
	}
	return v, nil
}

func (f *face) getAll(iface string) (map[string]godbus.Variant, *godbus.Error) {
	if iface != Interface && iface != "" {
		return nil, unknown("Interface", "no interface %q at %s", iface, Path)
	}
	return f.values(), nil
}

func (f *face) set(iface, name string, _ godbus.Variant) *godbus.Error {
	if _, err := f.get(iface, name); err != nil {
		return err
	}
	return &godbus.Error{Name: "org.freedesktop.DBus.Error.PropertyReadOnly",
		Body: []any{fmt.Sprintf("%s of %s is read-only", name, Interface)}}
}

func (f *face) getStatistics() (dict, *godbus.Error) {
	var tally netvm.Tally
	if f.service.daemon != nil {
		var err error
		if tally, err = f.service.daemon.Tally(context.Background()); err != nil {
			return nil, godbus.MakeFailedError(err)
		}
	}
	return encodeStatistics(f.service.latest().Statistics, tally), nil
}

func (f *face) listRoutes() ([]dict, *godbus.Error) {
	routes, err := f.service.daemon.Routes(context.Background())
	if err != nil {
		return nil, godbus.MakeFailedError(err)
	}
	return each(routes, encodeRoute), nil
}

func (f *face) refresh() (bool, *godbus.Error) {
	changed, err := f.service.daemon.Refresh(context.Background())
	if err != nil {
		return false, godbus.MakeFailedError(err)
	}
	return changed, nil
}

func (f *face) setDNSOverride(servers []string, persistent bool, sender godbus.Sender) *godbus.Error {
	addrs, err := parseEach(servers, netip.ParseAddr)
	if err == nil {
		err = f.service.daemon.SetOverride(context.Background(), netvm.Override{Servers: addrs, Persistent: persistent,
			Holder: string(sender), By: string(sender), Since: time.Now()})
	}
	if err != nil {
		return &godbus.Error{Name: InvalidArguments, Body: []any{err.Error()}}
	}
	return nil
}

func (f *face) clearDNSOverride(sender godbus.Sender) *godbus.Error {
	if err := f.service.daemon.ClearOverride(context.Background(), string(sender)); err != nil {
		return godbus.MakeFailedError(err)
	}
	return nil
}

func unknown(what, format string, args ...any) *godbus.Error {
	return &godbus.Error{Name: "org.freedesktop.DBus.Error.Unknown" + what, Body: []any{fmt.Sprintf(format, args...)}}
}
