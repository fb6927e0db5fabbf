package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
)

// The network of these tests. Addresses are from the ranges reserved for documentation.
const qubes = "10.139.1.1 10.139.1.2"

func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for _, f := range strings.Fields(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// entry is "interface priority server…".
func entry(s string) netvm.DNSEntry {
	var e netvm.DNSEntry
	f := strings.SplitN(s, " ", 3)
	e.Interface = f[0]
	if _, err := fmt.Sscan(f[1], &e.Priority); err != nil {
		panic(err)
	}
	if len(f) == 3 {
		e.Servers = addrs(f[2])
	}
	return e
}

type env func(*Inputs)

func nm(entries ...string) env {
	return func(in *Inputs) {
		in.View.NetworkManager.Running = true
		for _, e := range entries {
			in.View.NetworkManager.Entries = append(in.View.NetworkManager.Entries, entry(e))
		}
	}
}

func nmGone(in *Inputs) { in.View.NetworkManager.Running = false }

// resolved takes "link/address" words; link 0 is global.
func resolved(servers string) env {
	return func(in *Inputs) {
		in.View.Resolved.Running = true
		for _, f := range strings.Fields(servers) {
			link, addr, _ := strings.Cut(f, "/")
			s := netvm.ResolvedServer{Resolver: netvm.Resolver{Addr: netip.MustParseAddr(addr)}}
			if link != "0" {
				s.Link, s.Resolver.Interface = 2, link
			}
			in.View.Resolved.Servers = append(in.View.Resolved.Servers, s)
		}
	}
}

func file(owner netvm.ResolvConfOwner, servers string) env {
	return func(in *Inputs) {
		in.View.ResolvConf = netvm.ResolvConf{Path: "/etc/resolv.conf", Owner: owner, Servers: addrs(servers)}
	}
}

func virtual(s string) env       { return func(in *Inputs) { in.Virtual = addrs(s) } }
func own(s string) env           { return func(in *Inputs) { in.Own = addrs(s) } }
func configured(s string) env    { return func(in *Inputs) { in.Configured = addrs(s) } }
func source(s string) env        { return func(in *Inputs) { in.Source = s } }
func state(s netvm.State) env    { return func(in *Inputs) { in.View.State = s } }
func servedByNetvm(in *Inputs)   { in.PassThrough = true }
func environment(e ...env) []env { return e }

// text is a decision as a reader would write it down.
func text(d Decision) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", d.Source, d.Reason)
	for _, t := range d.Targets {
		to := "refused"
		if t.Served() {
			to = strings.TrimSuffix(t.Resolver.Addr.String()+" "+t.Resolver.Interface, " ")
		}
		fmt.Fprintf(&b, "%s -> %s\n", t.Virtual, to)
	}
	for _, x := range d.Dropped {
		fmt.Fprintf(&b, "not %s: %s\n", x.Addr, x.Reason)
	}
	for _, p := range d.Problems {
		fmt.Fprintf(&b, "! %s\n", p)
	}
	return b.String()
}

// decisionCase is an environment, and the decision in it as text.
type decisionCase struct {
	name string
	env  []env
	want string
}

