package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/rtnetlink"
	"netvmd/internal/store"
	"netvmd/internal/systembus"
)

// firstPause and lastPause bound the wait before something that failed is tried again; it doubles in between.
const firstPause, lastPause = 100 * time.Millisecond, time.Minute

// ErrReverted says that somebody reverted the interface while it was followed, so that it is left alone now.
var ErrReverted = errors.New("reverted by somebody else")

// Follow keeps an interface as the store says, from an Up that succeeded on, until ctx ends: it is brought there again
// whenever the store says something else, when NetworkManager or systemd-resolved come, go or start again, and when the
// device comes back or is set up. Whatever fails leaves what was good before. told gets what was done when something was, or in
// another way than before. The error is ErrReverted, or nil when ctx ends.
func (s *Setup) Follow(ctx context.Context, from store.Options, spec Spec, told func(Result)) error {
	f := &following{Setup: s, name: spec.Interface, mac: spec.MAC, from: from, dirty: make(chan struct{}, 1), told: told}
	f.take(spec)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 3)
	for _, follow := range []func(context.Context){f.followStore, f.followBus, f.followLink} {
		go func() {
			defer func() { done <- struct{}{} }()
			follow(ctx)
		}()
	}
	err := f.run(ctx)
	cancel()
	for range cap(done) {
		<-done
	}
	return err
}

// following is one Follow.
type following struct {
	*Setup
	name  string
	mac   net.HardwareAddr
	from  store.Options
	spec  Spec                         // the last good one; of run alone
	way   Way                          // the last one; of run alone
	hosts atomic.Pointer[[]netip.Addr] // the neighbours of the last good one
	dirty chan struct{}                // has a token when something may be different
	told  func(Result)
}

// mark says that something may be different.
func (f *following) mark() {
	select {
	case f.dirty <- struct{}{}:
	default: // the last one was not received yet
	}
}

// run acts on the tokens. What fails for another reason than the store's word is tried again, ever more slowly.
func (f *following) run(ctx context.Context) error {
	pause := firstPause
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.dirty:
			pause = firstPause
		case <-again:
		}
		again = nil
		err := f.apply(ctx)
		switch {
		case errors.Is(err, ErrReverted):
			return err
		case err != nil && ctx.Err() == nil:
			f.Log.Warn("the uplink is not set up", "interface", f.name, "error", err, "again_in", pause)
			again, pause = time.After(pause), min(2*pause, lastPause)
		}
	}
}

// apply brings the interface to what the store says now; an error is to be tried again. What is wrong with the store's word
// is not: that there is another one is an event.
func (f *following) apply(ctx context.Context) error {
	spec, err := f.read(ctx)
	if err != nil && ctx.Err() == nil {
		f.Log.Warn("the uplink stays as it is", "interface", f.name, "error", err)
	} else if err == nil {
		f.take(spec)
	}
	if cards, err := listCards(); err == nil {
		if _, err := findCard(cards, f.name); err != nil {
			return nil // likewise its return
		}
	}
	result, err := f.bringUp(ctx, f.spec, true)
	otherWay := f.way != "" && err == nil && result.Way != f.way
	if len(result.Changes) > 0 || otherWay {
		f.told(result)
	}
	if err == nil {
		f.way = result.Way
	}
	return err
}

// take makes a Spec the good one.
func (f *following) take(spec Spec) {
	hosts := want(spec).hosts
	f.spec = spec
	f.hosts.Store(&hosts)
}

// read reads the store anew.
func (f *following) read(ctx context.Context) (Spec, error) {
	s, err := store.Open(ctx, f.from)
	if err != nil {
		return Spec{}, err
	}
	defer func() { _ = s.Close() }() // nothing was written to it
	return ReadSpec(ctx, s, f.name)
}

// persist begins a session anew when it has ended, after a pause that grows as long as sessions are short.
func (f *following) persist(ctx context.Context, what string, session func(context.Context) error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		f.Log.Debug("not followed, trying again", "interface", f.name, "what", what, "error", err, "pause", pause)
		if !rtnetlink.Sleep(ctx, pause) {
			return
		}
	}
}

// followStore marks when the store may say something else. After it was away it is read in any case.
func (f *following) followStore(ctx context.Context) {
	if f.from.Kind == store.None {
		return
	}
	f.persist(ctx, "the store", func(ctx context.Context) error {
		s, err := store.Open(ctx, f.from)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }() // nothing was written to it
		changed, err := s.WatchUplink(ctx, f.mac)
		if err != nil {
			return err
		}
		for {
			f.mark()
			select {
			case <-ctx.Done():
				return nil
			case <-s.Done():
				return s.Err()
			case <-changed:
			}
		}
	})
}

// followBus marks when one of the services comes, goes or starts again.
func (f *following) followBus(ctx context.Context) {
	systembus.Persist(ctx, f.Log, func(ctx context.Context) (bool, error) {
		conn, err := systembus.Connect(ctx)
		if err != nil {
			return false, err
		}
		defer func() { _ = conn.Close() }() // nothing that was sent is awaited
		signals := make(chan *godbus.Signal, 16)
		conn.Signal(signals)
		for _, name := range []string{nmName, resolved} {
			if err := matchOwner(ctx, conn, name); err != nil {
				return false, err
			}
		}
		for {
			f.mark()
			select {
			case <-ctx.Done():
				return true, ctx.Err()
			case _, open := <-signals:
				if !open {
					return true, errors.New("the connection was closed")
				}
			}
		}
	})
}

func matchOwner(ctx context.Context, conn *godbus.Conn, name string) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	err := conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName),
		godbus.WithMatchMember(ownerChanged), godbus.WithMatchArg(0, name))
	if err != nil {
		return fmt.Errorf("follow %s on the bus: %w", name, err)
	}
	return nil
}

// device is what of a device makes it another one, or one that has lost its neighbours.
type device struct {
	index int
	mac   string
	up    bool
}

// followLink marks when the device comes back, is set up, or has lost a neighbour while it is up: NetworkManager flushes those
// of IPv6 when it switches that on, after it has said that it was done. One that is set down is left so: whoever did that
// wants it.
func (f *following) followLink(ctx context.Context) {
	var last device
	lost := false
	rtnetlink.Persist(ctx, f.Log, "the interface "+f.name, func(ctx context.Context) error {
		concerns := func(kind uint16, data []byte) bool {
			lost = kind == unix.RTM_DELNEIGH && f.misses(data)
			return lost || kind == unix.RTM_NEWLINK || kind == unix.RTM_DELLINK
		}
		return rtnetlink.Follow(ctx, unix.RTMGRP_LINK|unix.RTMGRP_NEIGH, concerns, func() {
			if last = f.look(last); lost && last.up {
				f.mark()
			}
		})
	})
}

// misses tells whether a neighbour that is gone is one of ours; of another device's it may say so too.
func (f *following) misses(data []byte) bool {
	n, err := netlink.NeighDeserialize(data)
	hosts := f.hosts.Load()
	return err == nil && hosts != nil && slices.Contains(*hosts, rtnetlink.Address(n.IP))
}

// look looks at the device, and returns what is known of it now.
func (f *following) look(last device) device {
	l, err := netlink.LinkByName(f.name)
	if err != nil { // it is gone, or the next event says more
		return device{}
	}
	a := l.Attrs()
	now := device{a.Index, a.HardwareAddr.String(), a.Flags&net.FlagUp != 0}
	if now != last && (now.up || now.index != last.index) {
		f.mark()
	}
	return now
}
