package tray

/*
#cgo pkg-config: gtk+-3.0 x11
#include <stdlib.h>
#include "gtk.h"
*/
import "C"

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// screen is the one connection to the display that a program with GTK has. GTK's callbacks carry no Go value, hence the
// variable.
var screen = struct {
	slots chan slot // capacity 1: the newest
	menus chan bool // capacity 1: whether the menu is open, the newest
	log   *slog.Logger
	leave func() // when the display is gone
	again func() // when the library is ruined; it does not return

	mu     sync.Mutex
	queued []func() // for the main thread
}{
	slots: make(chan slot, 1),
	menus: make(chan bool, 1),
}

// slot is the tray icon's place in the panel.
type slot struct {
	docked bool
	size   int // in pixels, of the side that the panel fixes
}

// openScreen connects to the display; false = there is none. When it goes away later, leave is called and the program
// ends. On the main thread.
func openScreen(log *slog.Logger, leave, again func()) bool {
	screen.log, screen.leave, screen.again = log, leave, again
	return C.tray_start() != 0
}

// onMainThread has f called on the main thread, after what was asked of GTK before.
func onMainThread(f func()) {
	screen.mu.Lock()
	screen.queued = append(screen.queued, f)
	screen.mu.Unlock()
	C.tray_soon()
}

//export mainThreadFree
func mainThreadFree() {
	screen.mu.Lock()
	f := screen.queued[0]
	screen.queued = screen.queued[1:]
	screen.mu.Unlock()
	f()
}

//export slotChanged
func slotChanged(docked, size C.int) {
	replace(screen.slots, slot{docked: docked != 0, size: int(size)})
}

//export menuShown
func menuShown(shown C.int) { replace(screen.menus, shown != 0) }

//export displayLost
func displayLost() {
	screen.log.Info("the display is gone")
	screen.leave()
	os.Exit(0)
}

// harmless is what GTK complains of and need not: a window that is thawed once too often whenever an icon docks, a session
// without the service for screen readers, and no session bus, or none any more, which is said once, by us. Since 0.5.94 the
// library of the icon says at each start that it is deprecated.
var harmless = []string{
	"gdk_window_thaw_toplevel_updates", "AT-SPI", "session bus", "connection is closed", "libayatana-appindicator is deprecated",
}

// ruinous is what GTK says when somebody destroyed a window of ours, as a panel does that dies while the icon docks. What
// follows is a crash, or GTK ends the program.
var ruinous = []string{"unexpectedly destroyed", "X Window System error"}

//export glibSaid
func glibSaid(domain, message *C.char) {
	text, level := C.GoString(message), slog.LevelWarn
	says := func(part string) bool { return strings.Contains(text, part) }
	if slices.ContainsFunc(harmless, says) {
		level = slog.LevelDebug
	}
	screen.log.Log(context.Background(), level, "GTK complains", "domain", C.GoString(domain), "message", text)
	if slices.ContainsFunc(ruinous, says) {
		screen.again()
	}
}

// hideRow hides the row at a place of the menu.
func hideRow(path []C.int) {
	onMainThread(func() { C.tray_hide_row(&path[0], C.int(len(path))) })
}

// copyText gives the clipboard a text.
func copyText(text string) {
	onMainThread(func() {
		c := C.CString(text)
		defer C.free(unsafe.Pointer(c))
		C.tray_copy(c, C.int(len(text)))
	})
}

// replace puts a value into a channel with room for one, instead of what was not received yet. There is one sender.
func replace[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}
