package report

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/netvm"
)

func TestChangesAreToldOneALine(t *testing.T) {
	later := now.Add(-time.Second)
	for _, tc := range []struct {
		name          string
		before, after netvm.Status
		want          []string
	}{
		{"nothing", online(), online(), nil},
		{"the strength of the Wi-Fi is no change", statuses["wifi"],
			but(func(s *netvm.Status) { w := wifi; w.Strength = 3; s.Uplinks = []netvm.Uplink{w} }), nil},
		{"the uplink goes", online(), but(func(s *netvm.Status) {
			s.State, s.Uplinks, s.ChangedAt, s.ApplyTime = netvm.Offline, nil, later, time.Millisecond
			refuse(s)
		}), []string{
			"online → offline",
			`Ethernet "Wired connection 1" is gone`,
			"10.139.1.1 → refused at once, in 1.00 ms",
			"10.139.1.2 → refused at once, in 1.00 ms",
		}},
		{"NetworkManager goes", online(), but(func(s *netvm.Status) { s.NMRunning = false }), []string{"NetworkManager is not running"}},
		{"NetworkManager comes back", but(func(s *netvm.Status) { s.NMRunning = false }), online(), []string{"NetworkManager is running"}},
		{"a captive portal comes", online(), statuses["portal-nowhere"], []string{"online → portal"}},
		{"its address is known", statuses["portal-nowhere"], but(func(s *netvm.Status) { s.State, s.PortalURL = netvm.Portal, "http://example.org/" }),
			[]string{"a captive portal waits: log in at http://example.org/"}},
		{"somebody logs in", but(func(s *netvm.Status) { s.State, s.PortalURL = netvm.Portal, "http://example.org/" }), online(),
			[]string{"portal → online", "the captive portal is gone"}},
		{"another uplink comes and is the primary", online(), but(func(s *netvm.Status) {
			s.Uplinks = []netvm.Uplink{vpn, ethernet}
			s.DNSTargets = []netvm.Target{leads("10.139.1.1", "10.8.0.1"), s.DNSTargets[1]}
		}), []string{
			`WireGuard VPN "work" is there: wg0 10.8.0.2/32`,
			"10.139.1.1 → 10.8.0.1",
		}},
		{"the uplinks change places", but(func(s *netvm.Status) { s.Uplinks = []netvm.Uplink{vpn, ethernet} }),
			but(func(s *netvm.Status) { s.Uplinks = []netvm.Uplink{ethernet, vpn} }),
			[]string{`Ethernet "Wired connection 1" is the primary uplink now`}},
		{"the uplink gets another address", online(), but(func(s *netvm.Status) {
			u := ethernet
			u.Addresses = []netip.Prefix{netip.MustParsePrefix("198.51.100.77/24")}
			s.Uplinks = []netvm.Uplink{u}
		}), []string{`Ethernet "Wired connection 1": enp0s2 198.51.100.20/24 via 198.51.100.1 → enp0s2 198.51.100.77/24 via 198.51.100.1`}},
		{"an override is set", online(), but(func(s *netvm.Status) {
			s.DNSSource, s.DNSReason = "override", "set over D-Bus by netvmctl (pid 7, user 0), until it leaves the bus"
		}), []string{"resolvers from an override: set over D-Bus by netvmctl (pid 7, user 0), until it leaves the bus"}},
		{"the virtual addresses are others", online(), but(func(s *netvm.Status) {
			s.DNSTargets = []netvm.Target{leads("10.139.1.2", "198.51.100.2"), leads("fd00::1", "")}
		}), []string{"fd00::1 → refused at once", "10.139.1.1 is no virtual DNS address any more"}},
		{"vifs come, go, degrade and come again", but(func(s *netvm.Status) { s.Vifs = vifs(3) }), but(func(s *netvm.Status) {
			s.Vifs = vifs(4)[1:]
			s.Vifs[0].State = netvm.VifDegraded
			s.Vifs[1].Since = now
		}), []string{
			"vif4.0 is gone", "vif6.0 is gone", "vif5.0: up → degraded",
			"vif6.0 is there: 10.137.0.13, up", "vif7.0 is there: 10.137.0.14, up",
		}},
		{"problems come and are solved", but(func(s *netvm.Status) { s.Problems = []string{"One.", "Two."} }),
			but(func(s *netvm.Status) { s.Problems = []string{"Two.", "Three\x1b[2J."} }),
			[]string{"solved: One.", `problem: Three\x1b[2J.`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, c := range Changes(tc.before, tc.after, now) {
				text, timed := strings.CutPrefix(c.Line(Screen{}), "15:09:26.000  ")
				if !timed || !strings.HasSuffix(text, "\n") || strings.Count(text, "\n") != 1 {
					t.Errorf("not one line with the time: %q", c.Line(Screen{}))
				}
				got = append(got, strings.TrimSuffix(text, "\n"))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestChangesInColourAreTheSameWords(t *testing.T) {
	c := Stopped(now)
	plain, colour := c.Line(Screen{}), c.Line(Screen{Colour: true})
	stripped := strings.NewReplacer("\x1b[33m", "", "\x1b[0m", "").Replace(colour)
	if plain == colour || plain != stripped {
		t.Errorf("%q and %q", plain, colour)
	}
}

func TestChangesForPrograms(t *testing.T) {
	var b bytes.Buffer
	before, after := online(), but(func(s *netvm.Status) {
		s.State, s.ChangedAt, s.Problems = netvm.Limited, now, []string{"Evil\x1b[2J\u202e."}
		s.NMRunning, s.PortalURL = false, "http://example.org/"
		s.DNSTargets = []netvm.Target{s.DNSTargets[0], leads("10.139.1.2", "")}
		s.Vifs = s.Vifs[:2]
	})
	changes := append([]Change{Started(now), Stopped(now)}, Changes(before, after, now)...)
	for _, c := range append(changes, Present(online(), now)) {
		if err := WriteJSON(&b, c, false); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "changes-json", b.String())
}

func TestJSONHasAllAndNoNulls(t *testing.T) {
	for name, value := range map[string]any{
		"full": JSON(statuses["overridden"]), "empty": JSON(netvm.Status{}), "hostile": JSON(statuses["hostile"]),
		"statistics": JSONOfStatistics(counted, tally), "statistics-fresh": JSONOfStatistics(netvm.Statistics{}, netvm.Tally{}),
		"routes": map[string]any{"routes": JSONOfRoutes(routes)}, "vifs": map[string]any{"vifs": JSONOfVifs(hidden())},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteJSON(&b, value, true); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "null") {
				t.Errorf("null in:\n%s", &b)
			}
			golden(t, "json-"+name, b.String())
		})
	}
}

// routes are rows of each form that route(8) has, as the kernel of a Debian 12 gave them.
var routes = func() []netvm.Route {
	row := func(destination, gateway, mask, flags string, metric uint32, device string) netvm.Route {
		a := netip.MustParseAddr
		return netvm.Route{Destination: a(destination), Gateway: a(gateway), Genmask: a(mask), Flags: flags, Metric: metric, Interface: device}
	}
	return []netvm.Route{
		row("0.0.0.0", "10.0.0.9", "0.0.0.0", "UG", 100, "v0"), row("0.0.0.0", "0.0.0.0", "0.0.0.0", "!", 4278198272, "-"),
		row("10.0.0.0", "0.0.0.0", "255.255.255.0", "U", 0, "v0"), row("10.2.0.0", "0.0.0.0", "255.255.0.0", "U", 0, "*"),
		row("10.4.4.4", "0.0.0.0", "255.255.255.255", "!H", 5, "-"), row("10.7.0.0", "10.0.0.2", "255.255.0.0", "UG", 4294967295, "v0"),
		row("10.8.0.0", "10.0.0.2", "255.255.0.0", "UG", 1234567, "v0"), row("10.9.9.9", "0.0.0.0", "255.255.255.255", "UH", 32748, "v0"),
	}
}()

// The golden file is what `route -n` of net-tools 2.10 printed for them.
func TestRoutesAreWhatRoutePrints(t *testing.T) { golden(t, "routes", Routes(routes)) }
