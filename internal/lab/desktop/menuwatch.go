package desktop

import (
	"context"
	"errors"
	"fmt"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// MenuWatch follows the menu of the one program on the session bus that has one, by its signals.
type MenuWatch struct {
	conn    *godbus.Conn
	menu    godbus.BusObject
	signals chan *godbus.Signal
}

// WatchMenu begins to follow the menu. Close it.
func (d *Desktop) WatchMenu(ctx context.Context) (*MenuWatch, error) {
	if d.Bus == nil {
		return nil, errors.New("desktop: there is no session bus to follow a menu on")
	}
	conn, err := d.Bus.Connect()
	if err != nil {
		return nil, err
	}
	w := &MenuWatch{conn: conn, signals: make(chan *godbus.Signal, 1024)}
	conn.Signal(w.signals)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if w.menu, err = findMenu(ctx, conn); err == nil {
		err = conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(w.menu.Destination()), godbus.WithMatchInterface(menuInterface))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("desktop: follow the menu: %w", err), conn.Close())
	}
	return w, nil
}

// Await waits until the menu satisfies, and tells when it was read so: some milliseconds after it became so.
func (w *MenuWatch) Await(ctx context.Context, what string, holds func(Item) bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		w.drain() // what they tell of is read now
		menu, err := readMenu(ctx, w.menu)
		if err != nil {
			return time.Time{}, err
		}
		if holds(menu) {
			return time.Now(), nil
		}
		select {
		case _, open := <-w.signals:
			if !open {
				return time.Time{}, fmt.Errorf("desktop: a menu with %s: the session bus is gone", what)
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("desktop: no menu with %s: %w; it is:\n%s", what, ctx.Err(), menu)
		}
	}
}

func (w *MenuWatch) drain() {
	for {
		select {
		case _, open := <-w.signals:
			if !open {
				return
			}
		default:
			return
		}
	}
}

// Close ends the following.
func (w *MenuWatch) Close() error { return w.conn.Close() }
