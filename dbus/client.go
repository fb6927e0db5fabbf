package dbus

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

// ErrNotRunning says that nobody owns org.qubes_os.NetVM1.
var ErrNotRunning = errors.New("netvmd is not running: nobody owns " + Name + " on the system bus")

// ErrNotAllowed says that the caller may not do that: neither root nor polkit's yes.
var ErrNotAllowed = errors.New("not allowed")

// Event is what Watch tells.
type Event struct {
	Running bool         // somebody owns org.qubes_os.NetVM1
	Status  netvm.Status // without Statistics; while netvmd is not running, empty
}

// Client speaks with netvmd over the bus. Each call has a deadline; an error of netvmd's own is an Error, or wraps
// ErrNotRunning or ErrNotAllowed.
type Client struct {
	conn *godbus.Conn
}

// Connect opens a connection of its own to the system bus; Close ends it.
func Connect(ctx context.Context) (*Client, error) {
	conn, err := systembus.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Close ends the connection; what waits on it returns.
func (c *Client) Close() error { return c.conn.Close() }

// Status reads the properties. ErrNotRunning is wrapped when there is no netvmd.
func (c *Client) Status(ctx context.Context) (netvm.Status, error) {
	var values map[string]godbus.Variant
	if err := c.call(ctx, properties+".GetAll", &values, Interface); err != nil {
		return netvm.Status{}, err
	}
	return decode(values)
}

// Statistics reads what netvmd and the kernel counted.
func (c *Client) Statistics(ctx context.Context) (netvm.Statistics, netvm.Tally, error) {
	var values map[string]godbus.Variant
	if err := c.call(ctx, Interface+".GetStatistics", &values); err != nil {
		return netvm.Statistics{}, netvm.Tally{}, err
	}
	s, err := decodeStatistics(values)
	return s, netvm.Tally{}, err
}

// Routes reads the netvm's main IPv4 routing table.
func (c *Client) Routes(ctx context.Context) ([]netvm.Route, error) {
	return nil, errors.New("to be built")
}

// Refresh has netvmd read every source again; changed tells whether anything was written to the kernel.
func (c *Client) Refresh(ctx context.Context) (changed bool, err error) {
	err = c.call(ctx, Interface+".Refresh", &changed)
	return changed, err
}

// SetDNSOverride has AppVM DNS go to these resolvers: while this client is connected or, if persistent, until it is cleared.
func (c *Client) SetDNSOverride(ctx context.Context, servers []netip.Addr, persistent bool) error {
	return errors.New("to be built")
}

// ClearDNSOverride takes this client's own override back or, if it has none, the persistent one.
func (c *Client) ClearDNSOverride(ctx context.Context) error {
	return errors.New("to be built")
}

// HoldDNSOverride keeps an override in force until ctx ends, also over restarts of netvmd and of the bus. inForce is called
// each time that the kernel has it. It returns nil when ctx ended, and an error when netvmd refuses it.
func HoldDNSOverride(ctx context.Context, servers []netip.Addr, inForce func()) error {
	return errors.New("to be built")
}

// Watch tells the status now and after every change until ctx ends; then it closes the channel. Restarts of netvmd and of
// the bus are told as Running false, and true again. A reader that is slow gets the newest status, not all of them.
func Watch(ctx context.Context) <-chan Event {
	panic("to be built")
}

func (c *Client) call(ctx context.Context, method string, result any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	err := c.conn.Object(Name, Path).CallWithContext(ctx, method, godbus.FlagNoAutoStart, args...).Store(result)
	var e godbus.Error
	if errors.As(err, &e) && (e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner") {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// Watch sends the status now and after every change, until ctx ends or the bus goes away; then it closes the
// channel. While netvmd is not running nothing is sent; when it is back, its status is. A reader that is slow gets
// the newest status, not all of them.
func (c *Client) Watch(ctx context.Context) (<-chan netvm.Status, error) {
	signals := make(chan *godbus.Signal, 64)
	c.conn.Signal(signals)
	for _, rule := range [][]godbus.MatchOption{
		{godbus.WithMatchSender(Name), godbus.WithMatchObjectPath(Path), godbus.WithMatchInterface(properties)},
		{godbus.WithMatchSender("org.freedesktop.DBus"), godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, Name)},
	} {
		if err := c.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			c.conn.RemoveSignal(signals)
			return nil, fmt.Errorf("subscribe to %s: %w", Name, err)
		}
	}
	out := make(chan netvm.Status)
	go c.follow(ctx, signals, out)
	return out, nil
}

func (c *Client) follow(ctx context.Context, signals chan *godbus.Signal, out chan<- netvm.Status) {
	defer close(out)
	defer c.conn.RemoveSignal(signals)
	status, err := c.Status(ctx)
	have := err == nil
	for {
		var send chan<- netvm.Status
		if have {
			send = out
		}
		select {
		case <-ctx.Done():
			return
		case send <- status:
			have = false
		case _, ok := <-signals:
			if !ok {
				return
			}
			for drained := false; !drained; { // a burst is one reading
				select {
				case _, ok = <-signals:
					drained = !ok
				default:
					drained = true
				}
			}
			if s, err := c.Status(ctx); err == nil {
				status, have = s, true
			}
		}
	}
}

// decode checks what came over the bus: a value of another type, or an address that is none, is an error that
// names the property.
func decode(values map[string]godbus.Variant) (netvm.Status, error) {
	var s netvm.Status
	var state string
	var servers []string
	var targets []target
	var uplinks, vifs []map[string]godbus.Variant
	var changedAt, applyTime uint64
	for name, into := range map[string]any{
		"Version": &s.Version, "State": &state, "Uplinks": &uplinks, "DnsSource": &s.DNSSource,
		"DnsReason": &s.DNSReason, "DnsServers": &servers, "DnsTargets": &targets, "DnsChangedAt": &changedAt,
		"DnsApplyTime": &applyTime, "Backend": &s.Backend, "Vifs": &vifs, "Problems": &s.Problems,
	} {
		if err := take(values, name, into); err != nil {
			return s, err
		}
	}
	s.State = netvm.State(state)
	s.ApplyTime = time.Duration(applyTime) * time.Microsecond
	if changedAt != 0 {
		s.ChangedAt = time.UnixMicro(int64(changedAt))
	}
	for _, a := range servers {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return s, fmt.Errorf("property DnsServers: %w", err)
		}
		s.DNSServers = append(s.DNSServers, netvm.Resolver{Addr: addr})
	}
	for _, t := range targets {
		v, err := netip.ParseAddr(t.Virtual)
		var r netip.Addr
		if err == nil && t.Resolver != "" {
			r, err = netip.ParseAddr(t.Resolver)
		}
		if err != nil {
			return s, fmt.Errorf("property DnsTargets: %w", err)
		}
		s.DNSTargets = append(s.DNSTargets, netvm.Target{Virtual: v, Resolver: netvm.Resolver{Addr: r}})
	}
	for _, u := range uplinks {
		up, err := decodeUplink(u)
		if err != nil {
			return s, fmt.Errorf("property Uplinks: %w", err)
		}
		s.Uplinks = append(s.Uplinks, up)
	}
	for _, v := range vifs {
		vif, err := decodeVif(v)
		if err != nil {
			return s, fmt.Errorf("property Vifs: %w", err)
		}
		s.Vifs = append(s.Vifs, vif)
	}
	return s, nil
}

