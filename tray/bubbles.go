package tray

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/tray/icons"
	"netvmd/tray/view"
)

// The desktop's notifications, "Desktop Notifications Specification" 1.2.
const (
	bubbleName = "org.freedesktop.Notifications"
	bubblePath = godbus.ObjectPath("/org/freedesktop/Notifications")
	// urgencies of the hint "urgency"
	normalUrgency   = byte(1)
	criticalUrgency = byte(2)
	// serversExpiry leaves it to the desktop how long a notification is shown.
	serversExpiry = int32(-1)
)

// bubbleDeadline bounds each talk with the session bus; a service for notifications may have to be started first.
const bubbleDeadline = 10 * time.Second

// bubbles shows notices through the session bus, the newest instead of the one before.
type bubbles struct {
	conn     *godbus.Conn  // nil: none yet
	last     uint32        // the desktop's number for our notification; 0 = none yet
	deadline time.Duration // of each talk with the bus
	log      *slog.Logger
}

// run shows what comes until ctx ends.
func (b *bubbles) run(ctx context.Context, notices <-chan view.Notice) {
	if err := b.connect(ctx); err != nil {
		b.log.Warn("going on without notifications", "error", err)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-notices:
			if err := b.show(ctx, n); err != nil {
				b.log.Debug("not shown", "notice", n.Summary, "error", err)
			}
		}
	}
}

// connect opens a connection to the session bus, unless there is a good one. It ends with ctx.
func (b *bubbles) connect(ctx context.Context) error {
	if b.conn != nil && b.conn.Connected() {
		return nil
	}
	address, err := sessionBus()
	if err != nil {
		return err
	}
	// The connection lives as long as its context, so that the deadline of its beginning must be taken off again.
	ctx, cancel := context.WithCancel(ctx)
	deadline := time.AfterFunc(b.deadline, cancel)
	b.last = 0 // of a session that is over
	b.conn, err = godbus.Connect(address, godbus.WithContext(ctx))
	if err != nil {
		cancel()
		b.conn = nil
		return fmt.Errorf("connect to the session bus: %w", err)
	}
	deadline.Stop()
	return nil
}

// sessionBus is where the session bus listens. None is started for our sake.
func sessionBus() (string, error) {
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" {
		return address, nil
	}
	socket := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")
	if _, err := os.Stat(socket); err != nil || !filepath.IsAbs(socket) {
		return "", errors.New("there is no session bus")
	}
	return "unix:path=" + socket, nil
}

// bodyMarkup keeps text from being taken for markup, which the specification allows in the body alone.
var bodyMarkup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// show replaces our notification.
func (b *bubbles) show(ctx context.Context, n view.Notice) error {
	if err := b.connect(ctx); err != nil {
		return err
	}
	urgency := normalUrgency
	if n.Urgent {
		urgency = criticalUrgency
	}
	hints := map[string]godbus.Variant{
		"urgency":       godbus.MakeVariant(urgency),
		"desktop-entry": godbus.MakeVariant(string(icons.App)),
	}
	ctx, cancel := context.WithTimeout(ctx, b.deadline)
	defer cancel()
	call := b.conn.Object(bubbleName, bubblePath).CallWithContext(ctx, bubbleName+".Notify", 0,
		"netvm", b.last, string(icons.App), n.Summary, bodyMarkup.Replace(n.Body), []string{}, hints, serversExpiry)
	if err := call.Store(&b.last); err != nil {
		return fmt.Errorf("%s.Notify: %w", bubbleName, err)
	}
	return nil
}
