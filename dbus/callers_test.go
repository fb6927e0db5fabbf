package dbus

import (
	"errors"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
)

// holds tells whether a client's override is in force.
func (s *scene) holds(c *Client) bool {
	for _, h := range s.daemon.Holders() {
		if strings.HasSuffix(h, " "+uniqueName(c)) {
			return true
		}
	}
	return false
}

func (s *scene) set(t *testing.T, c *Client) {
	t.Helper()
	if err := c.SetDNSOverride(s.ctx, wanted, false); err != nil {
		t.Fatal(err)
	}
}

func TestAnOverrideEndsWhenItsCallerLeaves(t *testing.T) {
	s := newScene(t)
	one, two := client(t), client(t)
	s.set(t, one)
	s.set(t, two)
	s.set(t, one) // again
	name := uniqueName(one)
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if left := s.daemon.until(t, "left"); !strings.HasSuffix(left, " "+name) {
		t.Errorf("%q left, not %s", left, name)
	}
	if !s.holds(two) {
		t.Error("the override of another caller ended too")
	}
}

func TestACallerThatHoldsNothingAnyMoreIsNotFollowed(t *testing.T) {
	for what, end := range map[string]func(s *scene, c *Client) error{
		"it cleared its override":        func(s *scene, c *Client) error { return c.ClearDNSOverride(s.ctx) },
		"it made its override last long": func(s *scene, c *Client) error { return c.SetDNSOverride(s.ctx, wanted, true) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newScene(t)
			c, other := client(t), client(t)
			s.set(t, c)
			s.set(t, other)
			if err := end(s, c); err != nil {
				t.Fatal(err)
			}
			name := uniqueName(c)
			_, _ = c.Close(), other.Close()
			if left := s.daemon.until(t, "left"); strings.HasSuffix(left, " "+name) {
				t.Errorf("%s is still followed", name)
			}
		})
	}
}

func TestAnOverrideThatTheKernelDoesNotTakeYetEndsWithItsCallerToo(t *testing.T) {
	s := newScene(t)
	s.daemon.mu.Lock()
	s.daemon.late = errors.New("no memory")
	s.daemon.mu.Unlock()
	c := client(t)
	if err := c.SetDNSOverride(s.ctx, wanted, false); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("%v", err)
	}
	if !s.holds(c) {
		t.Error("it was not noted")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.daemon.until(t, "left")
}

func TestACallerThatLeavesBeforeItsOverrideIsInForceLeavesNothingBehind(t *testing.T) {
	s := newScene(t)
	hold := make(chan struct{})
	s.daemon.mu.Lock()
	s.daemon.hold = hold
	s.daemon.mu.Unlock()
	c := client(t)
	go func() { _ = c.SetDNSOverride(s.ctx, wanted, false) }() // its connection is closed
	s.daemon.until(t, "setting")
	gone := ownerChanges(t, uniqueName(c))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-gone
	close(hold)
	s.daemon.until(t, "set ")
	s.daemon.until(t, "left")
	if h := s.daemon.Holders(); len(h) > 0 {
		t.Errorf("left behind: %q", h)
	}
}

// ownerChanges gives the bus's word on a name.
func ownerChanges(t *testing.T, name string) <-chan *godbus.Signal {
	t.Helper()
	c := client(t)
	signals := make(chan *godbus.Signal, 16)
	c.conn.Signal(signals)
	if err := c.conn.AddMatchSignal(ownerRule(name)...); err != nil {
		t.Fatal(err)
	}
	changes := make(chan *godbus.Signal, 16)
	go func() {
		for s := range signals {
			if changed, _, is := ownerOf(s); is && changed == name {
				changes <- s
			}
		}
	}()
	return changes
}

func TestHoldersOfBeforeARestartAreFoundOutAbout(t *testing.T) {
	s := newScene(t)
	stays, leaves := client(t), client(t)
	s.set(t, stays)
	s.set(t, leaves)
	s.stop()
	gone := ownerChanges(t, uniqueName(leaves))
	if err := leaves.Close(); err != nil {
		t.Fatal(err)
	}
	<-gone
	s.service, s.stop = run(t, s.daemon)
	s.daemon.until(t, "left")
	if h := s.daemon.Holders(); len(h) != 1 || !s.holds(stays) {
		t.Errorf("holders are %q", h)
	}
	s.await(t, "the service is back", func(e Event) bool { return e.Running })
	if err := stays.Close(); err != nil {
		t.Fatal(err)
	}
	s.daemon.until(t, "left")
}

func TestHoldersOfAnotherBusAreGone(t *testing.T) {
	s := newScene(t)
	for range 20 { // so that the new bus comes to the same name later, and not for the service
		client(t)
	}
	c := client(t)
	s.set(t, c)
	name := uniqueName(c)
	s.stopBus()
	s.stopBus = startBus(t, s.dir)
	s.await(t, "the service is back", func(e Event) bool { return e.Running })
	if left := s.daemon.until(t, "left"); !strings.HasSuffix(left, " "+name) {
		t.Errorf("%q left", left)
	}
	same := client(t)
	for uniqueName(same) != name {
		same = client(t)
	}
	s.set(t, same)
	if !s.holds(same) {
		t.Error("the new owner of the name holds nothing")
	}
}

// Signals of strangers say nothing about anybody.
func TestAStrangersWordOnAHolderIsNotBelieved(t *testing.T) {
	s := newScene(t)
	holder, stranger := client(t), as(t, nobody)
	s.set(t, holder)
	for _, sender := range []*Client{stranger, client(t)} {
		forge(t, sender, uniqueName(holder))
	}
	if err := stranger.read(s.ctx, peer+".Ping", nil); err != nil { // comes after the signals
		t.Fatal(err)
	}
	other := client(t)
	s.set(t, other)
	_ = other.Close()
	if left := s.daemon.until(t, "left"); strings.HasSuffix(left, " "+uniqueName(holder)) || !s.holds(holder) {
		t.Errorf("believed: %q", left)
	}
}

// forge sends netvmd the bus's signal that a name has lost its owner.
func forge(t *testing.T, from *Client, name string) {
	t.Helper()
	body := []any{name, name, ""}
	msg := &godbus.Message{Type: godbus.TypeSignal, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(Name),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")),
		godbus.FieldInterface:   godbus.MakeVariant(busName),
		godbus.FieldMember:      godbus.MakeVariant("NameOwnerChanged"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
	}}
	if call := from.conn.Send(msg, nil); call.Err != nil {
		t.Fatal(call.Err)
	}
}
