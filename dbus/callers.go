package dbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// errCallerLeft says that there is nobody left to answer.
var errCallerLeft = errors.New("the caller left the bus")

// attendance knows which callers are still on the bus: those whose override ends when they leave, and those for whom
// polkit is asked. For the bus's word on each there is a match rule of its own.
type attendance struct {
	daemon   Daemon
	conn     *godbus.Conn
	busID    string // set by begin
	follower sync.WaitGroup
	settling sync.Mutex

	mu      sync.Mutex
	present map[string][]*presence
	holders map[string]*presence // callers whose leaving ends an override
}

// presence is one reason to follow a caller.
type presence struct {
	name  string
	gone  chan struct{} // closed when the caller left
	ended sync.Once     // the rule is taken back
}

func newAttendance(daemon Daemon, conn *godbus.Conn) *attendance {
	return &attendance{daemon: daemon, conn: conn, present: map[string][]*presence{}, holders: map[string]*presence{}}
}

// holder is what the daemon knows a caller by. A bus that is started anew gives the names of the old one to others.
func (a *attendance) holder(name string) string { return a.busID + " " + name }

// begin finds out which of the daemon's holders are still there, and follows callers until the connection ends.
func (a *attendance) begin(ctx context.Context) error {
	if err := ask(ctx, a.conn, "GetId", &a.busID); err != nil {
		return err
	}
	signals := make(chan *godbus.Signal, 16)
	a.conn.Signal(signals)
	a.follower.Add(1)
	go func() {
		defer a.follower.Done()
		for sig := range signals { // closed with the connection
			if name, owner, is := ownerOf(sig); is && owner == "" {
				a.left(ctx, name)
			}
		}
	}()
	for _, holder := range a.daemon.Holders() {
		name, ofThisBus := strings.CutPrefix(holder, a.holder(""))
		if !ofThisBus {
			a.daemon.Left(holder)
			continue
		}
		p, err := a.follow(ctx, name)
		switch {
		case errors.Is(err, errCallerLeft):
			a.daemon.Left(holder)
		case err != nil:
			return err
		default:
			a.hold(ctx, p)
		}
	}
	return nil
}

// follow has the bus tell when a caller leaves. One that has left already is errCallerLeft.
func (a *attendance) follow(ctx context.Context, name string) (*presence, error) {
	p := &presence{name: name, gone: make(chan struct{})}
	a.mu.Lock()
	a.present[name] = append(a.present[name], p)
	a.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	if err := a.conn.AddMatchSignalContext(limited, ownerRule(name)...); err != nil {
		a.remove(p)
		return nil, fmt.Errorf("follow the caller %s: %w", name, err)
	}
	var there bool
	err := ask(ctx, a.conn, "NameHasOwner", &there, name) // it may have left before the rule was there
	if err == nil && !there {
		err = errCallerLeft
	}
	if err != nil {
		a.unfollow(ctx, p)
		return nil, err
	}
	return p, nil
}

// unfollow ends follow; nil is nobody.
func (a *attendance) unfollow(ctx context.Context, p *presence) {
	if p == nil {
		return
	}
	a.remove(p)
	p.ended.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callDeadline)
		defer cancel()
		// An error is of no use: the rule is gone with the connection.
		_ = a.conn.RemoveMatchSignalContext(ctx, ownerRule(p.name)...)
	})
}

func (a *attendance) remove(p *presence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.present[p.name] = slices.DeleteFunc(a.present[p.name], func(o *presence) bool { return o == p })
	if len(a.present[p.name]) == 0 {
		delete(a.present, p.name)
	}
}

// left is the bus's word that a name has no owner any more.
func (a *attendance) left(ctx context.Context, name string) {
	a.mu.Lock()
	followed, holder := a.present[name], a.holders[name]
	delete(a.present, name)
	delete(a.holders, name)
	a.mu.Unlock()
	for _, p := range followed {
		close(p.gone)
	}
	if holder != nil {
		a.daemon.Left(a.holder(name))
		a.unfollow(ctx, holder)
	}
}

// hold keeps following a caller, whose leaving ends its override from now on. Has it left meanwhile, that ends at once.
func (a *attendance) hold(ctx context.Context, p *presence) {
	a.mu.Lock()
	before, here := a.holders[p.name], slices.Contains(a.present[p.name], p)
	if here {
		a.holders[p.name] = p
	}
	a.mu.Unlock()
	if here {
		a.unfollow(ctx, before)
		return
	}
	a.daemon.Left(a.holder(p.name))
	a.unfollow(ctx, p)
}

// set puts a caller's override in force.
func (a *attendance) set(ctx context.Context, name string, o netvm.Override) error {
	o.Holder = a.holder(name)
	if o.Persistent {
		defer a.settle(ctx, name, nil)
		return a.daemon.SetOverride(ctx, o)
	}
	p, err := a.follow(ctx, name)
	if err != nil {
		return err
	}
	defer a.settle(ctx, name, p) // an override that the kernel did not take in time is noted all the same
	return a.daemon.SetOverride(ctx, o)
}

// clear takes a caller's override back, or the persistent one.
func (a *attendance) clear(ctx context.Context, name string) error {
	defer a.settle(ctx, name, nil)
	return a.daemon.ClearOverride(ctx, a.holder(name))
}

// settle follows a caller for what it has just set, if that is not nil, and stops following one that holds nothing.
func (a *attendance) settle(ctx context.Context, name string, set *presence) {
	a.settling.Lock() // or another call of the same caller could come between the question and what follows from it
	defer a.settling.Unlock()
	if set != nil {
		a.hold(ctx, set)
	}
	if slices.Contains(a.daemon.Holders(), a.holder(name)) {
		return
	}
	a.mu.Lock()
	p := a.holders[name]
	delete(a.holders, name)
	a.mu.Unlock()
	a.unfollow(ctx, p)
}
