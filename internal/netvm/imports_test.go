package netvm_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of our own each package may import; a package that is not listed here is an error,
// so that nobody adds one without saying where it stands.
var mayImport = map[string][]string{
	"netvmd/internal/netvm":     nil,
	"netvmd/internal/config":    nil,
	"netvmd/internal/hooks":     nil,
	"netvmd/internal/plan":      {"internal/netvm"},
	"netvmd/internal/engine":    {"internal/netvm", "internal/plan"},
	"netvmd/internal/firewall":  {"internal/flock", "internal/netvm"},
	"netvmd/internal/flock":     nil,
	"netvmd/internal/override":  {"internal/netvm"},
	"netvmd/internal/vif":       {"internal/netvm", "internal/rtnetlink"},
	"netvmd/internal/rtnetlink": nil,
	"netvmd/internal/filewatch": nil,
	"netvmd/internal/systembus": {"internal/filewatch"},
	"netvmd/internal/store":     {"internal/store/qubesdb", "internal/store/xenstore"},
	// What the two clients have in common.
	"netvmd/internal/store/dialog":   nil,
	"netvmd/internal/store/qubesdb":  {"internal/store/dialog"},
	"netvmd/internal/store/xenstore": {"internal/store/dialog"},
	"netvmd/nmhook":                  {"internal/filewatch", "internal/netvm", "internal/rtnetlink", "internal/systembus"},
	"netvmd/dbus":                    {"internal/netvm", "internal/systembus"},
	"netvmd/tray/view":               {"internal/netvm", "internal/words"},
	"netvmd/tray/view/examples":      {"internal/netvm", "tray/view"},
	"netvmd/tray":                    {"internal/netvm", "dbus", "tray/icons", "tray/view"},
	"netvmd/cmd/netvm-tray":          {"tray"},
	"netvmd/tray/icons":              {"tray/view"},
	"netvmd/packaging":               nil,
	"netvmd/packaging/man":           nil,
	"netvmd/packaging/nfpm":          nil,
	"netvmd/packaging/packages":      nil, // its tests boot a container in the lab
	"netvmd/packaging/formats":       nil,
	// What people and programs read of a status.
	"netvmd/internal/words":  {"internal/netvm"},
	"netvmd/internal/report": {"internal/doctor", "internal/netvm", "internal/words"},
	"netvmd/internal/lab": {"internal/netvm", "internal/rtnetlink", "internal/systembus", "dbus", "internal/lab/container", "internal/lab/fakebus",
		"internal/lab/notify", "packaging"},
	// Services of the bus for the tests of nmhook too, which the lab is too big for.
	"netvmd/internal/lab/fakebus": {"internal/netvm"},
	"netvmd/internal/lab/notify":  nil,
	// A Linux with its own systemd, for what is installed.
	"netvmd/internal/lab/container": {"internal/lab/notify"},
	// A private X desktop for the tray, and what is seen of an icon there.
	"netvmd/internal/lab/desktop": {"internal/lab"},
	"netvmd/internal/lab/glance":  nil,
	"netvmd/cmd/netvm-lab": {"internal/netvm", "internal/lab", "internal/lab/desktop", "internal/lab/fakebus", "internal/lab/glance",
		"tray/icons", "tray/view", "tray/view/examples"},
	// What more than one program is made of.
	"netvmd/internal/parts":  {"internal/netvm", "internal/config", "internal/firewall", "internal/store", "internal/vif"},
	"netvmd/internal/qubes":  {"internal/store/qubesdb"},
	"netvmd/internal/uplink": {"internal/flock", "internal/rtnetlink", "internal/store", "internal/systembus"},
	"netvmd/internal/doctor": {"dbus", "internal/config", "internal/dom0", "internal/firewall", "internal/netvm", "internal/parts", "internal/qubes",
		"internal/store", "internal/systembus", "internal/uplink", "internal/vif"},
	"netvmd/internal/dom0":                  {"internal/config", "internal/flock", "internal/store", "internal/store/xenstore", "internal/uplink", "internal/words"},
	"netvmd/cmd/qvm-dom0-network-via-netvm": {"internal/config", "internal/dom0", "internal/words"},
	"netvmd/cmd/vif-route-netvm":            {"internal/config", "internal/parts", "internal/store/xenstore", "internal/vif"},
	"netvmd/cmd/netvmctl": {"dbus", "internal/netvm", "internal/config", "internal/firewall", "internal/parts",
		"internal/doctor", "internal/dom0", "internal/qubes", "internal/report", "internal/store", "internal/systembus", "internal/uplink", "internal/vif", "internal/words"},
	"netvmd/cmd/netvmd": {"dbus", "nmhook", "internal/config", "internal/engine", "internal/firewall", "internal/hooks",
		"internal/netvm", "internal/override", "internal/parts", "internal/store", "internal/vif"},
}

// onlyIn says where a library may be imported.
var onlyIn = map[string][]string{
	"github.com/Wifx/gonetworkmanager/v3": {"netvmd/nmhook", "netvmd/internal/uplink"},
	"github.com/coreos/go-iptables":       {"netvmd/internal/firewall"},
	"github.com/google/nftables":          {"netvmd/internal/firewall"},
	"github.com/getlantern/systray":       {"netvmd/tray"},
	"github.com/jezek/xgb":                {"netvmd/internal/lab/desktop"},
	"C":                                   {"netvmd/tray"}, // all else is static
}

func TestWhoImportsWhom(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "netvmd/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		importer, imports := words[0], words[1:]
		allowed, known := mayImport[importer]
		if !known {
			t.Errorf("%s has no place here yet: say what it may import", importer)
		}
		for _, i := range imports {
			ours, is := strings.CutPrefix(i, "netvmd/")
			if is && !slices.Contains(allowed, ours) {
				t.Errorf("%s must not import %s", importer, i)
			}
			if importer == "netvmd/internal/netvm" && strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				t.Errorf("%s imports %s, but the standard library is all that it may", importer, i)
			}
			for library, homes := range onlyIn {
				if (i == library || strings.HasPrefix(i, library+"/")) && !slices.Contains(homes, importer) {
					t.Errorf("%s imports %s, which only %s may", importer, i, strings.Join(homes, " and "))
				}
			}
		}
	}
}
