package nmhook

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// device is a link with addresses; carries = the other end is there.
type device struct {
	name      string
	index     int
	carries   bool
	addresses string
	kind      string // of the link, "" = an ordinary one
}

// kernelWith is what the kernel would have: routes are "DEVICE-INDEX DESTINATION [via GATEWAY] [kernel]".
func kernelWith(devices []device, routes ...string) network {
	var n network
	for _, d := range devices {
		attrs := netlink.LinkAttrs{Name: d.name, Index: d.index, RawFlags: unix.IFF_UP}
		if d.name == "lo" {
			attrs.Flags = net.FlagLoopback
		}
		if d.carries {
			attrs.RawFlags |= unix.IFF_LOWER_UP
		}
		var link netlink.Link = &netlink.Device{LinkAttrs: attrs}
		switch d.kind {
		case "wireguard":
			link = &netlink.Wireguard{LinkAttrs: attrs}
		case "tun":
			link = &netlink.Tuntap{LinkAttrs: attrs}
		}
		n.links = append(n.links, link)
		for _, a := range strings.Fields(d.addresses) {
			p := netip.MustParsePrefix(a)
			n.addresses = append(n.addresses, netlink.Addr{LinkIndex: d.index, IPNet: &net.IPNet{IP: p.Addr().AsSlice(),
				Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}})
		}
	}
	for _, text := range routes {
		n.routes = append(n.routes, routeOf(text))
	}
	return n
}

func routeOf(text string) netlink.Route {
	words := strings.Fields(text)
	r := netlink.Route{Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_BOOT}
	if _, err := fmt.Sscan(words[0], &r.LinkIndex); err != nil {
		panic(err)
	}
	if words[1] != "default" {
		p := netip.MustParsePrefix(words[1])
		r.Dst = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	for i, w := range words {
		switch w {
		case "via":
			r.Gw = netip.MustParseAddr(words[i+1]).AsSlice()
		case "kernel":
			r.Protocol = unix.RTPROT_KERNEL
		case "unreachable":
			r.Type = unix.RTN_UNREACHABLE
		}
	}
	return r
}

func TestTheWayOutThroughAnotherNetvm(t *testing.T) {
	lo := device{name: "lo", index: 1, carries: true, addresses: "127.0.0.1/8 ::1/128"}
	eth0 := device{name: "eth0", index: 2, carries: true, addresses: "10.137.0.13/32 fd09::d/128 fe80::1/64"}
	vif := device{name: "vif14.0", index: 3, carries: true, addresses: "10.137.0.13/32"}
	dead := eth0
	dead.carries = false
	bare := eth0
	bare.addresses = "fe80::1/64"
	const through = "netvm eth0 10.137.0.13/32 fd09::d/128"
	for name, tc := range map[string]struct {
		kernel network
		want   string
	}{
		"a default route without a gateway":   {kernelWith([]device{lo, eth0, vif}, "2 default", "3 10.137.0.14/32"), "online; " + through},
		"one whose destination is written":    {kernelWith([]device{eth0}, "2 0.0.0.0/0"), "online; " + through},
		"IPv4's gateway before IPv6's":        {kernelWith([]device{eth0}, "2 default via 10.137.0.6", "2 ::/0 via fd09::6"), "online; " + through + " via 10.137.0.6"},
		"IPv6's, if IPv4 has none":            {kernelWith([]device{eth0}, "2 default", "2 ::/0 via fd09::6"), "online; " + through + " via fd09::6"},
		"routes to the nameservers alone":     {kernelWith([]device{eth0}, "2 10.139.1.1/32", "2 10.137.0.6/32"), "limited; " + through},
		"routes of the kernel's own":          {kernelWith([]device{eth0}, "2 fe80::/64 kernel", "2 fd09::d/128 kernel"), "offline"},
		"no route at all":                     {kernelWith([]device{lo, eth0, vif}, "3 10.137.0.14/32"), "offline"},
		"nothing":                             {kernelWith(nil), "offline"},
		"a link that does not carry":          {kernelWith([]device{dead}, "2 default"), "offline"},
		"a device without an address":         {kernelWith([]device{bare}, "2 default"), "offline"},
		"a route of a device that went":       {kernelWith([]device{lo}, "2 default"), "offline"},
		"a default route that refuses":        {kernelWith([]device{eth0}, "2 default unreachable"), "offline"},
		"a default route over a vif":          {kernelWith([]device{vif}, "3 default"), "offline"},
		"a VPN with a better default route":   {kernelWith([]device{eth0, {"wg0", 4, true, "10.8.0.2/32", "wireguard"}}, "4 default", "2 default"), "online; wireguard wg0 10.8.0.2/32; " + through},
		"a VPN by a program of its own":       {kernelWith([]device{eth0, {"tun0", 4, true, "10.8.0.2/32", "tun"}}, "2 default", "4 default"), "online; " + through + "; tun VPN tun0 10.8.0.2/32"},
		"a VPN beside the way out is another": {kernelWith([]device{eth0, {"wg0", 4, true, "10.8.0.2/32", "wireguard"}}, "2 default", "4 10.8.0.0/24"), "online; " + through},
	} {
		t.Run(name, func(t *testing.T) {
			if got := chainedText(tc.kernel.wayOut()); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func chainedText(c netvm.Chained) string {
	out := string(c.State)
	for _, u := range c.Uplinks {
		out += "; " + u.Type
		if u.VPN {
			out += " VPN"
		}
		out += " " + u.Interface
		for _, a := range u.Addresses {
			out += " " + a.String()
		}
		if u.Gateway.IsValid() {
			out += " via " + u.Gateway.String()
		}
	}
	return out
}
