package report

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

var update = flag.Bool("update", false, "write what is printed into the golden files")

// now is when every text of these tests is written.
var now = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func TestMain(m *testing.M) {
	flag.Parse()
	time.Local = time.UTC
	os.Exit(m.Run())
}

// golden compares a text with testdata/<name>.txt, where colours are written as \e[32m to be readable.
func golden(t *testing.T, name, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "\x1b", `\e`)
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, a := range list {
		out[i] = netip.MustParseAddr(a)
	}
	return out
}

func leads(virtual, resolver string) netvm.Target {
	t := netvm.Target{Virtual: netip.MustParseAddr(virtual)}
	if resolver != "" {
		t.Resolver.Addr = netip.MustParseAddr(resolver)
	}
	return t
}

var (
	wifi = netvm.Uplink{ID: "Home", Type: "802-11-wireless", Interface: "wlp0s1", SSID: "Café du Monde", Strength: 71,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")},
		Gateway:   netip.MustParseAddr("192.0.2.1"), Metered: true}
	ethernet = netvm.Uplink{ID: "Wired connection 1", Type: "802-3-ethernet", Interface: "enp0s2",
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.20/24")}, Gateway: netip.MustParseAddr("198.51.100.1")}
	mobile = netvm.Uplink{ID: "LTE", Type: "gsm", Interface: "wwan0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/30")}, Gateway: netip.MustParseAddr("203.0.113.6"), Metered: true}
	vpn = netvm.Uplink{ID: "work", Type: "wireguard", Interface: "wg0", VPN: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.8.0.2/32")}}
)

func vifs(n int) []netvm.Vif {
	out := make([]netvm.Vif, n)
	for i := range out {
		id := i + 4
		out[i] = netvm.Vif{
			Name: fmt.Sprintf("vif%d.0", id), DomID: id, Addresses: addrs(fmt.Sprintf("10.137.0.%d", id+7)),
			MAC: fmt.Sprintf("00:16:3e:5e:6c:%02x", id), Gateway: netip.MustParseAddr("10.137.0.6"), Metric: 32752 - id,
			State: netvm.VifUp, Since: now.Add(-time.Duration(id) * time.Hour),
		}
	}
	return out
}

// chained makes it a netvm that another one serves, without NetworkManager.
func chained(s *netvm.Status) {
	s.NMRunning, s.Served = false, true
	s.Uplinks = []netvm.Uplink{{Type: netvm.TypeNetVM, Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.137.0.13/32")},
		Gateway: netip.MustParseAddr("10.137.0.6")}}
	s.DNSSource, s.DNSReason = "store", "another netvm serves this one, and nobody here names other resolvers"
	s.DNSTargets = []netvm.Target{leads("10.139.1.1", "10.139.1.1"), leads("10.139.1.2", "10.139.1.2")}
}

// online is a netvm where everything is well.
func online() netvm.Status {
	return netvm.Status{
		Version: "1.2.3", State: netvm.Online, NMRunning: true, Uplinks: []netvm.Uplink{ethernet},
		DNSSource: "networkmanager", DNSReason: "neither systemd-resolved nor another program's resolv.conf takes precedence",
		DNSServers: []netvm.Resolver{{Addr: netip.MustParseAddr("198.51.100.1")}, {Addr: netip.MustParseAddr("198.51.100.2")}},
		DNSTargets: []netvm.Target{leads("10.139.1.1", "198.51.100.1"), leads("10.139.1.2", "198.51.100.2")},
		ChangedAt:  now.Add(-7 * time.Minute), ApplyTime: 860 * time.Microsecond, Backend: "nftables", Vifs: vifs(3),
	}
}

// but is a status that differs from online.
func but(change func(*netvm.Status)) netvm.Status {
	s := online()
	change(&s)
	return s
}

func refuse(s *netvm.Status) {
	s.DNSServers = nil
	s.DNSTargets = []netvm.Target{leads("10.139.1.1", ""), leads("10.139.1.2", "")}
}

const noResolver = "AppVM DNS over IPv4 is refused: no resolver is announced (source: networkmanager). Set the network's DNS " +
	"servers in NetworkManager, or dns.servers in netvmd.toml."