func decodeUplink(values map[string]godbus.Variant) (netvm.Uplink, error) {
	var u netvm.Uplink
	var addresses []string
	var gateway string
	for name, into := range map[string]any{
		"id": &u.ID, "type": &u.Type, "interface": &u.Interface, "ssid": &u.SSID, "strength": &u.Strength,
		"addresses": &addresses, "gateway": &gateway, "vpn": &u.VPN, "metered": &u.Metered,
	} {
		if err := take(values, name, into); err != nil {
			return u, err
		}
	}
	for _, a := range addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return u, fmt.Errorf("addresses: %w", err)
		}
		u.Addresses = append(u.Addresses, p)
	}
	if gateway != "" {
		var err error
		if u.Gateway, err = netip.ParseAddr(gateway); err != nil {
			return u, fmt.Errorf("gateway: %w", err)
		}
	}
	return u, nil
}

func decodeStatistics(values map[string]godbus.Variant) (netvm.Statistics, error) {
	var s netvm.Statistics
	for name, into := range map[string]any{"applies": &s.Applies, "coalesced": &s.Coalesced, "restored": &s.Restored} {
		if err := take(values, name, into); err != nil {
			return s, fmt.Errorf("GetStatistics: %w", err)
		}
	}
	return s, nil
}

func take(values map[string]godbus.Variant, name string, into any) error {
	v, ok := values[name]
	if !ok {
		return fmt.Errorf("%s is missing: is netvmd of another version?", name)
	}
	if err := godbus.Store([]any{v.Value()}, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
