package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
)

// Event is what Watch tells.
type Event struct {
	Running bool         // somebody owns org.qubes_os.NetVM1
	Status  netvm.Status // without Statistics; while netvmd is not running, empty
}

// errBusGone says that a connection has ended.
var errBusGone = errors.New("the system bus went away")

// Watch tells the status now and after every change until ctx ends; then it closes the channel. Restarts of netvmd and of
// the bus are told as Running false, and true again. A reader that is slow gets the newest status, not all of them. A
// status that makes no sense, as of a netvmd of another version, is empty but for a problem that says so.
func Watch(ctx context.Context) <-chan Event {
	told := make(chan Event, 1)
	w := watcher{told: told}
	go func() {
		defer close(told)
		systembus.Persist(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), func(ctx context.Context) (bool, error) {
			connected, err := w.session(ctx)
			w.tell(Event{})
			return connected, err
		})
	}()
	return told
}

// watcher is the state of one Watch.
type watcher struct {
	told chan Event // capacity 1: the newest event that was not received yet
	last bool       // whether the last event said Running
	any  bool       // whether there was an event
}

// tell replaces what was not received yet. Not running is told once.
func (w *watcher) tell(e Event) {
	if w.any && !w.last && !e.Running {
		return
	}
	w.any, w.last = true, e.Running
	select {
	case <-w.told:
	default:
	}
	w.told <- e // nobody else sends
}

// session follows netvmd over one connection.
func (w *watcher) session(ctx context.Context) (connected bool, err error) {
	c, err := Connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }() // nothing that was sent is awaited
	signals, err := c.follow(ctx, []godbus.MatchOption{
		godbus.WithMatchSender(Name), godbus.WithMatchObjectPath(Path), godbus.WithMatchInterface(properties),
		godbus.WithMatchMember(propertiesChanged),
	})
	if err != nil {
		return false, err
	}
	for {
		if err := w.look(ctx, c); err != nil {
			return true, err
		}
		if err := c.await(ctx, signals); err != nil {
			return true, err
		}
	}
}

// await waits until something may be different, and takes the signals that have come by then, as one look answers them all.
// Were there a look for each, they would pile up in godbus, which keeps what nobody takes. It takes no more than the channel
// holds, so that a flood of them does not keep anybody from looking.
func (c *Client) await(ctx context.Context, signals <-chan *godbus.Signal) error {
	different := false
	for taken := 0; !different || len(signals) > 0 && taken < cap(signals); taken++ {
		sig, err := next(ctx, signals)
		if err != nil {
			return err
		}
		different = c.learn(sig) || sig.Sender != busName || different
	}
	return nil
}

// look reads the status, once for all the signals that came before.
func (w *watcher) look(ctx context.Context, c *Client) error {
	if c.owner.Load() == "" {
		w.tell(Event{})
		return nil
	}
	status, err := c.Status(ctx)
	switch {
	case err == nil:
		w.tell(Event{Running: true, Status: status})
	case errors.Is(err, ErrNotRunning): // its leaving is on the way
		w.tell(Event{})
	case c.conn.Context().Err() != nil:
		return err
	default:
		w.tell(Event{Running: true, Status: netvm.Status{Problems: []string{fmt.Sprintf("netvmd's status cannot be read: %v", err)}}})
	}
	return nil
}

// follow subscribes to the owner of our name, and to what else is asked for.
func (c *Client) follow(ctx context.Context, rules ...[]godbus.MatchOption) (<-chan *godbus.Signal, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	signals := make(chan *godbus.Signal, 64)
	c.conn.Signal(signals)
	for _, rule := range append(rules, ownerRule(Name)) {
		if err := c.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", Name, err)
		}
	}
	var owner string
	err := c.conn.BusObject().CallWithContext(ctx, busName+".GetNameOwner", 0, Name).Store(&owner)
	var refused godbus.Error
	if errors.As(err, &refused) && refused.Name == busNameHasNoOwner {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask who owns %s: %w", Name, err)
	}
	c.owner.Store(owner)
	return signals, nil
}

// next waits for a signal. An error says that there will be none any more.
func next(ctx context.Context, signals <-chan *godbus.Signal) (*godbus.Signal, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case sig, ok := <-signals:
		if !ok {
			return nil, errBusGone
		}
		return sig, nil
	}
}

// ownerRule matches what the bus says about the owner of one name.
func ownerRule(name string) []godbus.MatchOption {
	return []godbus.MatchOption{
		godbus.WithMatchSender(busName), godbus.WithMatchObjectPath("/org/freedesktop/DBus"), godbus.WithMatchInterface(busName),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, name),
	}
}

// ownerOf reads NameOwnerChanged about a name.
func ownerOf(sig *godbus.Signal) (name, owner string, is bool) {
	if sig.Sender != busName || sig.Name != busName+".NameOwnerChanged" || len(sig.Body) != 3 {
		return "", "", false
	}
	name, is = sig.Body[0].(string)
	owner, isOwner := sig.Body[2].(string)
	return name, owner, is && isOwner
}

// learn takes the bus's word on who netvmd is, and tells whether it was that.
func (c *Client) learn(sig *godbus.Signal) bool {
	name, owner, is := ownerOf(sig)
	if !is || name != Name {
		return false
	}
	c.owner.Store(owner)
	return true
}
