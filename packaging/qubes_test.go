package packaging_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Files of Qubes' agent that matter to netvmd. In these tests all of them are stand-ins, which only write down that they ran:
// their names, their places and the units' order are Qubes' own (qubes-core-agent-linux, folders vm-systemd and network; Xen,
// xendriverdomain.service).
const (
	qubesMarker  = "usr/share/qubes/marker-vm"
	qubesDNAT    = "usr/lib/qubes/qubes-setup-dnat-to-ns"
	qubesHook    = "etc/NetworkManager/dispatcher.d/qubes-nmhook"
	lastHook     = "etc/NetworkManager/dispatcher.d/zz-last"
	qubesHotplug = "etc/xen/scripts/vif-route-qubes"
	takeover     = "netvmd-vifs.service"
)

// qubesBase is where Qubes has its base firewall, without the rules.
const qubesBase = `table %s qubes {
	chain input { type filter hook input priority filter; }
	chain forward { type filter hook forward priority filter; }
	chain postrouting { type nat hook postrouting priority srcnat; }
}
`

// says is a stand-in's script, which leaves a line.
func says(what string) string { return "echo " + what + " >>/var/shared/said\n" }

// qubes makes the container a Qubes VM with these services on.
func qubes(flags ...string) func(*machine) {
	return func(m *machine) {
		m.write(qubesMarker, "")
		m.write(nmConf, idle)
		m.script(qubesDNAT, says("dnat"))
		// What the hook does when an uplink is up is all that the tests ask for.
		const up = `[ "$1 $2" = "uplink up" ] || exit 0` + "\n"
		m.script(qubesHook, up+says("hook")+"/usr/lib/qubes/qubes-setup-dnat-to-ns\n")
		m.script(lastHook, up+"/usr/lib/qubes/qubes-setup-dnat-to-ns && "+says("last")+"echo up >/var/shared/up\n")
		m.script(qubesHotplug, "echo of Qubes\n")
		m.script("usr/lib/qubes/init/network-proxy-setup.sh", "/usr/lib/qubes/qubes-setup-dnat-to-ns\n"+says("network"))
		m.write("usr/lib/qubes/base.nft", fmt.Sprintf(qubesBase, "ip")+fmt.Sprintf(qubesBase, "ip6"))
		var touch strings.Builder
		for _, flag := range flags {
			fmt.Fprintf(&touch, "touch /run/qubes-service/%s; ", flag)
		}
		for name, text := range map[string]string{
			"qubes-db": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
			"qubes-sysinit": "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\nRequires=qubes-db.service\n" +
				"After=systemd-modules-load.service qubes-db.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\n" +
				"ExecStart=/bin/sh -c 'mkdir -p /run/qubes-service; " + touch.String() + "'\n[Install]\nWantedBy=sysinit.target\n",
			"qubes-antispoof": "[Unit]\nBefore=network-pre.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n" +
				"[Install]\nRequiredBy=network-pre.target\n",
			"qubes-iptables": "[Unit]\nRequires=qubes-antispoof.service\nAfter=qubes-antispoof.service\n[Service]\nType=oneshot\n" +
				"RemainAfterExit=yes\nExecStart=nft -f /usr/lib/qubes/base.nft\n[Install]\nWantedBy=basic.target\n",
			"qubes-firewall": "[Unit]\nAfter=qubes-iptables.service\nBefore=qubes-network.service\n[Service]\nExecStart=/bin/sleep infinity\n" +
				"[Install]\nWantedBy=multi-user.target\n",
			"qubes-network": "[Unit]\nBefore=network.target\nAfter=network-pre.target qubes-iptables.service\n[Service]\nType=oneshot\n" +
				"RemainAfterExit=yes\nExecStart=/usr/lib/qubes/init/network-proxy-setup.sh\n[Install]\nWantedBy=multi-user.target\n",
			// What waits for the uplink at boot asks systemd for the other in a script; here a test does.
			"qubes-network-uplink@": "[Unit]\nAfter=network-pre.target\nBefore=network.target\nWants=network.target\n[Service]\nType=oneshot\n" +
				"RemainAfterExit=yes\nExecStart=/bin/sh -c '" + strings.TrimSpace(says("setup-ip %i")) + "'\n",
			"xendriverdomain": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\n" +
				"ExecStart=/bin/sh -c '/etc/xen/scripts/vif-route-qubes --version >/var/shared/hotplug'\n[Install]\nWantedBy=multi-user.target\n",
		} {
			m.write(units+name+".service", text)
		}
	}
}

// domain is a Qubes VM.
type domain struct {
	*services
	on bool // the domain's services netvmd and netvm-uplink are
}

// said are the lines that the stand-ins left, since the last call.
func (d *domain) said() string {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "shared/said"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	d.must(os.RemoveAll(filepath.Join(d.dir, "shared/said")))
	return strings.Join(strings.Fields(string(text)), " ")
}

// journal is what units said.
func (d *domain) journal(options string) string {
	d.t.Helper()
	return d.shell("journalctl --no-pager " + options)
}

func TestBesideQubes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{"with the domain's services on", []string{"netvmd", "netvm-uplink"}},
		{"without them", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := boot(t, qubes(tc.flags...))
			d := domain{m.services(), len(tc.flags) > 0}
			t.Run("the boot has an order", d.part((*domain).hasAnOrder))
			t.Run("netvmd runs only then", d.part((*domain).runsIfWanted))
			t.Run("Qubes' network service translates DNS only else", d.part((*domain).networkService))
			t.Run("NetworkManager runs Qubes' hook only else, and all others", d.part((*domain).dispatcher))
			t.Run("Qubes' path of the hotplug script leads to ours only then", d.part((*domain).hotplug))
			t.Run("Qubes sets a served domain's network up only else, and who waits for that waits for ours", d.part((*domain).uplink))
			t.Run("nothing of Qubes' own was changed", d.part((*domain).leavesFiles))
		})
	}
}

