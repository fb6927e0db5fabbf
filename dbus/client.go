package dbus

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

// patientDeadline bounds calls that need polkit's yes: a person may be typing a password, and the daemon then does the work.
const patientDeadline = questionDeadline + workDeadline + callDeadline

// Client speaks with netvmd over the bus. Each call has a deadline; an error of netvmd's own is an Error, or wraps
// ErrNotRunning or ErrNotAllowed.
type Client struct {
	conn  *godbus.Conn
	owner atomic.Value // a string: netvmd's unique name; "" is nobody. Known once follow was called.
}

// Connect opens a connection of its own to the system bus; Close ends it.
func Connect(ctx context.Context) (*Client, error) {
	c := &Client{}
	c.owner.Store("")
	var err error
	c.conn, err = systembus.Listen(ctx, func(sender string) bool { return sender == c.owner.Load() })
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection; what waits on it returns.
func (c *Client) Close() error { return c.conn.Close() }

// Status reads the properties. ErrNotRunning is wrapped when there is no netvmd.
func (c *Client) Status(ctx context.Context) (netvm.Status, error) {
	var values dict
	if err := c.read(ctx, properties+".GetAll", &values, Interface); err != nil {
		return netvm.Status{}, err
	}
	return decode(values)
}

// Statistics reads what netvmd and the kernel counted.
func (c *Client) Statistics(ctx context.Context) (netvm.Statistics, netvm.Tally, error) {
	const method = Interface + ".GetStatistics"
	var values dict
	if err := c.read(ctx, method, &values); err != nil {
		return netvm.Statistics{}, netvm.Tally{}, err
	}
	s, t, err := decodeStatistics(values)
	if err != nil {
		return s, t, fmt.Errorf("%s: %w", method, err)
	}
	return s, t, nil
}

// Routes reads the netvm's main IPv4 routing table.
func (c *Client) Routes(ctx context.Context) ([]netvm.Route, error) {
	const method = Interface + ".ListRoutes"
	var rows []dict
	if err := c.read(ctx, method, &rows); err != nil {
		return nil, err
	}
	routes, err := parseEach(rows, decodeRoute)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return routes, nil
}

// Refresh has netvmd read every source again; changed tells whether anything was written to the kernel.
func (c *Client) Refresh(ctx context.Context) (changed bool, err error) {
	err = c.ask(ctx, Interface+".Refresh", &changed)
	return changed, err
}

// SetDNSOverride has AppVM DNS go to these resolvers: while this client is connected or, if persistent, until it is cleared.
func (c *Client) SetDNSOverride(ctx context.Context, servers []netip.Addr, persistent bool) error {
	return c.ask(ctx, Interface+".SetDnsOverride", nil, each(servers, netip.Addr.String), persistent)
}

// ClearDNSOverride takes this client's own override back or, if it has none, the persistent one.
func (c *Client) ClearDNSOverride(ctx context.Context) error {
	return c.ask(ctx, Interface+".ClearDnsOverride", nil)
}

// read calls what everybody may call.
func (c *Client) read(ctx context.Context, method string, result any, args ...any) error {
	return c.call(ctx, callDeadline, godbus.FlagNoAutoStart, method, result, args...)
}

// ask calls what needs a right; polkit may ask the person at the screen for a password.
func (c *Client) ask(ctx context.Context, method string, result any, args ...any) error {
	return c.call(ctx, patientDeadline, godbus.FlagNoAutoStart|godbus.FlagAllowInteractiveAuthorization, method, result, args...)
}

// call sends the message itself: godbus' own calls lose the flag that allows interaction. A nil result takes none.
func (c *Client) call(ctx context.Context, deadline time.Duration, flags godbus.Flags, method string, result any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	dot := strings.LastIndex(method, ".")
	msg := &godbus.Message{Type: godbus.TypeMethodCall, Flags: flags, Body: args, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(Name),
		godbus.FieldPath:        godbus.MakeVariant(Path),
		godbus.FieldInterface:   godbus.MakeVariant(method[:dot]),
		godbus.FieldMember:      godbus.MakeVariant(method[dot+1:]),
	}}
	if len(args) > 0 {
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(args...))
	}
	answer := <-c.conn.SendWithContext(ctx, msg, make(chan *godbus.Call, 1)).Done
	switch {
	case answer.Err != nil:
		return understand(method, answer.Err)
	case result == nil:
		return nil
	case len(answer.Body) != 1:
		return fmt.Errorf("%s: %d values came back, not one: is netvmd of another version?", method, len(answer.Body))
	}
	if err := store(answer.Body[0], result); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}
