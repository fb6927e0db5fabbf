package main

import (
	"syscall"
	"testing"

	"netvmd/internal/lab/desktop"
)

// GTK crashes at the next change of an icon whose window somebody destroyed.
func TestAnIconThatWasDestroyedIsThereAgain(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	s.settle(icon, shown(example(t, "ethernet")))
	for _, name := range []string{"offline", "wifi-good"} {
		s.must(s.Screen.Destroy(icon))
		s.become(example(t, name))
		icon = s.icon(22)
		s.settle(icon, shown(example(t, name)))
	}
	s.must(s.tray.Signal(syscall.SIGTERM)) // it is the same process
	s.ends(0)
}

func TestItEndsThoughTheDisplayDoesNotAnswer(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	s.settle(icon, shown(example(t, "ethernet")))
	s.must(s.SignalX(syscall.SIGSTOP))
	defer func() { s.must(s.SignalX(syscall.SIGCONT)) }()
	s.become(example(t, "offline")) // which GTK now waits for the display to show
	s.must(s.tray.Signal(syscall.SIGTERM))
	s.ends(0)
}
