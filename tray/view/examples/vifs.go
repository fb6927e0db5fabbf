package examples

import (
	"fmt"
	"net/netip"
	"time"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
)

// vifs has what differs in the AppVMs' cards.
func vifs() []Example {
	many := func(n int) view.Known { return online(func(s *netvm.Status) { s.Vifs = vifsOf(n) }) }
	forty := many(40)
	forty.Status.Vifs[30].State = netvm.VifDegraded
	forty.Status.Vifs[5].Addresses = append(forty.Status.Vifs[5].Addresses, netip.MustParseAddr("fd09:24ef:4179::a89:7a"))
	return []Example{
		{"no-vifs", many(0)}, {"8-vifs", many(8)}, {"12-vifs", many(12)}, {"40-vifs", forty}, {"300-vifs", many(300)},
		{"menu-open", opened(online(uplinks(wifi(71)), hide))}, {"menu-open-40-vifs", opened(many(40))},
	}
}

// vifsOf makes vifs of domains from 4 on.
func vifsOf(n int) []netvm.Vif {
	out := make([]netvm.Vif, n)
	for i := range out {
		id := i + 4
		out[i] = netvm.Vif{
			Name: fmt.Sprintf("vif%d.0", id), DomID: id,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 137, byte((id + 7) / 256), byte((id + 7) % 256)})},
			MAC:       fmt.Sprintf("00:16:3e:5e:%02x:%02x", id/256, id%256), Gateway: netip.MustParseAddr("10.137.0.6"),
			Metric: 32752 - id, State: netvm.VifUp, Since: Now.Add(-time.Duration(id) * time.Hour),
		}
	}
	return out
}

// hide gives the first AppVM another address than the netvm uses, the second an IPv6 address, and the third no route.
func hide(s *netvm.Status) {
	s.Vifs[0].Visible, s.Vifs[0].VisibleGateway = netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.1")
	s.Vifs[1].Addresses = append(s.Vifs[1].Addresses, netip.MustParseAddr("fd09:24ef:4179::a89:7a"))
	s.Vifs[1].Gateway6 = netip.MustParseAddr("fd09:24ef:4179::a89:1")
	s.Vifs[2].State = netvm.VifDegraded
}

// opened adds what is read while the menu is open. A degraded vif lacks its route.
func opened(k view.Known) view.Known {
	none, host := netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255")
	for i, u := range k.Status.Uplinks {
		k.Routes = append(k.Routes, netvm.Route{Destination: none, Gateway: u.Gateway, Genmask: none, Flags: "UG",
			Metric: uint32(100 + i), Interface: u.Interface})
	}
	for i, v := range k.Status.Vifs {
		k.Traffic = append(k.Traffic, netvm.Traffic{Vif: v.Name, RxBytes: uint64(i) * 1536, RxPackets: uint64(i) * 12,
			TxBytes: uint64(i) << 24, TxPackets: uint64(i) << 14})
		if v.State == netvm.VifUp {
			k.Routes = append(k.Routes, netvm.Route{Destination: v.Addresses[0], Gateway: none, Genmask: host, Flags: "UH",
				Metric: uint32(v.Metric), Interface: v.Name})
		}
	}
	return k
}

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, a := range list {
		out[i] = netip.MustParseAddr(a)
	}
	return out
}
