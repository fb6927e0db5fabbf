package examples

import (
	"net/netip"
	"time"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// portalAddress is where NetworkManager checks for a portal in Debian.
const portalAddress = "http://network-test.debian.org/nm"

const noResolver = "AppVM DNS over IPv4 is refused: no resolver is announced (source: networkmanager). Set the network's DNS " +
	"servers in NetworkManager, or dns.servers in netvmd.toml."

// states has one example for each icon, in the order of view.Icons.
func states() []Example {
	return []Example{
		{"netvmd-stopped", view.Known{Now: Now}},
		{"networkmanager-stopped", online(func(s *netvm.Status) { s.NMRunning = false })},
		{"offline", online(offline, refuse)},
		{"connecting", online(offline, refuse, func(s *netvm.Status) { s.State, s.ChangedAt = netvm.Connecting, time.Time{} })},
		{"limited", online(func(s *netvm.Status) { s.State = netvm.Limited })},
		{"portal", portal()},
		{"dns-unserved", online(refuse, func(s *netvm.Status) { s.Problems = []string{noResolver} })},
		{"problems", online(problems)},
		{"ethernet", online()},
		{"wifi-weak", online(uplinks(wifi(21)))},
		{"wifi-fair", online(uplinks(wifi(52)))},
		{"wifi-good", online(uplinks(wifi(88)))},
		{"mobile", online(uplinks(mobile()))},
		{"vpn-over-wifi", online(uplinks(wifi(71), vpn()))},
	}
}

func offline(s *netvm.Status) { s.State, s.Uplinks = netvm.Offline, nil }

func portal() view.Known {
	return online(uplinks(wifi(64)), func(s *netvm.Status) { s.State, s.PortalURL = netvm.Portal, portalAddress })
}

func problems(s *netvm.Status) {
	s.Vifs[1].State = netvm.VifDegraded
	s.Problems = []string{
		"vif5.0 is degraded: the route to 10.137.0.12 with metric 32747 is missing. It is mended.",
		"Somebody changed our rules (chain antispoof of ip netvmd). Restart netvmd, or set firewall.on_drift = \"restore\" in netvmd.toml.",
	}
}

// chained is a netvm that another one serves, without NetworkManager.
func chained(s *netvm.Status) {
	s.NMRunning, s.Served = false, true
	s.Uplinks = []netvm.Uplink{{Type: netvm.TypeNetVM, Interface: "eth0", Addresses: prefixes("10.137.0.13/32"),
		Gateway: netip.MustParseAddr("10.137.0.6")}}
	s.DNSSource, s.DNSReason = "store", "another netvm serves this one, and nobody here names other resolvers"
	s.DNSServers = resolvers("10.139.1.1", "10.139.1.2")
	s.DNSTargets = []netvm.Target{leads("10.139.1.1", "10.139.1.1"), leads("10.139.1.2", "10.139.1.2")}
}

// dns has what differs in AppVM DNS.
func dns() []Example {
	return []Example{
		{"dns-partly-served", online(func(s *netvm.Status) { s.DNSTargets = append(s.DNSTargets, leads("fd00:139::1", "")) })},
		{"dns-overridden", online(override)},
		{"dns-of-both-families", online(func(s *netvm.Status) {
			s.DNSServers = resolvers("198.51.100.1", "2001:db8::53")
			s.DNSTargets = []netvm.Target{
				leads("10.139.1.1", "198.51.100.1"), leads("10.139.1.2", "198.51.100.1"), leads("10.139.1.3", "198.51.100.1"),
				leads("fd00:139::1", "2001:db8::53"), leads("fd00:139::2", "2001:db8::53"),
			}
		})},
		{"dns-not-led-yet", online(func(s *netvm.Status) { s.DNSServers, s.DNSTargets, s.DNSSource, s.DNSReason = nil, nil, "", "" })},
	}
}

func override(s *netvm.Status) {
	s.DNSSource, s.DNSReason = "override", "set over D-Bus by netvmctl (pid 4711, user 0), until it leaves the bus"
	s.DNSServers = resolvers("10.8.0.1")
	s.DNSTargets = []netvm.Target{leads("10.139.1.1", "10.8.0.1"), leads("10.139.1.2", "10.8.0.1")}
	s.DNSOverrides = []netvm.Override{
		{Servers: addrs("10.8.0.1"), By: "netvmctl (pid 4711, user 0)", Since: Now.Add(-time.Minute)},
		{Servers: addrs("9.9.9.9", "2620:fe::fe"), By: "netvmctl (pid 812, user 1000)", Since: Now.Add(-49 * time.Hour), Persistent: true},
	}
	s.DNSDropped = []netvm.Dropped{{Addr: addrs("127.0.0.53")[0],
		Reason: "a loopback address: a server inside the netvm is not reached by AppVMs"}}
}

// actions has what differs in the rows that are clicked.
func actions() []Example {
	busy, hindered, done := online(), portal(), online()
	busy.Doing = view.CopyReport
	hindered.Hindered = map[view.Action]string{
		view.Edit: "nm-connection-editor is not installed", view.Login: "xdg-open is not installed",
		view.Refresh: "not allowed by polkit",
	}
	done.Outcome = "The report is in the clipboard."
	unknown := portal()
	unknown.Status.PortalURL = ""
	return []Example{
		{"copying-a-report", busy}, {"hindered", hindered}, {"report-copied", done}, {"portal-without-an-address", unknown},
	}
}
