package main

import (
	"testing"
	"time"

	"netvmd/internal/lab/desktop"
)

// quietFor is for how long nothing must be told, to be believed: longer than the tray waits with each notice for it to
// settle, which is 2 s.
const quietFor = 3 * time.Second

// notified is docked with a desktop that takes notifications, and the tray with these flags.
func notified(t *testing.T, flags ...string) (*scene, *desktop.Notifications, desktop.Window) {
	t.Helper()
	s := open(t, desktop.Options{})
	n, err := s.ServeNotifications(s.ctx)
	s.must(err)
	t.Cleanup(func() { s.must(n.Close()) })
	s.startPanel(desktop.Trayer, 22)
	s.run(flags...)
	return s, n, s.icon(22)
}

// change has netvmd become an example, and waits until the tray shows it.
func (s *scene) change(icon desktop.Window, name string) {
	s.t.Helper()
	s.become(example(s.t, name))
	s.settle(icon, shown(example(s.t, name)))
}

func TestTheDesktopIsToldOnceOfEachState(t *testing.T) {
	s, n, icon := notified(t)
	for _, tc := range []struct {
		example, says string
		urgency       byte
	}{
		{"offline", "The uplink is lost", 1},
		{"portal", `Captive portal at Wi-Fi "Café du Monde"`, 1},
		{"dns-unserved", "AppVM DNS is refused", 2},
	} {
		s.change(icon, tc.example)
		select {
		case got := <-n.Shown:
			if got.Summary != tc.says || got.Hints["urgency"].Value() != tc.urgency || got.App != "netvm" {
				t.Errorf("%s: told %+v, want %q with urgency %d", tc.example, got, tc.says, tc.urgency)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing was told", tc.example)
		}
	}
	again := example(t, "dns-unserved")
	again.Status.Vifs = nil // another status of the same state
	s.become(again)
	s.reads(again)
	select {
	case got := <-n.Shown:
		t.Errorf("told again: %+v", got)
	case <-time.After(quietFor):
	}
}

func TestTheDesktopIsToldNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags []string
		goes  []string // through these states
	}{
		{"with the flag that says so", []string{"--no-notifications"}, []string{"offline", "portal"}},
		{"of what has settled before it is told", nil, []string{"offline", "ethernet"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, n, icon := notified(t, tc.flags...)
			for _, name := range tc.goes {
				s.change(icon, name)
			}
			select {
			case got := <-n.Shown:
				t.Errorf("told %+v", got)
			case <-time.After(quietFor):
			}
		})
	}
}
