package view_test

import (
	"strings"
	"testing"

	"netvmd/internal/netvm"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

// known is the example of a name.
func known(t *testing.T, name string) view.Known {
	t.Helper()
	k, found := examples.Named(name)
	if !found {
		t.Fatalf("there is no example %q", name)
	}
	return k
}

// told are the summaries of the notices that are given for one situation after the other; "" where none is.
func told(t *testing.T, names []string) []string {
	t.Helper()
	var memory view.Told
	var out []string
	for _, name := range names {
		after, notice, _ := memory.Next(known(t, name))
		memory = after
		out = append(out, notice.Summary)
	}
	return out
}

const (
	lost    = "The uplink is lost"
	waits   = `Captive portal at Wi-Fi "Café du Monde"`
	refused = "AppVM DNS is refused"
)

func TestEachThingIsToldOnce(t *testing.T) {
	for name, steps := range map[string][]string{
		"nothing at the start of a machine that is offline":        {"offline", "", "offline", ""},
		"nothing when all is well":                                 {"ethernet", "", "wifi-good", "", "vpn-over-wifi", ""},
		"an uplink that goes, and not that DNS is refused then":    {"ethernet", "", "offline", lost, "offline", ""},
		"nothing while the first is brought up":                    {"offline", "", "connecting", "", "wifi-good", ""},
		"an uplink that goes, and another is tried for long":       {"ethernet", "", "connecting", lost, "offline", ""},
		"the same uplink lost again":                               {"ethernet", "", "offline", lost, "wifi-good", "", "offline", lost},
		"a lost one once, although others are tried in vain":       {"ethernet", "", "offline", lost, "connecting", "", "offline", ""},
		"nothing when netvmd stops and starts":                     {"ethernet", "", "netvmd-stopped", "", "ethernet", ""},
		"an uplink that went while netvmd was stopped":             {"ethernet", "", "netvmd-stopped", "", "offline", lost},
		"nothing of the start of netvmd when it is offline then":   {"netvmd-stopped", "", "offline", ""},
		"nothing when NetworkManager stops":                        {"ethernet", "", "networkmanager-stopped", "", "networkmanager-never-ran", ""},
		"a portal at the start":                                    {"portal", waits, "portal", ""},
		"a portal once, although it seems to be gone for a moment": {"portal", waits, "limited", "", "portal", "", "netvmd-stopped", "", "portal", ""},
		"the next portal":                                          {"portal", waits, "wifi-good", "", "portal", waits},
		"a portal that another uplink led to":                      {"portal", waits, "offline", lost, "portal", waits},
		"refused DNS at the start":                                 {"dns-unserved", refused, "dns-unserved", ""},
		"DNS that is refused behind a portal, after it":            {"portal", waits, "dns-unserved", refused},
		"refused DNS again":                                        {"dns-unserved", refused, "ethernet", "", "dns-unserved", refused},
		"nothing of DNS that is served in part":                    {"ethernet", "", "dns-partly-served", ""},
		"no Internet is told by the icon alone":                    {"ethernet", "", "limited", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var names, want []string
			for i := 0; i < len(steps); i += 2 {
				names, want = append(names, steps[i]), append(want, steps[i+1])
			}
			if got := told(t, names); strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("of %v,\n%q was told,\nand %q is to be", names, got, want)
			}
		})
	}
}

func TestANoticeMayWaitForWhatSettlesByItself(t *testing.T) {
	memory, _, _ := view.Told{}.Next(known(t, "wifi-good"))
	if _, _, due := memory.Next(known(t, "offline")); !due {
		t.Fatal("a lost uplink is not due")
	}
	// The one who shows it waits, and keeps what was told before.
	memory, _, due := memory.Next(known(t, "wifi-fair"))
	if due {
		t.Error("the uplink is there again, and something is due")
	}
	if _, _, due = memory.Next(known(t, "offline")); !due {
		t.Error("the uplink that is lost later is not due")
	}
}

func TestNoticesSayWhatItMeans(t *testing.T) {
	before, _, _ := view.Told{}.Next(known(t, "wifi-good"))
	_, gone, _ := before.Next(known(t, "offline"))
	if !strings.Contains(gone.Body, `Wi-Fi "Café du Monde"`) || gone.Urgent || gone.Tentative {
		t.Errorf("got %+v", gone)
	}
	gone.Tentative = true
	if _, another, _ := before.Next(known(t, "connecting")); another != gone {
		t.Errorf("while another uplink is brought up: %+v", another)
	}
	_, deaf, _ := before.Next(known(t, "dns-unserved"))
	if !strings.Contains(deaf.Body, "NetworkManager") || !deaf.Urgent {
		t.Errorf("got %+v", deaf)
	}
	unnamed := known(t, "portal")
	unnamed.Status.Uplinks = nil
	_, portal, _ := before.Next(unnamed)
	if portal.Summary != "Captive portal at an unknown uplink" {
		t.Errorf("got %+v", portal)
	}
	offline := known(t, "offline") // with an interface that is nobody's way out
	offline.Status.Uplinks = []netvm.Uplink{{Type: "bridge", Interface: "br0"}}
	quiet, _, _ := view.Told{}.Next(offline)
	if _, notice, due := quiet.Next(offline); due {
		t.Errorf("%+v, and there was no uplink", notice)
	}
}