// statuses are the situations that a user meets.
var statuses = map[string]netvm.Status{
	"offline": but(func(s *netvm.Status) { s.State, s.Uplinks = netvm.Offline, nil; refuse(s) }),
	"connecting": but(func(s *netvm.Status) {
		s.State, s.Uplinks, s.DNSSource, s.ChangedAt = netvm.Connecting, []netvm.Uplink{wifi}, "networkmanager", time.Time{}
		refuse(s)
	}),
	"limited": but(func(s *netvm.Status) { s.State = netvm.Limited }),
	"portal": but(func(s *netvm.Status) {
		s.State, s.Uplinks, s.PortalURL = netvm.Portal, []netvm.Uplink{wifi}, "http://nmcheck.gnome.org/check_network_status.txt"
	}),
	"portal-nowhere": but(func(s *netvm.Status) { s.State = netvm.Portal }),
	"no-networkmanager": but(func(s *netvm.Status) {
		s.NMRunning, s.State, s.Uplinks, s.DNSSource, s.DNSReason = false, netvm.Offline, nil, "config", "dns.servers is set"
	}),
	"chained": but(chained),
	"chained-offline": but(func(s *netvm.Status) {
		chained(s)
		s.State, s.Uplinks = netvm.Offline, nil
		refuse(s)
	}),
	"networkmanager-away": but(func(s *netvm.Status) { s.NMRunning = false }),
	"ethernet":            online(),
	"wifi":                but(func(s *netvm.Status) { s.Uplinks = []netvm.Uplink{wifi} }),
	"mobile":              but(func(s *netvm.Status) { s.Uplinks = []netvm.Uplink{mobile} }),
	"vpn":                 but(func(s *netvm.Status) { s.Uplinks = []netvm.Uplink{wifi, vpn} }),
	"vpn-first": but(func(s *netvm.Status) {
		s.Uplinks = []netvm.Uplink{vpn, ethernet}
	}),
	"unserved": but(func(s *netvm.Status) { refuse(s); s.Problems = []string{noResolver} }),
	"half-served": but(func(s *netvm.Status) {
		s.DNSTargets = append(s.DNSTargets, leads("fd00:139::1", ""))
	}),
	"overridden": but(func(s *netvm.Status) {
		s.DNSSource, s.DNSReason = "override", "set over D-Bus by netvmctl (pid 4711, user 0), until it leaves the bus"
		s.DNSServers, s.DNSTargets = s.DNSServers[:1], []netvm.Target{leads("10.139.1.1", "10.8.0.1"), leads("10.139.1.2", "10.8.0.1")}
		s.DNSOverrides = []netvm.Override{
			{Servers: addrs("10.8.0.1"), By: "netvmctl (pid 4711, user 0)", Since: now.Add(-time.Minute)},
			{Servers: addrs("9.9.9.9", "2620:fe::fe"), By: "netvmctl (pid 812, user 1000)", Since: now.Add(-49 * time.Hour), Persistent: true},
		}
		s.DNSDropped = []netvm.Dropped{{Addr: netip.MustParseAddr("127.0.0.53"),
			Reason: "a loopback address: a server inside the netvm is not reached by AppVMs"}}
	}),
	"fresh":         {State: netvm.Offline, NMRunning: true},
	"unknown-state": but(func(s *netvm.Status) { s.State, s.Uplinks, s.DNSSource = "hibernating\x07", nil, "oracle" }),
	"no-vifs":       but(func(s *netvm.Status) { s.Vifs = nil }),
	"40-vifs": but(func(s *netvm.Status) {
		s.Vifs = vifs(40)
		s.Vifs[30].State = netvm.VifDegraded
		s.Vifs[5].Addresses = append(s.Vifs[5].Addresses, netip.MustParseAddr("fd09:24ef:4179::a89:7a"))
	}),
	"problems": but(func(s *netvm.Status) {
		s.Vifs[1].State = netvm.VifDegraded
		s.Problems = []string{
			"vif5.0 is degraded: the route to 10.137.0.12 with metric 32747 is missing. It is mended.",
			"Somebody changed our rules (chain antispoof of ip netvmd). Restart netvmd, or set firewall.on_drift = \"restore\" in netvmd.toml.",
		}
	}),
	"hostile": but(func(s *netvm.Status) {
		evil := "\x1b]0;owned\x07\x1b[2Jnet\u202etxt.exe\u0085\u009b31m\n✓ Online"
		s.Uplinks = []netvm.Uplink{{ID: evil, Type: evil, Interface: "wlan\x1b[31m", SSID: evil, Strength: 255},
			{ID: strings.Repeat("x", 500), Type: "vpn", VPN: true}}
		s.DNSReason = evil
		s.Problems = []string{evil, strings.Repeat("y", 200)}
		s.DNSOverrides = []netvm.Override{{Servers: addrs("10.8.0.1"), By: evil}}
		s.DNSDropped = []netvm.Dropped{{Addr: netip.MustParseAddr("127.0.0.1"), Reason: evil}}
		s.Vifs[0].Name, s.Vifs[0].State, s.Vifs[0].MAC = "vif\x1b[8m4.0", "up\x7f", "00:\r16"
	}),
	"wide-script": but(func(s *netvm.Status) {
		s.Uplinks = []netvm.Uplink{{ID: "喫茶店の無線", Type: "802-11-wireless", Interface: "wlan0", SSID: "喫茶店 🍵 قهوة", Strength: 5}}
	}),
}

