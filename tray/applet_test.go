package tray

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// scene is an applet with all its neighbours played.
type scene struct {
	t        *testing.T
	kit      *fakeKit
	events   chan dbus.Event
	slots    chan slot
	menus    chan bool
	asked    chan view.Action // what was asked of the errands
	finish   chan outcome     // what they come to
	reading  chan bool        // true when reading begins, false when it ends
	readings chan<- reading   // while it reads
	bubbles  chan view.Notice // what the desktop was told
	quit     chan struct{}    // closed by the action
	hindered map[view.Action]string
}

func (s *scene) do(ctx context.Context, action view.Action, _ view.Known, outcomes chan<- outcome) {
	s.asked <- action
	select {
	case o := <-s.finish:
		outcomes <- o
	case <-ctx.Done():
	}
}

// play starts an applet and waits for its first picture.
func play(t *testing.T) *scene {
	s := &scene{
		t: t, kit: newFakeKit(t), events: make(chan dbus.Event), slots: make(chan slot), menus: make(chan bool),
		asked: make(chan view.Action), finish: make(chan outcome), reading: make(chan bool),
		bubbles: make(chan view.Notice, 1), quit: make(chan struct{}),
	}
	a := newApplet(s.kit, slog.New(slog.NewTextHandler(io.Discard, nil)))
	a.picture = func(icon view.Icon, size int) []byte { return []byte(fmt.Sprintf("%s-%d", icon, size)) }
	a.errands, a.events, a.slots, a.menus, a.bubbles = s, s.events, s.slots, s.menus, s.bubbles
	a.hindered = func() map[view.Action]string { return s.hindered }
	a.quit = func() { close(s.quit) }
	a.read = func(ctx context.Context, readings chan<- reading) {
		s.readings = readings
		s.reading <- true
		<-ctx.Done()
		s.reading <- false
	}
	a.notices.settle = 0
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, done)
	})
	s.draw()
	return s
}

// receive waits for what must come.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	var v T
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// send gives what must be taken.
func send[T any](t *testing.T, c chan<- T, v T) {
	t.Helper()
	select {
	case c <- v:
	case <-time.After(patience):
		t.Fatal("nobody takes it")
	}
}

// draw has the kit do what it was asked for.
func (s *scene) draw() {
	s.t.Helper()
	receive(s.t, s.kit.drawn)()
}

// online is the status of a netvm with so many vifs.
func online(vifs int) netvm.Status {
	status := netvm.Status{State: netvm.Online, NMRunning: true, Uplinks: []netvm.Uplink{{ID: "office", Type: "802-3-ethernet", Interface: "eth0"}}}
	status.DNSTargets = []netvm.Target{{Virtual: netip.MustParseAddr("10.139.1.1"), Resolver: netvm.Resolver{Addr: netip.MustParseAddr("192.0.2.53")}}}
	for i := 1; i <= vifs; i++ {
		status.Vifs = append(status.Vifs, netvm.Vif{Name: fmt.Sprintf("vif%d.0", i), DomID: i, State: netvm.VifUp})
	}
	return status
}

func offline() netvm.Status { return netvm.Status{State: netvm.Offline, NMRunning: true} }

func TestTheKitIsGivenWhatTheViewSays(t *testing.T) {
	s := play(t)
	for _, e := range []dbus.Event{{}, {Running: true, Status: online(2)}, {Running: true, Status: online(5)}, {Running: true, Status: offline()}, {}} {
		send(t, s.events, e)
		s.draw()
		want := view.Of(view.Known{Running: e.Running, Status: e.Status})
		if got := s.kit.String(); got != drawn(want.Menu, "") {
			t.Errorf("the menu is\n%s, want\n%s", got, drawn(want.Menu, ""))
		}
		if s.kit.icon != string(want.Icon)+"-22" || s.kit.title != want.Title {
			t.Errorf("icon %s, title %q of %s, %q", s.kit.icon, s.kit.title, want.Icon, want.Title)
		}
	}
}

func TestWhatFollowsFasterThanItIsDrawnIsSkipped(t *testing.T) {
	s := play(t)
	send(t, s.events, dbus.Event{Running: true, Status: online(1)})
	busy := receive(t, s.kit.drawn)
	s.kit.taken()
	for n := 2; n <= 100; n++ {
		send(t, s.events, dbus.Event{Running: true, Status: online(n)})
	}
	if calls := s.kit.taken(); calls != nil {
		t.Errorf("sent while the kit was busy: %q", calls)
	}
	busy()
	s.draw()
	if !strings.Contains(s.kit.String(), "100") || len(s.kit.drawn) != 0 {
		t.Errorf("not the newest alone:\n%s", s.kit)
	}
}

