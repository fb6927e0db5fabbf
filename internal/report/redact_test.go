package report

import (
	"strings"
	"testing"

	"netvmd/internal/doctor"
	"netvmd/internal/netvm"
)

func TestARedactedTextTellsNotWhereSomebodyIs(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"public addresses", "192.0.2.7/24, gateway 192.0.2.1, again 192.0.2.7.", "<address-1>/24, gateway <address-2>, again <address-1>."},
		{"private ones", "10.137.0.6 172.16.1.1 192.168.1.1 127.0.0.53 169.254.1.1 0.0.0.0 224.0.0.251",
			"10.137.0.6 172.16.1.1 192.168.1.1 127.0.0.53 169.254.1.1 0.0.0.0 224.0.0.251"},
		{"netmasks", "255.255.255.0 255.255.255.255 254.0.0.0", "255.255.255.0 255.255.255.255 254.0.0.0"},
		{"IPv6", "2001:db8::7/64 and 2001:DB8:0::7, fd09:24ef:4179::a8b:101, fe80::1%eth0, ::1, ::",
			"<address-1>/64 and <address-1>, fd09:24ef:4179::a8b:101, fe80::1%eth0, ::1, ::"},
		{"a MAC in an address", "fe80::216:3eff:fe5e:6c01 fd00::216:3eff:fe5e:6c01", "<address-1> <address-2>"},
		{"IPv4 in IPv6", "::ffff:192.0.2.1 ::ffff:10.0.0.1", "<address-1> ::ffff:10.0.0.1"},
		{"MACs", "00:16:3e:5e:6c:01, 00:16:3E:5E:6C:01 and 00:16:3e:5e:6c:02", "<mac-1>, <mac-1> and <mac-2>"},
		{"a MAC in a device's name", "wlx00163e5e6c01 has 00:16:3e:5e:6c:01", "wlx<mac-1> has <mac-1>"},
		{"with a port", "to 192.0.2.1:53 and [2001:db8::1]:53", "to <address-1>:53 and [<address-2>]:53"},
		{"what only looks like one", "15:02:26, 6.1.0-18-amd64, 1.2.3, 300.1.1.1, dead::beef::, took 0.86 ms: all", "15:02:26, 6.1.0-18-amd64, 1.2.3, 300.1.1.1, dead::beef::, took 0.86 ms: all"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := NewRedactor(netvm.Status{}).Text(tc.text); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A name with blanks in it may be broken at the end of a line, and one that is an everyday word must not take that word with
// it wherever it stands.
func TestNamesOfNetworksAreTakenOutWhereverTheyStand(t *testing.T) {
	long := "Wo die wilden Kerle wohnen " + strings.Repeat("und wohnen ", 10)
	s := but(func(s *netvm.Status) {
		s.Uplinks = []netvm.Uplink{
			{ID: "DNS", Type: "802-11-wireless", SSID: "A network with a name of four words and more to break it at", Interface: "wlan0"},
			{ID: long, Type: "wireguard", VPN: true},
		}
		s.Problems = []string{`NetworkManager's connection "DNS": gateway "x" is not an address`,
			`NetworkManager's connection "` + long[:80] + `"…: interface "/" cannot exist`}
	})
	r := NewRedactor(s)
	text := r.Text(Status(Screen{}, r.Status(s), now) + DNS(Screen{}, r.Status(s), now) +
		Checks(Screen{}, r.Checks([]doctor.Result{{Title: "x", State: doctor.Warning, Found: s.Problems[0], Remedy: s.Problems[1]}})))
	for _, secret := range []string{"network with", "four words", "wilden", "wohnen", `"DNS"`, "198.51.100."} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is still in it:\n%s", secret, text)
		}
	}
	golden(t, "redacted", text)
	if s.Uplinks[0].ID != "DNS" || !strings.Contains(s.Problems[0], "DNS") {
		t.Error("the status itself was changed")
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`"home" 192.0.2.1 00:16:3e:5e:6c:01 2001:db8::1`, "home")
	f.Fuzz(func(t *testing.T, text, name string) {
		s := netvm.Status{Uplinks: []netvm.Uplink{{SSID: name}}, Problems: []string{text}}
		once := NewRedactor(s).Text(text)
		if again := NewRedactor(s).Text(once); again != once {
			t.Errorf("%q becomes %q, and that %q", text, once, again)
		}
		NewRedactor(s).Status(s)
	})
}