func TestStatusTellsAllInOneLook(t *testing.T) {
	for name, s := range statuses {
		t.Run(name, func(t *testing.T) { golden(t, "status-"+name, Status(Screen{}, s, now)) })
	}
}

func TestStatusOnOtherTerminals(t *testing.T) {
	golden(t, "status-narrow", Status(Screen{Width: 40}, statuses["problems"], now))
	golden(t, "status-tiny", Status(Screen{Width: 7}, statuses["ethernet"], now))
	golden(t, "status-colour", Status(Screen{Width: 80, Colour: true}, statuses["problems"], now))
	golden(t, "status-colour-bad", Status(Screen{Width: 80, Colour: true}, statuses["offline"], now))
}

func TestDNS(t *testing.T) {
	for _, name := range []string{"ethernet", "overridden", "unserved", "fresh", "hostile"} {
		t.Run(name, func(t *testing.T) { golden(t, "dns-"+name, DNS(Screen{}, statuses[name], now)) })
	}
	golden(t, "dns-targets", Targets(Screen{}, statuses["half-served"]))
}

func TestStatusOfAUsualNetvmFitsATerminal(t *testing.T) {
	for name, s := range statuses {
		if name == "hostile" {
			continue
		}
		lines := strings.Split(strings.TrimSuffix(Status(Screen{Width: 80}, s, now), "\n"), "\n")
		if len(lines) > 23 { // the prompt takes the 24th
			t.Errorf("%s: %d lines", name, len(lines))
		}
		for _, l := range lines {
			if words.Width(l) > 80 {
				t.Errorf("%s: %d columns: %s", name, words.Width(l), l)
			}
		}
	}
}

func hidden() []netvm.Vif {
	list := vifs(2)
	list[0].Visible, list[0].VisibleGateway = netip.MustParseAddr("192.168.0.2"), netip.MustParseAddr("192.168.0.1")
	list[1].Addresses = append(list[1].Addresses, netip.MustParseAddr("fd09:24ef:4179::a89:7a"))
	list[1].State, list[1].Since = netvm.VifDegraded, time.Time{}
	return append(list, netvm.Vif{Name: "vif9.1", DomID: 9, State: netvm.VifDegraded})
}

func TestVifs(t *testing.T) {
	golden(t, "vifs", Vifs(Screen{}, vifs(20), now))
	golden(t, "vifs-hidden", Vifs(Screen{}, hidden(), now))
	golden(t, "vifs-80-columns", Vifs(Screen{Width: 80, Colour: true}, hidden(), now))
	golden(t, "vifs-none", Vifs(Screen{Width: 80}, nil, now))
	golden(t, "vifs-hostile", Vifs(Screen{}, statuses["hostile"].Vifs, now))
}

var tally = netvm.Tally{
	Traffic: []netvm.Traffic{
		{Vif: "vif4.0", RxBytes: 1023, RxPackets: 9, TxBytes: 1 << 40, TxPackets: 1 << 33},
		{Vif: "vif5.0", RxBytes: 1536, RxPackets: 12, TxBytes: 0, TxPackets: 0},
	},
	Counters: []netvm.Counter{
		{Table: "ip netvmd", Name: "spoofed", Packets: 3, Bytes: 180}, {Table: "ip6 netvmd", Name: "spoofed"},
		{Table: "ip netvmd", Name: "input-rejected\x1b[2J", Packets: 17, Bytes: 2048},
	},
	Spoofed: 3, Unserved: 4, InputRejected: 17,
}

var counted = netvm.Statistics{Applies: 1, Coalesced: 12, Restored: 2, Latency: netvm.Latency{Count: 12,
	P50: 860 * time.Microsecond, P90: 2 * time.Millisecond, P99: 47 * time.Millisecond, Max: 1204 * time.Millisecond}}

func TestTrafficAndStatistics(t *testing.T) {
	golden(t, "traffic", Traffic(Screen{}, hidden(), tally.Traffic))
	golden(t, "statistics", Statistics(Screen{}, counted, tally))
	golden(t, "statistics-fresh", Statistics(Screen{}, netvm.Statistics{}, netvm.Tally{}))
}