func TestTheIconIsMadeForItsPlace(t *testing.T) {
	s := play(t)
	for _, step := range []struct {
		slot slot
		want []string // nil = nothing is drawn
	}{
		{slot{docked: true, size: 22}, nil}, // the size that it had at first
		{slot{docked: true, size: 48}, []string{"icon netvm-stopped-48"}},
		{slot{docked: true, size: 48}, nil},
		{slot{docked: false, size: 48}, nil}, // the panel is restarted: it gives a place of one pixel at first
		{slot{docked: true, size: 1}, nil},
		{slot{docked: true, size: 24}, []string{"icon netvm-stopped-24"}},
	} {
		s.kit.taken()
		send(t, s.slots, step.slot)
		if step.want != nil {
			s.draw()
		}
		send(t, s.menus, false) // when this is taken, the slot was dealt with
		if got := s.kit.taken(); !slices.Equal(got, step.want) {
			t.Errorf("%+v: %q, want %q", step.slot, got, step.want)
		}
	}
}

func TestAClickDoesWhatItsRowIsFor(t *testing.T) {
	s := play(t)
	send(t, s.events, dbus.Event{Running: true, Status: online(0)})
	s.draw()
	refresh := s.kit.find("Refresh DNS")
	send(t, refresh.clicked, struct{}{})
	if got := receive(t, s.asked); got != view.Refresh {
		t.Errorf("%s was asked for", got)
	}
	s.draw()
	if edit := s.kit.find("Edit connections"); !edit.disabled || !refresh.disabled {
		t.Error("two things can be asked for at once")
	}
	send(t, refresh.clicked, struct{}{}) // a click that was on its way
	send(t, s.menus, false)
	if len(s.kit.drawn) > 0 {
		t.Error("a click while something is done counts")
	}
	send(t, s.finish, outcome{sentence: "DNS was refreshed", done: true})
	s.draw()
	s.kit.find("DNS was refreshed")
	if refresh.disabled {
		t.Error("nothing can be asked for any more")
	}
	send(t, s.kit.find("Quit").clicked, struct{}{})
	receive(t, s.quit)
}

func TestALateOutcomeEndsNothing(t *testing.T) {
	s := play(t)
	send(t, s.events, dbus.Event{Running: true, Status: online(0)})
	s.draw()
	send(t, s.kit.find("Refresh DNS").clicked, struct{}{})
	receive(t, s.asked)
	s.draw()
	send(t, s.finish, outcome{sentence: "xdg-open failed with exit code 4"})
	s.draw()
	s.kit.find("xdg-open failed with exit code 4")
	s.kit.find("Refreshing DNS …")
}

func TestCountersAreReadWhileTheMenuIsOpen(t *testing.T) {
	s := play(t)
	send(t, s.events, dbus.Event{Running: true, Status: online(1)})
	s.draw()
	s.hindered = map[view.Action]string{view.Edit: "nm-connection-editor is not installed"}
	send(t, s.menus, true)
	if !receive(t, s.reading) {
		t.Fatal("it ended before it began")
	}
	s.draw()
	s.kit.find("Edit connections: nm-connection-editor is not installed")
	send(t, s.readings, reading{traffic: []netvm.Traffic{{Vif: "vif1.0", RxBytes: 3 << 20, TxBytes: 5 << 20}}})
	s.draw()
	if !strings.Contains(s.kit.String(), "MiB") {
		t.Errorf("the traffic is not shown:\n%s", s.kit)
	}
	send(t, s.menus, false)
	if receive(t, s.reading) {
		t.Error("it goes on after the menu was closed")
	}
	for _, running := range []bool{false, true} {
		send(t, s.events, dbus.Event{Running: running, Status: online(1)})
		s.draw()
	}
	if strings.Contains(s.kit.String(), "MiB") {
		t.Errorf("what the netvmd before has counted is shown:\n%s", s.kit)
	}
}

func TestTheDesktopIsToldOnceOfWhatHolds(t *testing.T) {
	s := play(t)
	for _, e := range []dbus.Event{{Running: true, Status: online(0)}, {Running: true, Status: offline()}} {
		send(t, s.events, e)
		s.draw()
	}
	if n := receive(t, s.bubbles); !strings.Contains(n.Summary, "lost") {
		t.Errorf("told %+v", n)
	}
	send(t, s.events, dbus.Event{Running: true, Status: offline()})
	s.draw()
	send(t, s.menus, false)
	if len(s.bubbles) > 0 {
		t.Error("told twice")
	}
}
