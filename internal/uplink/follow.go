package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
	f := &following{Setup: s, name: spec.Interface, mac: spec.MAC, from: from, spec: spec, dirty: make(chan struct{}, 1), told: told}
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
	spec  Spec          // the last good one; of run alone
	way   Way           // the last one; of run alone
	dirty chan struct{} // has a token when something may be different
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
		f.spec = spec
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
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
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

// followLink marks when the device comes back or is set up. One that is set down is left so: whoever did that wants it.
func (f *following) followLink(ctx context.Context) {
	f.persist(ctx, "the interface", func(ctx context.Context) error {
		updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
		err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
			ErrorCallback: func(err error) { f.Log.Debug("rtnetlink", "error", err) }, ListExisting: true,
		})
		defer func() {
			close(done)
			if err == nil {
				go drain(updates) // until the subscription's goroutine notices and closes it
			}
		}()
		if err != nil {
			return fmt.Errorf("follow the interface: %w", err)
		}
		var last device
		for {
			select {
			case <-ctx.Done():
				return nil
			case u, open := <-updates:
				if !open {
					return errors.New("rtnetlink ended the subscription")
				}
				last = f.see(u, last)
			}
		}
	})
}

func drain(updates <-chan netlink.LinkUpdate) {
	for range updates {
		continue
	}
}

// see looks at one change of a device, and returns what is known of ours now.
func (f *following) see(u netlink.LinkUpdate, last device) device {
	a := u.Attrs()
	if a.Name != f.name {
		return last
	}
	if u.Header.Type == unix.RTM_DELLINK {
		return device{}
	}
	now := device{a.Index, a.HardwareAddr.String(), a.Flags&net.FlagUp != 0}
	if now != last && (now.up || now.index != last.index) {
		f.mark()
	}
	return now
}
