package tray

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
	"netvmd/tray/view"
)

// session is a session bus, whose address the environment has, with a service for notifications.
func session(t *testing.T, socket string) (*lab.OpenBus, *desktop.Notifications) {
	ctx := context.Background()
	bus, err := lab.StartOpenBus(ctx, "session-bus", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Stop(ctx) }) // a test may have stopped it
	shown, err := (&desktop.Desktop{Bus: bus}).ServeNotifications(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = shown.Close() }) // likewise
	return bus, shown
}

func newBubbles() *bubbles {
	return &bubbles{deadline: patience, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func TestANoticeIsShownAndReplacesTheOneBefore(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+socket)
	_, desktop := session(t, socket)
	b, ctx := newBubbles(), context.Background()
	for _, n := range []view.Notice{{Summary: "The uplink is lost & gone", Body: `It was Wi-Fi "<b>&amp;".`}, {Summary: "AppVM DNS is refused", Urgent: true}} {
		if err := b.show(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	first, second := receive(t, desktop.Shown), receive(t, desktop.Shown)
	if first.Summary != "The uplink is lost & gone" || first.Body != `It was Wi-Fi "&lt;b&gt;&amp;amp;".` || first.Icon != "netvm-tray" || first.Replaces != 0 {
		t.Errorf("the first is %+v", first)
	}
	if second.Replaces == 0 || second.Timeout != -1 {
		t.Errorf("the second is %+v", second)
	}
	if u1, u2 := first.Hints["urgency"], second.Hints["urgency"]; u1 != godbus.MakeVariant(byte(1)) || u2 != godbus.MakeVariant(byte(2)) {
		t.Errorf("the urgencies are %v and %v", u1, u2)
	}
}

func TestASessionBusThatComesLaterOrAgainIsFound(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", dir)
	b, ctx := newBubbles(), context.Background()
	if err := b.show(ctx, view.Notice{Summary: "a"}); err == nil || !strings.Contains(err.Error(), "session bus") {
		t.Errorf("without a bus: %v", err)
	}
	socket := filepath.Join(dir, "bus")
	first, desktop := session(t, socket)
	if err := b.show(ctx, view.Notice{Summary: "b"}); err != nil {
		t.Fatal(err)
	}
	receive(t, desktop.Shown)
	if err := first.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	<-b.conn.Context().Done()
	_, desktop = session(t, socket)
	if err := b.show(ctx, view.Notice{Summary: "c"}); err != nil {
		t.Fatal(err)
	}
	if n := receive(t, desktop.Shown); n.Summary != "c" || n.Replaces != 0 {
		t.Errorf("shown %+v", n)
	}
}

func TestABusThatSaysNothingHoldsNobodyUp(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	silent, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+socket)
	b := newBubbles()
	b.deadline = 100 * time.Millisecond
	told := make(chan error, 1)
	go func() { told <- b.show(context.Background(), view.Notice{}) }()
	if receive(t, told) == nil {
		t.Error("it was shown")
	}
}
