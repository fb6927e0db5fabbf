// Package examples has the situations that a person at the desktop meets, as the tray knows them: for the tests of what is
// shown, and for the pictures of it.
package examples

import (
	"net/netip"
	"slices"
	"time"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// Example is one situation.
type Example struct {
	Name  string // a few words with dashes between them, fit for a file's name
	Known view.Known
}

// Now is when all of them are.
var Now = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// All are the examples: first one for each icon, in the order of view.Icons, then what differs in the menu alone.
func All() []Example { return slices.Concat(states(), dns(), vifs(), actions(), odd()) }

// Named is the example of a name, if there is one.
func Named(name string) (view.Known, bool) {
	for _, e := range All() {
		if e.Name == name {
			return e.Known, true
		}
	}
	return view.Known{}, false
}

// online is a netvm where everything is well, changed.
func online(changes ...func(*netvm.Status)) view.Known {
	s := netvm.Status{
		Version: "1.2.3", State: netvm.Online, NMRunning: true, Uplinks: []netvm.Uplink{ethernet()},
		DNSSource: "networkmanager", DNSReason: "neither systemd-resolved nor another program's resolv.conf takes precedence",
		DNSServers: resolvers("198.51.100.1", "198.51.100.2"),
		DNSTargets: []netvm.Target{leads("10.139.1.1", "198.51.100.1"), leads("10.139.1.2", "198.51.100.2")},
		ChangedAt:  Now.Add(-7 * time.Minute), ApplyTime: 860 * time.Microsecond, Backend: "nftables", Vifs: vifsOf(3),
	}
	for _, change := range changes {
		change(&s)
	}
	return view.Known{Running: true, Status: s, Now: Now}
}

func uplinks(list ...netvm.Uplink) func(*netvm.Status) {
	return func(s *netvm.Status) { s.Uplinks = list }
}

func ethernet() netvm.Uplink {
	return netvm.Uplink{ID: "Wired connection 1", Type: "802-3-ethernet", Interface: "enp0s2",
		Addresses: prefixes("198.51.100.20/24"), Gateway: netip.MustParseAddr("198.51.100.1")}
}

func wifi(strength uint8) netvm.Uplink {
	return netvm.Uplink{ID: "Home", Type: "802-11-wireless", Interface: "wlp0s1", SSID: "Café du Monde", Strength: strength,
		Addresses: prefixes("192.0.2.7/24", "2001:db8::7/64"), Gateway: netip.MustParseAddr("192.0.2.1"), Metered: true}
}

func mobile() netvm.Uplink {
	return netvm.Uplink{ID: "LTE", Type: "gsm", Interface: "wwan0", Addresses: prefixes("203.0.113.5/30"),
		Gateway: netip.MustParseAddr("203.0.113.6"), Metered: true}
}

// vpn is as NetworkManager tells of the VPN of a plugin.
func vpn() netvm.Uplink {
	return netvm.Uplink{ID: "work", Type: "vpn", Interface: "tun0", VPN: true, Addresses: prefixes("10.8.0.2/32")}
}

// wireguard is as NetworkManager tells of WireGuard, which is a device to it.
func wireguard() netvm.Uplink {
	return netvm.Uplink{ID: "exit", Type: "wireguard", Interface: "wg0", Addresses: prefixes("10.9.0.2/32")}
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

func resolvers(list ...string) []netvm.Resolver {
	out := make([]netvm.Resolver, len(list))
	for i, a := range list {
		out[i].Addr = netip.MustParseAddr(a)
	}
	return out
}

// leads is a virtual address with its resolver; "" = unserved.
func leads(virtual, resolver string) netvm.Target {
	t := netvm.Target{Virtual: netip.MustParseAddr(virtual)}
	if resolver != "" {
		t.Resolver.Addr = netip.MustParseAddr(resolver)
	}
	return t
}

// refuse takes every resolver away.
func refuse(s *netvm.Status) {
	s.DNSServers = nil
	s.DNSTargets = []netvm.Target{leads("10.139.1.1", ""), leads("10.139.1.2", "")}
}
