package vif

import (
	"net/netip"
	"testing"

	"netvmd/internal/netvm"
)

// The kernel takes metric 0 of an IPv6 route for 1024, so the newest domain that there can be has metric 1 there.
func TestTheHighestDomidIsNoDrift(t *testing.T) {
	four, six := netip.MustParseAddr("10.137.0.5"), netip.MustParseAddr("fd09:24ef:4179::a89:5")
	const mac = "00:16:3e:5e:6c:00"
	spec := Spec{Vif: netvm.Vif{Name: "vif32752.0", DomID: maxDomID, Metric: metricOf(maxDomID), MAC: mac, Addresses: []netip.Addr{four, six}}}
	l := &land{
		records:  []Spec{spec},
		admitted: map[string][]netip.Addr{spec.Name: spec.Addresses},
		devices: map[string]*netdev{spec.Name: {
			group: vifGroup, up: true, neighbours: map[netip.Addr]string{four: mac, six: mac},
			routes: map[netip.Addr]map[int]bool{four: {0: true}, six: {1: true}},
		}},
	}
	l.settleHolders()
	if d := l.drift(spec); len(d.all()) > 0 {
		t.Errorf("%q", d.all())
	}
	l.devices[spec.Name].routes[six] = map[int]bool{1024: true}
	if d := l.drift(spec); len(d.all()) != 1 {
		t.Errorf("with another metric: %q", d.all())
	}
}
