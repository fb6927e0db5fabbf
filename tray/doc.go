// Package tray is the applet netvm-tray: it follows netvmd on the system bus and shows, through the systray library, what
// tray/view makes of it. One goroutine owns all that is known; GTK has the main thread.
package tray
