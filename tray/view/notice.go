package view

import (
	"cmp"
	"fmt"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// Notice is a notification for the desktop.
type Notice struct {
	Summary   string // one line of plain text
	Body      string // plain text; the sender escapes what the desktop takes for markup
	Urgent    bool
	Tentative bool // what it says may well settle by itself within seconds: an uplink is being brought up
}

// occasion is what a notice is given for.
type occasion int

const (
	nothing      occasion = iota
	uplinkLost            // there was an uplink, and there is none
	portalWaits           // a captive portal wants a login
	dnsIsRefused          // there is an uplink, and AppVMs get no names through it
)

// Told remembers what the person at the desktop was told, so that each thing is told once. The zero Told is right for the
// start.
//
// Whoever shows notices asks Next after every change. While it says that nothing is due, its answer is the Told to keep.
// When a notice is due, it may wait to see whether that settles by itself, keeping the old Told, and ask again.
type Told struct {
	wayOut string   // through what the netvm was last online; "" = it was not since it was last offline
	said   occasion // the notice that was given last, while what it said is still so
}

// Next gives the notice that is due now, if any, and what is remembered afterwards. What is not known changes nothing:
// while netvmd or NetworkManager is not running, or the first uplink is being brought up.
func (t Told) Next(k Known) (after Told, notice Notice, due bool) {
	s := k.Status
	if !k.Running || s.Unmanaged() || s.State == netvm.Connecting && t.wayOut == "" {
		return t, Notice{}, false
	}
	now := t.occasion(s)
	after = Told{said: now}
	if !isDown(s) {
		after.wayOut = wayOut(s)
	}
	if now == nothing || now == t.said {
		return after, Notice{}, false
	}
	return after, t.notice(now, s), true
}

// occasion is what is to be said of a status. A lost uplink, or a portal, explains that DNS is refused.
func (t Told) occasion(s netvm.Status) occasion {
	service, _ := words.AppVMDNS(s)
	switch {
	case isDown(s) && t.wayOut != "":
		return uplinkLost
	case isDown(s):
		return nothing
	case s.State == netvm.Portal:
		return portalWaits
	case s.State == netvm.Limited && t.said == portalWaits:
		return portalWaits // a portal that is slow to answer looks like no Internet; it is not told again
	case service == words.Unserved:
		return dnsIsRefused
	}
	return nothing
}

func (t Told) notice(what occasion, s netvm.Status) Notice {
	switch what {
	case uplinkLost:
		return Notice{Summary: "The uplink is lost", Body: safe("AppVMs are cut off until there is another. It was " + t.wayOut + "."),
			Tentative: s.State == netvm.Connecting}
	case portalWaits:
		body := "It wants a login before AppVMs reach the Internet: netvm's menu opens it."
		return Notice{Summary: safe("Captive portal at " + wayOut(s)), Body: body}
	}
	return Notice{Summary: "AppVM DNS is refused", Urgent: true,
		Body: safe(fmt.Sprintf("No resolver is known (source: %s), so that names are not found in AppVMs.", words.Source(s.DNSSource)))}
}

// isDown tells whether there is no uplink: NetworkManager is connecting only while nothing is connected (NMState of its
// nm-dbus-interface.h).
func isDown(s netvm.Status) bool { return s.State == netvm.Offline || s.State == netvm.Connecting }

func wayOut(s netvm.Status) string { return cmp.Or(words.WayOut(s.Uplinks), "an unknown uplink") }
