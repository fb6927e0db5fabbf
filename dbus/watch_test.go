package dbus

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

func running(e Event) bool { return e.Running }
func away(e Event) bool    { return !e.Running }

func TestWatchTellsAtOnceThatNobodyIsThere(t *testing.T) {
	for what, start := range map[string]func(){
		"no netvmd on the bus": func() { t.Cleanup(startBus(t, t.TempDir())) },
		"no bus":               func() { t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none") },
	} {
		t.Run(what, func(t *testing.T) {
			start()
			ctx, cancel := context.WithCancel(context.Background())
			events := Watch(ctx)
			if e := await(t, events, what, func(Event) bool { return true }); e.Running {
				t.Errorf("got %+v", e)
			}
			cancel()
			select {
			case _, open := <-events:
				if open {
					t.Error("another event")
				}
			case <-time.After(patience):
				t.Error("the channel is not closed when the context ends")
			}
		})
	}
}

func TestWatchLivesThroughRestartsOfNetvmdAndOfTheBus(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	events := Watch(ctx)
	await(t, events, "netvmd", running)
	s.stop()
	await(t, events, "netvmd is away", away)
	s.service, s.stop = run(t, s.daemon)
	await(t, events, "netvmd is back", running)
	s.stopBus()
	await(t, events, "the bus is away", away)
	s.stopBus = startBus(t, s.dir)
	await(t, events, "the bus is back", running)
	status := sample()
	status.State = netvm.Portal
	s.service.Publish(status)
	await(t, events, "a change", func(e Event) bool { return e.Status.State == netvm.Portal })
}

func TestASlowReaderGetsTheNewestStatus(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	slow, quick := Watch(ctx), Watch(ctx)
	await(t, slow, "the first", running)
	status := sample()
	for _, state := range []netvm.State{netvm.Portal, netvm.Limited, netvm.Offline} {
		status.State = state
		s.service.Publish(status)
		await(t, quick, string(state), func(e Event) bool { return e.Status.State == state })
	}
	// What it has not read may be a little older than what the quick one has; but it is one event, and then the newest.
	first := await(t, slow, "an event", running)
	if first.Status.State != netvm.Offline {
		await(t, slow, "the newest", func(e Event) bool { return e.Status.State == netvm.Offline })
	}
}

// Another netvmd, or whoever root lets have the name.
func TestAStatusThatMakesNoSenseIsAProblem(t *testing.T) {
	t.Cleanup(startBus(t, t.TempDir()))
	conn := as(t, 0).conn
	err := conn.ExportMethodTable(map[string]any{"GetAll": func(string) (dict, *godbus.Error) {
		return variants(map[string]any{"Version": uint32(2)}), nil
	}}, Path, properties)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(Name, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := await(t, Watch(ctx), "the problem", running)
	if len(e.Status.Problems) != 1 || !strings.Contains(e.Status.Problems[0], "Backend is missing: is netvmd of another version?") {
		t.Errorf("got %+v", e)
	}
}

func TestClientSaysThatNetvmdIsNotRunning(t *testing.T) {
	t.Cleanup(startBus(t, t.TempDir()))
	c := client(t)
	ctx := context.Background()
	_, status := c.Status(ctx)
	_, refresh := c.Refresh(ctx)
	for what, err := range map[string]error{"Status": status, "Refresh": refresh, "Set": c.SetDNSOverride(ctx, wanted, true)} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestClientSaysThatNetvmdDiedBeforeItAnswered(t *testing.T) {
	s := newScene(t)
	s.holdDaemon()
	c := client(t)
	failed := make(chan error)
	go func() { _, err := c.Refresh(s.ctx); failed <- err }()
	s.daemon.until(t, "refresh")
	s.stop()
	if err := <-failed; !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "left without an answer") {
		t.Errorf("got %v", err)
	}
}

func TestAHeldOverrideIsSetAgainAfterEveryRestart(t *testing.T) {
	s := newScene(t)
	s.stop()
	ctx, cancel := context.WithCancel(s.ctx)
	inForce, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- HoldDNSOverride(ctx, wanted, func() { inForce <- struct{}{} }) }()
	is := func(struct{}) bool { return true }
	s.service, s.stop = run(t, s.daemon)
	await(t, inForce, "netvmd came", is)
	s.stop()
	s.service, s.stop = run(t, s.daemon)
	await(t, inForce, "netvmd was restarted", is)
	s.stopBus()
	s.stopBus = startBus(t, s.dir)
	await(t, inForce, "the bus was restarted", is)
	if h := s.daemon.Holders(); len(h) == 0 {
		t.Error("nothing is in force")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the end of the context is no error: %v", err)
	}
	await(t, s.daemon.happened, "the end", func(string) bool { return len(s.daemon.Holders()) == 0 })
}

func TestAnOverrideThatIsRefusedIsNotHeld(t *testing.T) {
	s := newScene(t)
	for want, prepare := range map[string]func(){
		"no server is named": func() {},
		"out of order": func() {
			s.daemon.mu.Lock()
			defer s.daemon.mu.Unlock()
			s.daemon.err = errors.New("out of order")
		},
	} {
		prepare()
		servers := wanted
		if want == "no server is named" {
			servers = nil
		}
		if err := HoldDNSOverride(s.ctx, servers, func() { t.Error("in force") }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOneLookAnswersAllSignalsThatHaveCome(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := &Client{}
	c.owner.Store("")
	signals := make(chan *godbus.Signal, 8)
	for range cap(signals) {
		signals <- &godbus.Signal{Sender: ":1.5", Name: properties + "." + propertiesChanged}
	}
	if err := c.await(ctx, signals); err != nil {
		t.Fatal(err)
	}
	if left := len(signals); left > 0 {
		t.Errorf("%d signals are left for looks of their own", left)
	}
	for range cap(signals) - 1 {
		signals <- &godbus.Signal{Sender: busName, Name: busName + ".NameAcquired", Body: []any{":1.5"}} // nothing of ours
	}
	signals <- &godbus.Signal{Sender: busName, Name: busName + ".NameOwnerChanged", Body: []any{Name, "", ":1.6"}}
	if err := c.await(ctx, signals); err != nil || c.owner.Load() != ":1.6" {
		t.Errorf("%v; netvmd is taken for %v", err, c.owner.Load())
	}
}