func checkDecisions(t *testing.T, cases []decisionCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			in := Inputs{Virtual: addrs(qubes), View: netvm.View{State: netvm.Online}}
			for _, e := range tc.env {
				e(&in)
			}
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), text(Decide(in))); diff != "" {
				t.Errorf("the decision differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	checkDecisions(t, []decisionCase{{
		name: "two resolvers serve the two virtual addresses in order",
		env:  environment(nm("wlan0 100 192.0.2.53 192.0.2.54")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.54 wlan0
`}, {
		name: "one resolver serves both virtual addresses",
		env:  environment(nm("wlan0 100 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "a third resolver is not used while two are announced before it",
		env:  environment(nm("wlan0 100 192.0.2.53", "eth0 100 198.51.100.1 198.51.100.2")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 198.51.100.1 eth0
`}, {
		name: "a resolver announced twice counts once",
		env:  environment(nm("wlan0 100 192.0.2.53", "eth0 100 192.0.2.53 198.51.100.1")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 198.51.100.1 eth0
`}, {
		name: "without an uplink both are refused and that is no problem of its own",
		env:  environment(nm(), state(netvm.Offline)),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> refused
10.139.1.2 -> refused
`}, {
		name: "online without a resolver is a problem",
		env:  environment(nm("wlan0 100")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> refused
10.139.1.2 -> refused
! AppVM DNS over IPv4 is refused: no resolver is announced (source: networkmanager). Set the network's DNS servers in NetworkManager, or dns.servers in netvmd.toml.
`}, {
		name: "a negative priority excludes the rest",
		env:  environment(nm("tun0 -50 203.0.113.1", "wlan0 100 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence; the negative dns-priority -50 excludes the other entries
10.139.1.1 -> 203.0.113.1 tun0
10.139.1.2 -> 203.0.113.1 tun0
`}, {
		name: "only the most negative priority counts",
		env:  environment(nm("tun0 -50 203.0.113.1", "tun1 -50 203.0.113.2", "wlan0 -40 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence; the negative dns-priority -50 excludes the other entries
10.139.1.1 -> 203.0.113.1 tun0
10.139.1.2 -> 203.0.113.2 tun1
`}, {
		name: "a VPN of positive priority comes first and the uplink second",
		env:  environment(nm("tun0 50 203.0.113.1", "wlan0 100 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 203.0.113.1 tun0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "resolvers of IPv6 only leave the IPv4 addresses refused",
		env:  environment(nm("wlan0 100 2001:db8::53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> refused
10.139.1.2 -> refused
! AppVM DNS over IPv4 is refused: the usable resolvers are all of the other family (source: networkmanager). Set the network's DNS servers in NetworkManager, or dns.servers in netvmd.toml.
`}, {
		name: "each family is served by its own resolvers",
		env:  environment(virtual(qubes+" fd00::1 fd00::2"), nm("wlan0 100 2001:db8::53 192.0.2.53 2001:db8::54")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
fd00::1 -> 2001:db8::53 wlan0
fd00::2 -> 2001:db8::54 wlan0
`}, {
		name: "an IPv4 address written as IPv6 is IPv4",
		env:  environment(nm("wlan0 100 ::ffff:192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "addresses that make no resolver are dropped with the reason",
		env: environment(own("192.0.2.7"), nm("wlan0 100 127.0.0.53 0.0.0.0 224.0.0.251 255.255.255.255 169.254.1.1 "+
			"::1 fe80::1%wlan0 10.139.1.2 192.0.2.7 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
not 127.0.0.53: a loopback address: a server inside the netvm is not reached by AppVMs
not 0.0.0.0: the unspecified address
not 224.0.0.251: a multicast or broadcast address
not 255.255.255.255: a multicast or broadcast address
not 169.254.1.1: a link-local address
not ::1: a loopback address: a server inside the netvm is not reached by AppVMs
not fe80::1%wlan0: a link-local address
not 10.139.1.2: a virtual DNS address itself
not 192.0.2.7: an address of the netvm itself
`}, {
		name: "when all are dropped the problem names the first and why",
		env:  environment(nm("wlan0 100 127.0.0.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> refused
10.139.1.2 -> refused
not 127.0.0.53: a loopback address: a server inside the netvm is not reached by AppVMs
! AppVM DNS over IPv4 is refused: none of the 1 announced resolvers can be used (source: networkmanager; the first, 127.0.0.53, is a loopback address: a server inside the netvm is not reached by AppVMs). Set the network's DNS servers in NetworkManager, or dns.servers in netvmd.toml.
`}, {
		name: "behind another netvm a virtual address passes through",
		env:  environment(servedByNetvm, file(netvm.ResolvConfOther, qubes)),
		want: `
resolv.conf: /etc/resolv.conf was written by another program than NetworkManager and systemd-resolved
10.139.1.1 -> 10.139.1.1
10.139.1.2 -> 10.139.1.2
`}, {
		name: "behind another netvm a loopback address is dropped all the same",
		env:  environment(servedByNetvm, file(netvm.ResolvConfOther, "127.0.0.1 10.139.1.1")),
		want: `
resolv.conf: /etc/resolv.conf was written by another program than NetworkManager and systemd-resolved
10.139.1.1 -> 10.139.1.1
10.139.1.2 -> 10.139.1.1
not 127.0.0.1: a loopback address: a server inside the netvm is not reached by AppVMs
`}, {
		name: "dns.servers wins over everything",
		env:  environment(configured("192.0.2.99"), resolved("0/192.0.2.1"), nm("wlan0 100 192.0.2.53")),
		want: `
config: dns.servers is set in the configuration
10.139.1.1 -> 192.0.2.99
10.139.1.2 -> 192.0.2.99
`}, {
		name: "systemd-resolved wins over the file and NetworkManager",
		env:  environment(resolved("eth0/192.0.2.1"), file(netvm.ResolvConfOther, "192.0.2.2"), nm("wlan0 100 192.0.2.53")),
		want: `
resolved: systemd-resolved is running
10.139.1.1 -> 192.0.2.1 eth0
10.139.1.2 -> 192.0.2.1 eth0
`}, {
		name: "resolved's global servers exclude those of links",
		env:  environment(resolved("wlan0/192.0.2.1 0/203.0.113.1")),
		want: `
resolved: systemd-resolved is running; its global servers exclude those of links
10.139.1.1 -> 203.0.113.1
10.139.1.2 -> 203.0.113.1
`}, {
		name: "another program's resolv.conf wins over NetworkManager",
		env:  environment(file(netvm.ResolvConfOther, "203.0.113.1"), nm("wlan0 100 192.0.2.53")),
		want: `
resolv.conf: /etc/resolv.conf was written by another program than NetworkManager and systemd-resolved
10.139.1.1 -> 203.0.113.1
10.139.1.2 -> 203.0.113.1
`}, {
		name: "NetworkManager's own resolv.conf is no source",
		env:  environment(file(netvm.ResolvConfNetworkManager, "203.0.113.1"), nm("wlan0 100 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "a resolv.conf without nameservers is no source",
		env:  environment(file(netvm.ResolvConfOther, ""), nm("wlan0 100 192.0.2.53")),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "dns.source asks for NetworkManager although resolved runs",
		env:  environment(source(NetworkManager), resolved("0/203.0.113.1"), nm("wlan0 100 192.0.2.53")),
		want: `
networkmanager: dns.source asks for NetworkManager
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`}, {
		name: "dns.source asks for a resolved that does not run",
		env:  environment(source(Resolved), nm("wlan0 100 192.0.2.53")),
		want: `
resolved: dns.source asks for systemd-resolved; it is not running
10.139.1.1 -> refused
10.139.1.2 -> refused
! AppVM DNS over IPv4 is refused: no resolver is announced (source: resolved). Set the network's DNS servers in NetworkManager, or dns.servers in netvmd.toml.
`}, {
		name: "dns.source asks for a resolv.conf that is not there",
		env:  environment(source(ResolvConf), file(netvm.ResolvConfAbsent, ""), state(netvm.Offline)),
		want: `
resolv.conf: dns.source asks for /etc/resolv.conf; the file is not there
10.139.1.1 -> refused
10.139.1.2 -> refused
`}, {
		name: "a NetworkManager that is away leaves its last word",
		env:  environment(nm("wlan0 100 192.0.2.53"), nmGone),
		want: `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence; it is not running, its last word counts
10.139.1.1 -> 192.0.2.53 wlan0
10.139.1.2 -> 192.0.2.53 wlan0
`},
	})
}

// FuzzDecide checks what must hold of every decision, whatever was announced.
func FuzzDecide(f *testing.F) {
	f.Add("192.0.2.53 127.0.0.1", "", qubes, "192.0.2.7", false)
	f.Add("10.139.1.1 fe80::1%eth0", "192.0.2.99 127.0.0.1", qubes+" fd00::1", "", true)
	f.Fuzz(func(t *testing.T, announced, override, virtual, own string, passThrough bool) {
		parse := func(s string) (out []netip.Addr) {
			for _, w := range strings.Fields(s) {
				if a, err := netip.ParseAddr(w); err == nil {
					out = append(out, a.Unmap())
				}
			}
			return out
		}
		in := Inputs{Virtual: parse(virtual), Own: parse(own), PassThrough: passThrough}
		in.View.NetworkManager.Entries = []netvm.DNSEntry{{Interface: "eth0", Servers: parse(announced)}}
		in.Override.Servers = parse(override)
		d := Decide(in)
		if len(d.Targets) != len(in.Virtual) {
			t.Fatalf("%d targets for %d virtual addresses", len(d.Targets), len(in.Virtual))
		}
		for _, x := range d.Targets {
			a := x.Resolver.Addr
			if !x.Served() {
				continue
			}
			if len(in.Override.Servers) > 0 && !slices.Contains(in.Override.Servers, a) {
				t.Errorf("%s leads to %s, beside the override", x.Virtual, a)
			}
			if a.Is4() != x.Virtual.Is4() {
				t.Errorf("%s leads to %s of the other family", x.Virtual, a)
			}
			if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
				t.Errorf("%s leads to %s", x.Virtual, a)
			}
			for _, v := range in.Virtual {
				if v == a && !passThrough {
					t.Errorf("%s leads to the virtual address %s", x.Virtual, a)
				}
			}
		}
	})
}
