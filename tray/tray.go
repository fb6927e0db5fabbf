package tray

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/getlantern/systray"

	"netvmd/dbus"
	"netvmd/tray/icons"
	"netvmd/tray/view"
)

// ErrNoDisplay says that there is no display to show anything on.
var ErrNoDisplay = errors.New("no display: DISPLAY names none that answers")

// Options say how the tray runs.
type Options struct {
	Notify  bool     // tell the desktop what a person should know
	Environ []string // of the programs that are started
	Leave   func()   // called once, at the end, however it comes
	Log     *slog.Logger
}

// Run shows the tray until ctx ends or somebody chooses to quit. When the display goes away, it ends the program. It must
// be called on the main goroutine, as GTK belongs to the main thread; systray keeps the two together.
func Run(ctx context.Context, o Options) error {
	leave := sync.OnceFunc(o.Leave)
	defer leave()
	if err := icons.Check(); err != nil {
		return err
	}
	if !openScreen(o.Log, leave) {
		return ErrNoDisplay
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	a := newApplet(&systrayKit{}, o.Log)
	a.picture, a.hindered, a.quit = icons.PNG, hindered, quit
	a.errands = &errands{environ: o.Environ, copy: copyText}
	a.read = readLive(o.Log)
	a.events, a.slots, a.menus = dbus.Watch(ctx), screen.slots, screen.menus
	if o.Notify {
		a.bubbles = make(chan view.Notice, 1)
		b := bubbles{deadline: bubbleDeadline, log: o.Log}
		go b.run(ctx, a.bubbles)
	}
	systray.Run(func() {
		a.run(ctx)
		systray.Quit()
	}, nil)
	return nil
}
