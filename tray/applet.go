package tray

import (
	"context"
	"log/slog"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// firstSize is that of the icon, in pixels, until the panel has said how much room there is.
const firstSize = 22

// panelPatience is how long the start waits for a panel before it says that there is none. A panel that is there takes
// the icon within 0.2 s.
const panelPatience = 2 * time.Second

// applet owns all that is known, in the goroutine of run.
type applet struct {
	kit      toolkit
	picture  func(icon view.Icon, size int) []byte
	errands  doer
	read     func(ctx context.Context, readings chan<- reading) // until ctx ends: what is read while the menu is open
	hindered func() map[view.Action]string
	bubbles  chan view.Notice // nil: the desktop is told nothing
	quit     func()
	log      *slog.Logger

	events   <-chan dbus.Event
	slots    <-chan slot
	menus    <-chan bool // whether the menu is open
	clicks   chan *place
	outcomes chan outcome
	readings chan reading
	drawn    chan struct{}

	known     view.Known
	stale     bool   // known is newer than what was sent to the kit
	drawing   bool   // the kit has not yet done all that it was sent
	slot      slot   // the icon's place
	stopRead  func() // while the menu is open
	notices   notices
	menu      pool
	sentIcon  view.Icon
	sentSize  int
	sentTitle string
}

// doer does what a click asks for. It tells what came of it, at the end and, of a program that was left running, later.
type doer interface {
	do(ctx context.Context, action view.Action, known view.Known, outcomes chan<- outcome)
}

// outcome is what an action came to.
type outcome struct {
	sentence string
	done     bool // the action is over; else it was before
}

// reading is what is shown in the menu and netvmd does not tell of by itself.
type reading struct {
	traffic []netvm.Traffic
	routes  []netvm.Route
}

// newApplet makes the channels that the parts speak over.
func newApplet(kit toolkit, log *slog.Logger) *applet {
	return &applet{
		kit:      kit,
		log:      log,
		clicks:   make(chan *place),
		outcomes: make(chan outcome),
		readings: make(chan reading),
		drawn:    make(chan struct{}, 1),
		slot:     slot{size: firstSize},
		notices:  notices{settle: settleTime},
	}
}

// run shows what is known until ctx ends.
func (a *applet) run(ctx context.Context) {
	a.menu = pool{kit: a.kit, listen: func(p *place) { go a.forward(ctx, p) }}
	a.known.Hindered = a.hindered()
	a.stopRead = func() {}
	a.stale = true
	patience := time.NewTimer(panelPatience)
	defer patience.Stop()
	for {
		a.show()
		select {
		case <-ctx.Done():
			a.stopRead()
			return
		case e := <-a.events:
			a.follow(e)
		case s := <-a.slots:
			a.settle(s)
		case open := <-a.menus:
			a.turn(ctx, open)
		case p := <-a.clicks:
			a.act(ctx, p.action)
		case o := <-a.outcomes:
			a.conclude(o)
		case r := <-a.readings:
			a.known.Traffic, a.known.Routes, a.stale = r.traffic, r.routes, true
		case <-a.notices.settled:
			a.announce()
		case <-a.drawn:
			a.drawing = false
		case <-patience.C:
			if !a.slot.docked {
				a.log.Info("no panel with a tray for X11 icons yet: waiting for one")
			}
		}
	}
}

// forward hands on the clicks on one place. The library drops those that nobody waits for.
func (a *applet) forward(ctx context.Context, p *place) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.item.Clicked():
		}
		select {
		case <-ctx.Done():
			return
		case a.clicks <- p:
		}
	}
}

// show sends the kit what is different. While it is busy with what it was sent, nothing is added: then only the newest is
// sent.
func (a *applet) show() {
	if !a.stale || a.drawing {
		return
	}
	a.stale, a.drawing = false, true
	a.known.Now = time.Now()
	now := view.Of(a.known)
	if now.Icon != a.sentIcon || a.slot.size != a.sentSize {
		a.sentIcon, a.sentSize = now.Icon, a.slot.size
		a.kit.Icon(a.picture(now.Icon, a.slot.size))
	}
	if now.Title != a.sentTitle {
		a.sentTitle = now.Title
		a.kit.Title(now.Title)
	}
	a.menu.show(now.Menu)
	a.kit.Drawn(func() { a.drawn <- struct{}{} })
}

// follow takes netvmd's word.
func (a *applet) follow(e dbus.Event) {
	if e.Running != a.known.Running {
		a.log.Info("netvmd", "running", e.Running)
	}
	if !e.Running {
		a.known.Traffic, a.known.Routes = nil, nil
	}
	a.known.Running, a.known.Status, a.stale = e.Running, e.Status, true
	if a.bubbles != nil {
		a.notices.see(a.known)
	}
}

// settle takes the panel's. It gives a place of one pixel before it gives a real one.
func (a *applet) settle(s slot) {
	switch {
	case s.docked && s.size <= 1:
		return
	case s.docked && s != a.slot:
		a.log.Info("docked in a panel", "size", s.size)
	case !s.docked && a.slot.docked:
		a.log.Info("the panel is gone: waiting for one")
	}
	a.stale = a.stale || s.size != a.slot.size
	a.slot = s
}

// turn begins and ends what is read while the menu is open.
func (a *applet) turn(ctx context.Context, open bool) {
	a.stopRead()
	a.stopRead = func() {}
	if !open {
		return
	}
	a.known.Hindered, a.stale = a.hindered(), true
	ctx, a.stopRead = context.WithCancel(ctx)
	go a.read(ctx, a.readings)
}

// act does what a row is for. One thing is done at a time.
func (a *applet) act(ctx context.Context, action view.Action) {
	switch {
	case action == view.Quit:
		a.quit()
		return
	case action == view.None || a.known.Doing != view.None:
		return
	}
	a.log.Info("doing", "action", string(action))
	a.known.Doing, a.known.Outcome, a.stale = action, "", true
	go a.errands.do(ctx, action, a.known, a.outcomes)
}

// conclude takes what an action came to.
func (a *applet) conclude(o outcome) {
	a.log.Info("done", "outcome", o.sentence)
	if o.done {
		a.known.Doing = view.None
	}
	a.known.Outcome, a.stale = o.sentence, true
}

// announce has the desktop show the notice that has settled, instead of one that it did not show yet.
func (a *applet) announce() {
	notice := a.notices.give(a.known)
	a.log.Info("telling the desktop", "notice", notice.Summary)
	replace(a.bubbles, notice)
}
