package main

import (
	"net/netip"
	"time"

	"netvmd/internal/netvm"
)

// statuses are what the stand-in may show. Their times lie far back, so that only days are printed.
var statuses = map[string]netvm.Status{
	"online": {
		Version: "1.2.3", State: netvm.Online, NMRunning: true,
		Uplinks: []netvm.Uplink{{ID: "Home", Type: "802-11-wireless", Interface: "wlp0s1", SSID: "Café \x1b[2J\u202edu Monde", Strength: 71,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}, Gateway: netip.MustParseAddr("192.0.2.1"), Metered: true}},
		DNSSource: "networkmanager", DNSReason: "neither systemd-resolved nor another program's resolv.conf takes precedence",
		DNSServers: []netvm.Resolver{{Addr: netip.MustParseAddr("192.0.2.53")}},
		DNSDropped: []netvm.Dropped{{Addr: netip.MustParseAddr("127.0.0.1"), Reason: "a loopback address"}},
		DNSTargets: []netvm.Target{
			{Virtual: netip.MustParseAddr("10.139.1.1"), Resolver: netvm.Resolver{Addr: netip.MustParseAddr("192.0.2.53")}},
			{Virtual: netip.MustParseAddr("10.139.1.2"), Resolver: netvm.Resolver{Addr: netip.MustParseAddr("192.0.2.53")}},
		},
		ChangedAt: time.UnixMicro(1_700_000_000_123_456), ApplyTime: 860 * time.Microsecond, Backend: "nftables",
		Vifs: []netvm.Vif{
			{Name: "vif4.0", DomID: 4, Addresses: []netip.Addr{netip.MustParseAddr("10.137.0.11")}, MAC: "00:16:3e:5e:6c:01",
				Gateway: netip.MustParseAddr("10.137.0.6"), Metric: 32748, State: netvm.VifUp, Since: time.UnixMicro(1_700_000_000_000_000)},
			{Name: "vif5.0", DomID: 5, Addresses: []netip.Addr{netip.MustParseAddr("10.137.0.12")}, MAC: "00:16:3e:5e:6c:02",
				Gateway: netip.MustParseAddr("10.137.0.6"), Metric: 32747, State: netvm.VifDegraded, Since: time.UnixMicro(1_700_000_001_000_000)},
		},
		Problems:   []string{"vif5.0 is degraded: the route to 10.137.0.12 is missing. It is mended as soon as that works."},
		Statistics: netvm.Statistics{Applies: 3, Coalesced: 2, Restored: 1, Latency: netvm.Latency{Count: 3, P50: 900 * time.Microsecond, P90: time.Millisecond, P99: 2 * time.Millisecond, Max: 3 * time.Millisecond}},
	},
	"offline": {
		Version: "1.2.3", State: netvm.Offline, NMRunning: true, DNSSource: "networkmanager", DNSReason: "no other source applies", Backend: "nftables",
		DNSTargets: []netvm.Target{{Virtual: netip.MustParseAddr("10.139.1.1")}, {Virtual: netip.MustParseAddr("10.139.1.2")}},
		ChangedAt:  time.UnixMicro(1_700_000_002_000_000), ApplyTime: 500 * time.Microsecond,
	},
}

// tally is what the stand-in says that the kernel counted.
var tally = netvm.Tally{
	Traffic:  []netvm.Traffic{{Vif: "vif4.0", RxBytes: 2048, RxPackets: 20, TxBytes: 1 << 20, TxPackets: 700}},
	Counters: []netvm.Counter{{Table: "ip netvmd", Name: "spoofed", Packets: 3, Bytes: 180}},
	Spoofed:  3, Unserved: 4, InputRejected: 17, ForwardRejected: 1,
}
