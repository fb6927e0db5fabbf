package uplink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/systembus"
)

const (
	busName  = "org.freedesktop.DBus"
	nmName   = "org.freedesktop.NetworkManager"
	resolved = "org.freedesktop.resolve1"

	ownerChanged = "NameOwnerChanged"
	properties   = busName + ".Properties"

	// busTimeout bounds one call. NetworkManager and systemd-resolved answer within milliseconds when they are not starting.
	busTimeout = 10 * time.Second
)

// bus is a connection to the system bus; nil = there is no bus.
type bus struct {
	conn *godbus.Conn
	nm   atomic.Value // string: the unique name of NetworkManager, whose signals are heeded
}

// connect returns nil where there is no bus at all.
func connect(ctx context.Context) (*bus, error) {
	b := &bus{}
	b.nm.Store("")
	conn, err := systembus.Listen(ctx, func(sender string) bool { return sender == b.nm.Load() })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b.conn = conn
	return b, nil
}

// close ends the connection; every call was answered, or is not awaited any more.
func (b *bus) close() {
	if b != nil {
		_ = b.conn.Close()
	}
}

// owner returns the unique name of a name's owner, "" if nobody has it.
func (b *bus) owner(ctx context.Context, name string) (string, error) {
	if b == nil {
		return "", nil
	}
	var owner string
	err := b.ask(ctx, busName, "/org/freedesktop/DBus", busName+".GetNameOwner", []any{name}, &owner)
	if isError(err, busName+".Error.NameHasNoOwner") {
		return "", nil
	}
	return owner, err
}

// ask calls a method and stores its results. Nobody is started for it.
func (b *bus) ask(ctx context.Context, name string, path godbus.ObjectPath, method string, args []any, results ...any) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	call := b.conn.Object(name, path).CallWithContext(ctx, method, godbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		return fmt.Errorf("ask %s for %s: %w", name, method, call.Err)
	}
	if err := call.Store(results...); err != nil {
		return fmt.Errorf("the answer of %s to %s: %w", name, method, err)
	}
	return nil
}

// property reads a property into value, whose type it must have.
func property[T any](ctx context.Context, b *bus, name string, path godbus.ObjectPath, of, which string) (value T, err error) {
	var v godbus.Variant
	if err := b.ask(ctx, name, path, properties+".Get", []any{of, which}, &v); err != nil {
		return value, err
	}
	if err := v.Store(&value); err != nil {
		return value, fmt.Errorf("%s of %s is %s: %w", which, path, v, err)
	}
	return value, nil
}

// isError tells whether a service answered with this error.
func isError(err error, names ...string) bool {
	var refused godbus.Error
	if !errors.As(err, &refused) {
		return false
	}
	for _, name := range names {
		if refused.Name == name {
			return true
		}
	}
	return false
}
