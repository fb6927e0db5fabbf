package main

import (
	"strings"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/lab/fakebus"
	"netvmd/internal/netvm"
)

// The real netvmd follows what only a machine with a radio has.
func TestWiFiAndAModemAreFollowed(t *testing.T) {
	s := open(t, lab.Options{FakeNetworkManager: true})
	s.start()
	s.state("offline")
	show := func(situation fakebus.Situation) { s.t.Helper(); s.must(s.NetVM.FakeNM.Show(s.ctx, situation)) }
	uplink := func(what string, holds func(netvm.Uplink) bool) {
		s.t.Helper()
		if _, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return len(r.Uplinks) > 0 && holds(r.Uplinks[0]) }); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	show(fakebus.Situation{Uplinks: []fakebus.Uplink{s.Home.WiFi("Café du Monde", 80)}})
	s.leads(s.Home.Resolvers[0], s.Home.Resolvers[1])
	uplink("Wi-Fi", func(u netvm.Uplink) bool { return u.SSID == "Café du Monde" && u.Strength == 80 })
	show(fakebus.Situation{Uplinks: []fakebus.Uplink{s.Home.WiFi("\x1b[2J\xff\u202efree", 12)}})
	uplink("a hostile name", func(u netvm.Uplink) bool { return u.SSID == "\x1b[2J\uFFFD\u202efree" && u.Strength == 12 })
	if out, code := s.ctl(lab.Nobody, "status"); code != 0 || !strings.Contains(out, `\x1b[2J`) || strings.Contains(out, "\x1b") {
		t.Errorf("netvmctl status: exit code %d, %q", code, out)
	}
	modem := s.Home.Uplink("LTE", "gsm")
	modem.Metered = true
	modem.DNS = s.Home.Resolvers[2:3]
	show(fakebus.Situation{Uplinks: []fakebus.Uplink{modem}})
	uplink("a modem", func(u netvm.Uplink) bool { return u.Type == "gsm" && u.Metered })
	s.leads(s.Home.Resolvers[2], s.Home.Resolvers[2])

	s.must(s.NetVM.FakeNM.Close())
	_, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return !r.NMRunning && len(r.Uplinks) == 1 })
	s.must(err)
	s.leads(s.Home.Resolvers[2], s.Home.Resolvers[2]) // its last word
	s.must(s.NetVM.StartFakeNetworkManager(s.ctx))
	_, err = s.NetVM.Await(s.ctx, func(r netvm.Status) bool { return r.NMRunning && len(r.Uplinks) == 0 })
	s.must(err)
	s.leads(none, none)
}
