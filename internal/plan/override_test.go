package plan

import (
	"errors"
	"net/netip"
	"testing"

	"netvmd/internal/netvm"
)

var (
	living     = netvm.Override{By: "wg-quick (pid 4711, user 0)", Holder: ":1.42"}
	persistent = netvm.Override{By: "netvmctl (pid 4712, user 0)", Persistent: true}
)

func override(o netvm.Override, servers string) env {
	return func(in *Inputs) { in.Override, in.Override.Servers = o, addrs(servers) }
}

func TestDecideWithAnOverride(t *testing.T) {
	checkDecisions(t, []decisionCase{{
		name: "an override comes before everything",
		env:  environment(override(living, "203.0.113.1 203.0.113.2"), configured("192.0.2.99"), resolved("0/192.0.2.1"), nm("wlan0 100 192.0.2.53")),
		want: `
override: set over D-Bus by wg-quick (pid 4711, user 0), until it leaves the bus
10.139.1.1 -> 203.0.113.1
10.139.1.2 -> 203.0.113.2
`}, {
		name: "an override counts without an uplink",
		env:  environment(override(persistent, "203.0.113.1"), state(netvm.Offline)),
		want: `
override: set over D-Bus by netvmctl (pid 4712, user 0), persistently
10.139.1.1 -> 203.0.113.1
10.139.1.2 -> 203.0.113.1
`}, {
		name: "a server of an override that is no resolver any more is dropped",
		env:  environment(override(living, "192.0.2.7 203.0.113.1"), own("192.0.2.7")),
		want: `
override: set over D-Bus by wg-quick (pid 4711, user 0), until it leaves the bus
10.139.1.1 -> 203.0.113.1
10.139.1.2 -> 203.0.113.1
not 192.0.2.7: an address of the netvm itself
`}, {
		name: "an override of which nothing is left does not let queries out beside it",
		env:  environment(override(persistent, "192.0.2.7"), own("192.0.2.7"), nm("wlan0 100 192.0.2.53")),
		want: `
override: set over D-Bus by netvmctl (pid 4712, user 0), persistently
10.139.1.1 -> refused
10.139.1.2 -> refused
not 192.0.2.7: an address of the netvm itself
! AppVM DNS over IPv4 is refused: none of the 1 announced resolvers can be used (source: override; the first, 192.0.2.7, is an address of the netvm itself). Set other servers with ` + "`netvmctl dns set --persistent`, or end the override with `netvmctl dns clear`" + `.
`}, {
		name: "an override of IPv4 only leaves IPv6 refused",
		env:  environment(override(living, "203.0.113.1"), virtual("10.139.1.1 fd00::1"), nm("wlan0 100 2001:db8::53")),
		want: `
override: set over D-Bus by wg-quick (pid 4711, user 0), until it leaves the bus
10.139.1.1 -> 203.0.113.1
fd00::1 -> refused
! AppVM DNS over IPv6 is refused: the override's usable servers are all of the other family, and no query may pass by them. Have wg-quick (pid 4711, user 0) set other servers, or end it.
`}, {
		name: "servers of the configuration that cannot be used are mended there",
		env:  environment(configured("127.0.0.1")),
		want: `
config: dns.servers is set in the configuration
10.139.1.1 -> refused
10.139.1.2 -> refused
not 127.0.0.1: a loopback address: a server inside the netvm is not reached by AppVMs
! AppVM DNS over IPv4 is refused: none of the 1 announced resolvers can be used (source: config; the first, 127.0.0.1, is a loopback address: a server inside the netvm is not reached by AppVMs). Set other servers in dns.servers in netvmd.toml, or none there.
`},
	})
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name, servers string
		env           []env
		want          string
	}{
		{"two servers", "192.0.2.53 2001:db8::53", nil, ""},
		{"an own address", "192.0.2.53 192.0.2.9", environment(own("192.0.2.9")), "server 192.0.2.9 cannot be used: it is an address of the netvm itself"},
		{"a loopback address", "127.0.0.53", nil, "server 127.0.0.53 cannot be used: it is a loopback address: a server inside the netvm is not reached by AppVMs"},
		{"a virtual address", "10.139.1.2", nil, "server 10.139.1.2 cannot be used: it is a virtual DNS address itself"},
		{"a virtual address behind another netvm", "10.139.1.2", environment(servedByNetvm), ""},
		{"a multicast address", "224.0.0.251", nil, "server 224.0.0.251 cannot be used: it is a multicast or broadcast address"},
		{"a link-local address", "fe80::1%eth0", nil, "server fe80::1%eth0 cannot be used: it is a link-local address"},
		{"the unspecified address", "192.0.2.53 ::", nil, "server :: cannot be used: it is the unspecified address"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := Inputs{Virtual: addrs(qubes)}
			for _, e := range tc.env {
				e(&in)
			}
			err := Check(addrs(tc.servers), in)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if invalid := netvm.InvalidError(""); err != nil && !errors.As(err, &invalid) {
				t.Errorf("%T is no InvalidError", err)
			}
		})
	}
	if err := Check([]netip.Addr{{}}, Inputs{}); err == nil {
		t.Error("the zero Addr is usable")
	}
}
