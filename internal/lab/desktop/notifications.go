package desktop

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// Notification is what a program asked the desktop to show: freedesktop.org, "Desktop Notifications Specification".
type Notification struct {
	App, Icon     string
	Replaces      uint32 // 0 = none
	Summary, Body string
	Actions       []string
	Hints         map[string]godbus.Variant
	Timeout       int32 // ms; -1 = the desktop's own, 0 = never
}

// Notifications stands in for the desktop's notification daemon: it shows nothing, and tells what it was asked to show. Its
// answers are those of the specification.
type Notifications struct {
	Shown chan Notification // what does not fit is lost

	conn *godbus.Conn
	last atomic.Uint32
}

const (
	notificationsName = "org.freedesktop.Notifications"
	notificationsPath = "/org/freedesktop/Notifications"
)

// ServeNotifications starts the stand-in on the session bus. Close it.
func (d *Desktop) ServeNotifications(ctx context.Context) (*Notifications, error) {
	if d.Bus == nil {
		return nil, errors.New("desktop: there is no session bus for notifications")
	}
	conn, err := d.Bus.Connect()
	if err != nil {
		return nil, err
	}
	n := &Notifications{Shown: make(chan Notification, 64), conn: conn}
	if err := n.serve(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("desktop: notifications: %w", err), conn.Close())
	}
	return n, nil
}

func (n *Notifications) serve(ctx context.Context) error {
	if err := n.conn.Export(notices{n}, notificationsPath, notificationsName); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var reply uint32
	return n.conn.BusObject().CallWithContext(ctx, busName+".RequestName", 0, notificationsName, uint32(godbus.NameFlagDoNotQueue)).Store(&reply)
}

// Close leaves the bus.
func (n *Notifications) Close() error { return n.conn.Close() }

// notices are the methods that the bus calls.
type notices struct{ of *Notifications }

// Notify takes a notification and gives it a number.
func (s notices) Notify(app string, replaces uint32, icon, summary, body string, actions []string, hints map[string]godbus.Variant,
	timeout int32,
) (uint32, *godbus.Error) {
	select {
	case s.of.Shown <- Notification{app, icon, replaces, summary, body, actions, hints, timeout}:
	default:
	}
	if replaces != 0 {
		return replaces, nil
	}
	return s.of.last.Add(1), nil
}

// CloseNotification has nothing to close.
func (notices) CloseNotification(uint32) *godbus.Error { return nil }

// GetCapabilities says what daemons commonly can, markup in the body among it.
func (notices) GetCapabilities() ([]string, *godbus.Error) {
	return []string{"body", "body-markup", "actions", "persistence"}, nil
}

// GetServerInformation names the stand-in and the version of the specification.
func (notices) GetServerInformation() (name, vendor, version, spec string, err *godbus.Error) {
	return "netvm-lab", "netvmd", "1", "1.2", nil
}
