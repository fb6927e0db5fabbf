package tray

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

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
	Environ []string // of the programs that are started, this one too when it must begin again
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
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	born := time.Now()
	if !openScreen(o.Log, leave, func() { beginAgain(ctx, born, leave, o) }) {
		return ErrNoDisplay
	}
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
	context.AfterFunc(ctx, func() { endAnyway(leave) })
	systray.Run(func() {
		a.run(ctx)
		systray.Quit()
	}, nil)
	return nil
}

// endPatience is how long GTK may take to end, which it does in some milliseconds.
const endPatience = time.Second

// endAnyway ends the program when GTK does not: it may wait for a display that does not answer any more.
func endAnyway(leave func()) {
	<-time.After(endPatience)
	leave()
	os.Exit(0)
}

// shortestLife is how old a tray at least gets that begins again, so that one that must at every start costs little.
const shortestLife = time.Second

// beginAgain replaces this program by itself: the same process, with nothing of what GTK made of the old one. It does not
// return.
func beginAgain(ctx context.Context, born time.Time, leave func(), o Options) {
	select {
	case <-ctx.Done():
		leave()
		os.Exit(0)
	case <-time.After(time.Until(born.Add(shortestLife))):
	}
	leave()
	path, err := os.Executable()
	if err == nil {
		o.Log.Info("beginning again")
		err = syscall.Exec(path, os.Args, o.Environ)
	}
	o.Log.Error("ending, as it cannot begin again", "error", err)
	os.Exit(1)
}
