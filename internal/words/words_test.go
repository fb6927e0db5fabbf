package words

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"netvmd/internal/netvm"
)

func TestUplinksAreNamedAsPeopleDo(t *testing.T) {
	cable := netvm.Uplink{Type: "802-3-ethernet", ID: "desk", Interface: "eth0"}
	wifi := netvm.Uplink{Type: "802-11-wireless", ID: "Home", SSID: "Café", Interface: "wlan0"}
	plugin := netvm.Uplink{Type: "vpn", ID: "work", VPN: true}
	wireguard := netvm.Uplink{Type: "wireguard", ID: "exit"}
	for want, uplinks := range map[string][]netvm.Uplink{
		"":                                      nil,
		`Ethernet "desk"`:                       {cable, wifi},
		`Wi-Fi "Café"`:                          {wifi},
		`another netvm`:                         {{Type: netvm.TypeNetVM, Interface: "eth0"}},
		`uplink "usb0"`:                         {{Interface: "usb0"}},
		`wpan VPN ""`:                           {{Type: "wpan", VPN: true}},
		`mobile "LTE"`:                          {{Type: "cdma", ID: "LTE"}},
		`VPN "work"`:                            {plugin, wireguard},
		`Wi-Fi "Café" and VPN "work"`:           {wifi, cable, plugin},
		`Wi-Fi "Café" and WireGuard VPN "exit"`: {wifi, wireguard},
		`VPN "work" over Ethernet "desk"`:       {plugin, cable},
	} {
		if got := WayOut(uplinks); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHowFarAppVMDNSIsServed(t *testing.T) {
	served := netvm.Target{Virtual: netip.MustParseAddr("10.139.1.1"), Resolver: netvm.Resolver{Addr: netip.MustParseAddr("192.0.2.1")}}
	unserved := netvm.Target{Virtual: netip.MustParseAddr("10.139.1.2")}
	for want, c := range map[string]struct {
		status  netvm.Status
		service Service
	}{
		"AppVM DNS is not led anywhere yet.":  {netvm.Status{DNSSource: "override"}, Unled},
		"AppVM DNS is refused.":               {netvm.Status{DNSTargets: []netvm.Target{unserved, unserved}}, Unserved},
		"AppVM DNS is refused on 10.139.1.2.": {netvm.Status{DNSTargets: []netvm.Target{served, unserved}}, PartlyServed},
		"AppVM DNS is served.":                {netvm.Status{DNSTargets: []netvm.Target{served}}, Served},
		"AppVM DNS is served by an override.": {netvm.Status{DNSTargets: []netvm.Target{served}, DNSSource: "override"}, Served},
	} {
		if service, got := AppVMDNS(c.status); got != want || service != c.service {
			t.Errorf("got %q (%d), want %q (%d)", got, service, want, c.service)
		}
	}
}

func TestNumbersAndTimesAreRoundedForPeople(t *testing.T) {
	now := time.Date(2026, 3, 14, 15, 9, 26, 0, time.Local)
	for want, got := range map[string]string{
		"0 B": Size(0), "1023 B": Size(1023), "1.0 KiB": Size(1024), "16.0 EiB": Size(1<<64 - 1),
		"0.86 ms": Took(860 * time.Microsecond), "47 ms": Took(47 * time.Millisecond), "1.2 s": Took(1204 * time.Millisecond),
		"1 vif": Count(1, "vif"), "0 vifs": Count(0, "vif"),
		"unknown": Stamp(time.Time{}, now), "14:09:26": Stamp(now.Add(-time.Hour), now), "2026-03-13 15:09": Stamp(now.AddDate(0, 0, -1), now),
		"15:08:56 (30 s ago)": Moment(now.Add(-30*time.Second), now), "15:09:36": Moment(now.Add(10*time.Second), now),
		"none": Address(netip.Addr{}, "none"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestLongNamesAreCut(t *testing.T) {
	if got := Quoted(strings.Repeat("é", 60)); got != `"`+strings.Repeat("é", 48)+`…"` {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct{ in, want string }{
		{"Café", "Café"}, {"Cafés", "Café…"}, {"喫茶", "喫茶"}, {"喫茶店", "喫茶…"}, {"a喫茶", "a喫…"},
		{"e\u0301\u0301\u0301\u0301", "e\u0301\u0301\u0301…"}, {"", ""},
	} {
		if got := Clip(c.in, 4); got != c.want {
			t.Errorf("%q became %q, want %q", c.in, got, c.want)
		}
	}
}
