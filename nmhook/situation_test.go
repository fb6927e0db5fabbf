package nmhook

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

// TestWhatNetworkManagerCanBe shows the watcher what cannot be had on any machine, one situation after another, without a
// restart between: each is followed from the one before by NetworkManager's signals alone.
func TestWhatNetworkManagerCanBe(t *testing.T) {
	wifi := netvm.Uplink{ID: "home", Type: wifiType, Interface: "wlan0", SSID: "Café du Monde", Strength: 80,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::9/64")},
		Gateway:   netip.MustParseAddr("192.0.2.1")}
	weak, roamed, cleaned := wifi, wifi, wifi
	weak.Strength = 7
	roamed.SSID, roamed.Strength = "\x1b[2J\xff\x00 <b>free</b>", 33
	cleaned.SSID, cleaned.Strength = "\x1b[2J\uFFFD\x00 <b>free</b>", 33
	mobile := netvm.Uplink{ID: "LTE", Type: "gsm", Interface: "wwan0", Metered: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/30")}, Gateway: netip.MustParseAddr("203.0.113.6")}
	wireguard := netvm.Uplink{ID: "work", Type: "wireguard", Interface: "wg0", VPN: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.8.0.2/32")}}
	with := func(uplinks ...netvm.Uplink) (list []fakebus.Uplink) {
		for _, u := range uplinks {
			list = append(list, fakebus.Uplink{Uplink: u})
		}
		return list
	}

	startBus(t)
	n, err := fakebus.NewNetworkManager(busAddress())
	f := faked(t, n.Service, err)
	f.own()
	w := watch(t)
	w.next("the first")
	for _, step := range []struct {
		name string
		says fakebus.Situation
		want netvm.View // State, PortalURL and Uplinks
	}{
		{"Wi-Fi comes up", fakebus.Situation{State: netvm.Connecting}, netvm.View{State: netvm.Connecting}},
		{"Wi-Fi is up", fakebus.Situation{Uplinks: with(wifi)}, netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{wifi}}},
		{"it grows weak", fakebus.Situation{Uplinks: with(weak)}, netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{weak}}},
		{"another access point takes over", fakebus.Situation{Uplinks: with(roamed)},
			netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{cleaned}}},
		{"back to the first", fakebus.Situation{Uplinks: with(wifi)}, netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{wifi}}},
		{"a portal is in the way", fakebus.Situation{State: netvm.Portal, CheckURI: "http://example.org/", Uplinks: with(wifi)},
			netvm.View{State: netvm.Portal, PortalURL: "http://example.org/", Uplinks: []netvm.Uplink{wifi}}},
		{"there is no Internet", fakebus.Situation{State: netvm.Limited, CheckURI: "http://example.org/", Uplinks: with(wifi)},
			netvm.View{State: netvm.Limited, Uplinks: []netvm.Uplink{wifi}}},
		{"the modem comes beside it", fakebus.Situation{Uplinks: with(mobile, wifi)},
			netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{mobile, wifi}}},
		{"a VPN over the modem", fakebus.Situation{Uplinks: with(wireguard, mobile)},
			netvm.View{State: netvm.Online, Uplinks: []netvm.Uplink{wireguard, mobile}}},
		{"all is gone", fakebus.Situation{}, netvm.View{State: netvm.Offline}},
	} {
		t.Run(step.name, func(t *testing.T) {
			w.t = t
			must(t, n.Show(patiently(t), step.says))
			w.until("what it says", func(v netvm.View) bool {
				got := netvm.View{State: v.State, PortalURL: v.PortalURL, Uplinks: v.Uplinks}
				return len(v.Faults) == 0 && cmp.Equal(step.want, got, comparable)
			})
		})
	}
}
