package view_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

func TestThereIsAnExampleOfEachIconInItsOrder(t *testing.T) {
	all := examples.All()
	for i, icon := range view.Icons {
		if got := view.Of(all[i].Known).Icon; got != icon {
			t.Errorf("%s shows %s, want %s", all[i].Name, got, icon)
		}
	}
}

func TestTheIconShowsWhatMattersMost(t *testing.T) {
	everything := func(change func(*view.Known)) view.Known {
		k := known(t, "dns-unserved")
		k.Status.Uplinks = known(t, "vpn-over-wifi").Status.Uplinks
		k.Status.Vifs[0].State = netvm.VifDegraded
		k.Status.State = netvm.Portal
		change(&k)
		return k
	}
	served := func(k *view.Known) {
		k.Status.State, k.Status.DNSTargets = netvm.Online, known(t, "ethernet").Status.DNSTargets
	}
	for name, c := range map[string]struct {
		known view.Known
		want  view.Icon
	}{
		"netvmd first":                        {everything(func(k *view.Known) { k.Running = false }), view.Stopped},
		"then NetworkManager":                 {everything(func(k *view.Known) { k.Status.NMRunning = false }), view.Unmanaged},
		"then the state":                      {everything(func(*view.Known) {}), view.Portal},
		"then DNS":                            {everything(func(k *view.Known) { k.Status.State = netvm.Online }), view.Unserved},
		"then problems":                       {everything(served), view.Problem},
		"a degraded vif is one":               {everything(func(k *view.Known) { served(k); k.Status.Problems = nil }), view.Problem},
		"so is a state that nobody knows":     {known(t, "unknown-state"), view.Problem},
		"so is DNS that is served in part":    {known(t, "dns-partly-served"), view.Problem},
		"DNS that is not led is not served":   {known(t, "dns-not-led-yet"), view.Unserved},
		"a VPN beside the primary":            {known(t, "vpn-over-wifi"), view.VPN},
		"a VPN that is the primary":           {known(t, "vpn-first"), view.VPN},
		"WireGuard, not called a VPN":         {known(t, "wireguard-over-ethernet"), view.VPN},
		"an override is no problem":           {known(t, "dns-overridden"), view.Wired},
		"Wi-Fi of 33 %":                       {strength(33), view.WirelessWeak},
		"Wi-Fi of 34 %":                       {strength(34), view.WirelessFair},
		"Wi-Fi of 66 %":                       {strength(66), view.WirelessFair},
		"Wi-Fi of 67 %":                       {strength(67), view.WirelessGood},
		"online through nothing that is told": {through(), view.Wired},
		"an old modem":                        {through(netvm.Uplink{Type: "cdma"}), view.Mobile},
		"a modem beside a cable":              {through(netvm.Uplink{Type: "802-3-ethernet"}, netvm.Uplink{Type: "gsm"}), view.Wired},
	} {
		t.Run(name, func(t *testing.T) {
			if got := view.Of(c.known).Icon; got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func strength(percent uint8) view.Known {
	return through(netvm.Uplink{Type: "802-11-wireless", Strength: percent})
}

func through(uplinks ...netvm.Uplink) view.Known {
	k, _ := examples.Named("ethernet")
	k.Status.Uplinks = uplinks
	return k
}

// rowsOf finds the rows with an action, wherever they are.
func rowsOf(a view.Action, rows []view.Row) []view.Row {
	var out []view.Row
	for _, r := range rows {
		if r.Action == a {
			out = append(out, r)
		}
		out = append(out, rowsOf(a, r.Rows)...)
	}
	return out
}

func TestEveryActionHasOnePlaceAndSaysWhyItCannotBeDone(t *testing.T) {
	k := known(t, "portal")
	actions := []view.Action{view.Refresh, view.Edit, view.Login, view.CopyReport, view.SaveReport, view.Quit}
	for _, a := range actions {
		k.Doing, k.Hindered = view.None, nil
		rows := rowsOf(a, view.Of(k).Menu)
		if len(rows) != 1 || rows[0].Disabled {
			t.Fatalf("%s: %+v", a, rows)
		}
		idle := rows[0].Text
		k.Hindered = map[view.Action]string{a: "the moon is full"}
		if r := rowsOf(a, view.Of(k).Menu)[0]; !r.Disabled || r.Text != idle+": the moon is full" {
			t.Errorf("hindered, %s is %+v", a, r)
		}
		k.Hindered, k.Doing = nil, a
		for _, other := range actions {
			r := rowsOf(other, view.Of(k).Menu)[0]
			if r.Disabled != (other != view.Quit) {
				t.Errorf("during %s, %s is %+v", a, other, r)
			}
			if other == a && (r.Text == idle || !strings.HasSuffix(r.Text, "…")) {
				t.Errorf("during %s, it reads %q", a, r.Text)
			}
		}
	}
}

func TestAPortalIsOfferedWhileItWaitsAlone(t *testing.T) {
	for _, e := range examples.All() {
		offered := len(rowsOf(view.Login, view.Of(e.Known).Menu)) == 1
		if waits := e.Known.Status.State == netvm.Portal; offered != waits {
			t.Errorf("%s: offered: %v, waits: %v", e.Name, offered, waits)
		}
	}
}

func TestTheSameIsShownOfTheSame(t *testing.T) {
	for _, e := range examples.All() {
		if a, b := text(view.Of(e.Known)), text(view.Of(e.Known)); a != b {
			t.Errorf("%s: first %s, then %s", e.Name, a, b)
		}
	}
}

// below are the texts of the rows under a place at the top level, by the words with which that begins.
func below(t *testing.T, k view.Known, heading string) []string {
	t.Helper()
	for _, r := range view.Of(k).Menu {
		if strings.HasPrefix(r.Text, heading) {
			var out []string
			for _, row := range r.Rows {
				out = append(out, row.Text)
			}
			return out
		}
	}
	t.Fatalf("there is no %q", heading)
	return nil
}

func TestLongListsSayHowMuchTheyLeaveOut(t *testing.T) {
	k := known(t, "ethernet")
	s := &k.Status
	s.Problems, s.DNSOverrides, s.DNSDropped = make([]string, 100), make([]netvm.Override, 100), make([]netvm.Dropped, 100)
	s.DNSServers, s.DNSTargets = make([]netvm.Resolver, 100), make([]netvm.Target, 100)
	s.Uplinks[0].Addresses, s.Vifs[0].Addresses = make([]netip.Prefix, 100), make([]netip.Addr, 100)
	for heading, want := range map[string][]string{
		"100 problems": {"and 88 more"}, "Ethernet": {"and 92 more"}, "AppVM DNS": {"and 92 more", "and 92 more", "and 96 more"},
		"96 more": {"and 76 more"}, "vif4.0": {"and 92 more", "and 92 more"},
	} {
		var got []string
		for _, text := range below(t, k, heading) {
			if strings.HasPrefix(text, "and ") {
				got = append(got, text)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", heading, got, want)
		}
	}
}

func TestVifsAreShownByHowManyThereAre(t *testing.T) {
	for n, want := range map[int]string{
		8: "vif1.0", 9: "9 vifs › vif1.0, domain 1, metric 7", 20: "20 vifs › vif1.0, domain 1, metric 7",
		21: "21 vifs › vif1.0 to vif20.0", 400: "400 vifs › vif1.0 to vif20.0", 401: "401 vifs › vif1.0 to vif21.0",
	} {
		k := known(t, "no-vifs")
		for id := 1; id <= n; id++ {
			k.Status.Vifs = append(k.Status.Vifs, netvm.Vif{Name: fmt.Sprintf("vif%d.0", id), DomID: id, Metric: 7, State: netvm.VifUp})
		}
		before, after, _ := strings.Cut(want, " › ")
		if rows := below(t, k, before); after != "" && rows[0] != after {
			t.Errorf("%d vifs: %q, want %q", n, rows[0], after)
		}
	}
}

func TestRoutesAreThoseThatTheKernelHas(t *testing.T) {
	k := known(t, "ethernet")
	none, half, all := netip.IPv4Unspecified(), netip.MustParseAddr("255.255.0.0"), netip.MustParseAddr("255.255.255.255")
	first, second := k.Status.Vifs[0].Addresses[0], k.Status.Vifs[1].Addresses[0]
	k.Routes = []netvm.Route{
		{Destination: none, Genmask: none, Metric: 600, Interface: "enp0s2"},
		{Destination: none, Genmask: none, Metric: 100, Interface: "enp0s2"},
		{Destination: none, Genmask: none, Metric: 200, Interface: "enp0s2"},
		{Destination: none, Genmask: none, Metric: 1, Interface: "wg0"},
		{Destination: netip.MustParseAddr("198.51.0.0"), Genmask: half, Metric: 2, Interface: "enp0s2"},
		{Destination: first, Genmask: all, Metric: 5, Interface: "vif9.0"},
		{Destination: second, Genmask: half, Metric: 6, Interface: "vif5.0"},
	}
	for heading, want := range map[string]string{
		"Ethernet": "Default route, metric 100", "vif4.0": "Route to 10.137.0.11 on vif9.0, metric 5", "vif5.0": "No route to 10.137.0.12",
	} {
		if rows := below(t, k, heading); !slices.Contains(rows, want) {
			t.Errorf("%s: no %q in %q", heading, want, rows)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	for _, name := range []string{"ethernet", "menu-open-40-vifs", "300-vifs"} {
		k, _ := examples.Named(name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				view.Of(k)
			}
		})
	}
}
