package examples

import (
	"strings"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// odd has what is rare, and what somebody may try.
func odd() []Example {
	return []Example{
		{"networkmanager-never-ran", online(offline, refuse, func(s *netvm.Status) { s.NMRunning = false })},
		{"chained", online(chained)},
		{"chained-offline", online(chained, offline, refuse)},
		{"vpn-first", online(uplinks(vpn(), ethernet()))},
		{"wireguard-over-ethernet", online(uplinks(ethernet(), wireguard()))},
		{"six-uplinks", online(uplinks(ethernet(), wifi(40), mobile(), vpn(), wireguard(), ethernet()))},
		{"unknown-state", online(func(s *netvm.Status) { s.State, s.DNSSource = "hibernating\x07", "oracle" })},
		{"right-to-left", online(uplinks(named("قهوة الصباح"), named("בית קפה 5")))},
		{"wide-script", online(uplinks(named("喫茶店の無線 🍵")))},
		{"markup", online(uplinks(named(`<b>&lt;_File</b>`)))},
		{"hostile", hostile()},
		{"hostile-errand", hostileErrand()},
	}
}

// named is a Wi-Fi of a name.
func named(ssid string) netvm.Uplink {
	u := wifi(71)
	u.ID, u.SSID = ssid, ssid
	return u
}

// evil has what terminals and menus obey. It is UTF-8, as whatever comes over D-Bus is; an SSID need not be.
const evil = "\x1b]0;owned\x07\x1b[2Jnet\u202etxt.exe\u2066\u0085\u009b31m\n✓ Online\t\ufffd"

// hostile has evil texts wherever netvmd tells of texts from outside, and some from where they cannot come.
func hostile() view.Known {
	return online(uplinks(named(evil), netvm.Uplink{ID: strings.Repeat("x", 500), Type: evil, VPN: true},
		named(strings.Repeat("\u202e\u0301", 16))), func(s *netvm.Status) {
		s.DNSSource, s.DNSReason = evil, strings.Repeat(evil, 50)
		s.Problems = []string{evil, strings.Repeat("y", 20000), ""}
		s.DNSOverrides = []netvm.Override{{Servers: addrs("10.8.0.1"), By: evil}}
		s.DNSDropped = []netvm.Dropped{{Addr: addrs("127.0.0.1")[0], Reason: evil}}
		s.Vifs[0].Name, s.Vifs[0].State, s.Vifs[0].MAC = "vif\x1b[8m4.0", "up\x7f", "00:\r16"
		s.State, s.PortalURL = netvm.Portal, "http://portal.example/?next="+strings.Repeat("%1b%5b2J", 30)
	})
}

// hostileErrand has evil texts in what programs say that the tray starts.
func hostileErrand() view.Known {
	k := online()
	k.Outcome, k.Hindered = evil, map[view.Action]string{view.Refresh: evil}
	return k
}