// part is a subtest.
func (d domain) part(check func(*domain)) func(*testing.T) {
	return func(t *testing.T) { check(&domain{d.in(t), d.on}) }
}

func (d *domain) hasAnOrder() {
	if said := d.journal("--boot"); strings.Contains(said, "ordering cycle") {
		d.t.Errorf("systemd broke a cycle:\n%s", said)
	}
	d.shell("systemd-analyze verify --man=no netvmd.service netvmd-firewall.service netvmd-vifs.service netvm-uplink@eth9.service multi-user.target 2>&1 | " +
		"tee /dev/stderr | grep -iE 'netvmd|cycle' && exit 1 || exit 0")
	if !d.on {
		return
	}
	for _, pair := range [][2]string{
		{"qubes-sysinit.service", firewall}, {"qubes-iptables.service", firewall}, {firewall, "network-pre.target"},
		{firewall, unit}, {firewall, "xendriverdomain.service"}, {takeover, "xendriverdomain.service"}, {"qubes-network.service", unit},
	} {
		first, then := d.entered(pair[0]), d.entered(pair[1])
		if after := d.property(pair[1], "After").([]string); !slices.Contains(after, pair[0]) || first == 0 || then < first {
			d.t.Errorf("%s was there at %d µs, %s at %d µs, which is ordered after %q", pair[0], first, pair[1], then, after)
		}
	}
}

func (d *domain) runsIfWanted() {
	want := "inactive"
	if d.on {
		want = "active"
	}
	for _, name := range []string{unit, firewall, takeover} {
		if !d.is(name, want) {
			d.t.Errorf("%s is %v", name, d.property(name, "ActiveState"))
		}
	}
	if got := d.shell("stat -c '%a %U' /run/netvmd"); got != "755 root\n" {
		d.t.Errorf("the folder of the records has the mode and owner %q", got)
	}
	tables := d.shell("nft list tables")
	if strings.Contains(tables, "netvmd") != d.on {
		d.t.Errorf("the kernel has\n%s", tables)
	}
	if d.on && strings.Contains(d.shell("nft list table ip netvmd"), "masquerade") {
		d.t.Error("our base firewall stands beside Qubes' own")
	}
}

func (d *domain) networkService() {
	want := "dnat network"
	if d.on {
		want = "network"
	}
	if got := d.said(); got != want {
		d.t.Errorf("these ran: %q, want %q", got, want)
	}
	if said := d.journal("--unit=qubes-network.service --output=cat"); strings.Contains(said, "denied") {
		d.t.Error(said)
	}
}

func (d *domain) dispatcher() {
	d.shell("mkfifo /var/shared/up && ip link add uplink type veth peer name far-uplink && ip link set far-uplink up")
	d.knowsDevices()
	d.shell("nmcli connection add type ethernet ifname uplink con-name uplink autoconnect no ipv4.method manual ipv4.addresses 192.0.2.9/24 " +
		"ipv6.method disabled && nmcli connection up uplink")
	d.shell("cat /var/shared/up") // the last script's word
	want := "hook dnat dnat last"
	if d.on {
		want = "last"
	}
	if got := d.said(); got != want {
		d.t.Errorf("these ran: %q, want %q", got, want)
	}
	for _, bad := range []string{"qubes-nmhook", "denied", "failed", "Cannot execute"} {
		if said := d.journal("--unit=NetworkManager-dispatcher.service --output=cat"); strings.Contains(said, bad) {
			d.t.Errorf("the dispatcher complains:\n%s", said)
		}
	}
}

func (d *domain) hotplug() {
	const path = "/etc/xen/scripts/vif-route-qubes --version"
	ran, err := os.ReadFile(filepath.Join(d.dir, "shared/hotplug"))
	d.must(err)
	if got := string(ran); strings.HasPrefix(got, "vif-route-netvm") != d.on {
		d.t.Errorf("xendriverdomain.service ran what says %q", got)
	}
	d.shell("systemctl stop " + takeover)
	if got := d.shell(path); got != "of Qubes\n" {
		d.t.Errorf("after %s has stopped, what runs says %q", takeover, got)
	}
	d.shell("systemctl start " + takeover)
	if got := d.shell(path); strings.HasPrefix(got, "vif-route-netvm") != d.on {
		d.t.Errorf("what runs says %q", got)
	}
}

func (d *domain) uplink() {
	d.followsDevices()
	d.shell("ip link add eth9 type veth peer name far-eth9")
	d.said()
	d.shell("systemctl start qubes-network-uplink@eth9.service")
	want := "setup-ip eth9"
	if d.on {
		want = ""
	}
	if got := d.said(); got != want {
		d.t.Errorf("these ran: %q, want %q", got, want)
	}
	// There is no store here, so ours asks and ends at once: before the word of who waited.
	const ours = "netvm-uplink@eth9.service"
	if said := d.journal("--output=cat --unit=" + ours); strings.Contains(said, "configures no uplink") != d.on {
		d.t.Errorf("%s said:\n%s", ours, said)
	}
	if d.is(ours, "failed") {
		d.t.Errorf("%s has failed:\n%s", ours, d.journal("--unit="+ours))
	}
}

func (d *domain) leavesFiles() {
	for _, name := range []string{qubesDNAT, qubesHook, qubesHotplug} {
		text, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil || !strings.HasPrefix(string(text), "#!/bin/sh\n") {
			d.t.Errorf("%s is now %q (%v)", name, text, err)
		}
	}
}
