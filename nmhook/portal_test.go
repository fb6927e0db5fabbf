package nmhook

import (
	"strings"
	"testing"

	"netvmd/internal/netvm"
)

// portalIs tells whether a view has a portal with an address and as many faults.
func portalIs(address string, faults int) func(netvm.View) bool {
	return func(v netvm.View) bool {
		return v.State == netvm.Portal && v.PortalURL == address && len(v.Faults) == faults
	}
}

func TestTheAddressThatLeadsToACaptivePortalComesAndGoesWithIt(t *testing.T) {
	const full, portal = uint32(4), uint32(2) // NMConnectivityState
	startBus(t)
	f := nmFake(t)
	f.set(nmPath, nmName, portalProperty, "http://example.org/check")
	f.own()
	w := watch(t)
	if v := w.next("the first"); v.State != netvm.Online || v.PortalURL != "" {
		t.Errorf("online, and there is an address of a portal: %+v", v)
	}
	f.change(nmPath, nmName, "Connectivity", portal)
	w.until("the portal", portalIs("http://example.org/check", 0))
	f.change(nmPath, nmName, portalProperty, "https://example.org/elsewhere")
	w.until("another address", portalIs("https://example.org/elsewhere", 0))
	f.change(nmPath, nmName, "Connectivity", full)
	w.until("somebody logged in", func(v netvm.View) bool { return v.State == netvm.Online && v.PortalURL == "" })
}

func TestAPortalsAddressToWhichNoBrowserShouldBeSentIsLeftOutAndSaid(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.set(nmPath, nmName, "Connectivity", uint32(2))
	f.set(nmPath, nmName, portalProperty, "http://example.org/")
	f.own()
	w := watch(t)
	w.until("the portal", portalIs("http://example.org/", 0))
	for name, tc := range map[string]struct {
		value any
		fault string
	}{
		"a file":                {"file:///etc/passwd", `"file:///etc/passwd", leads to no captive portal: it begins with neither`},
		"a line of its own":     {"http://x/\nRun: rm", `"http://x/\nRun: rm", leads to no captive portal: it has characters`},
		"no text at all":        {uint32(7), `, "7", leads to no captive portal`},
		"longer than is decent": {"http://x/" + strings.Repeat("a", 4000), "it is longer than 2048 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			f.change(nmPath, nmName, portalProperty, tc.value)
			v := w.until("the fault", portalIs("", 1))
			if !strings.Contains(v.Faults[0], tc.fault) || len(v.Uplinks) != 1 {
				t.Errorf("%q, with %d uplinks", v.Faults, len(v.Uplinks))
			}
			f.change(nmPath, nmName, portalProperty, "http://example.org/")
			w.until("it is mended", portalIs("http://example.org/", 0))
		})
	}
	f.change(nmPath, nmName, portalProperty, "")
	w.until("nobody says an address, and that is no fault", portalIs("", 0))
}

func TestANetworkManagerThatKnowsNoSuchAddressIsFollowed(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.set(nmPath, nmName, "Connectivity", uint32(2))
	f.set(nmPath, nmName, portalProperty, nil)
	f.own()
	w := watch(t)
	w.until("the portal", portalIs("", 0))
}
