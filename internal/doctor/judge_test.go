package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/netvm"
	"netvmd/internal/vif"
)

var errBroken = errors.New("it broke")

func to(virtual, resolver string) netvm.Target {
	t := netvm.Target{Virtual: netip.MustParseAddr(virtual)}
	if resolver != "" {
		t.Resolver.Addr = netip.MustParseAddr(resolver)
	}
	return t
}

func inspection(count int, faults map[string][]string, unrecorded ...string) vif.Inspection {
	return vif.Inspection{Vifs: make([]netvm.Vif, count), Faults: faults, Unrecorded: unrecorded}
}

// judgement is what is to be said of facts.
type judgement struct {
	name          string
	facts         interface{ judge() finding }
	state         State
	found, remedy string // a part of each; "" = a remedy must not be there
}

func TestEveryOutcomeOfEveryCheck(t *testing.T) {
	nft, ipt := firewall.KindNFTables, firewall.KindIPTables
	on, off := service{qubes: true, on: true}, service{qubes: true, turnOn: "In dom0: y"}
	gateway, gateway6 := netip.MustParseAddr("10.137.0.1"), netip.MustParseAddr("fe80::1")
	for _, tc := range []judgement{
		{"no domain of Qubes", service{}, OK, "no domain of Qubes", ""},
		{"the service is on", on, OK, "switched netvmd on", ""},
		{"the service is off", off, Failed, "off in this domain", "In dom0: y"},

		{"no configuration", configuration{path: "/x.toml"}, OK, "no /x.toml: every key has its default", ""},
		{"a valid configuration", configuration{path: "/x.toml", there: true}, OK, "/x.toml is valid", ""},
		{"a wrong configuration", configuration{"/x.toml", true, errBroken}, Failed, "it broke", "reload netvmd"},
		{"a configuration that was named and is missing", configuration{"/x.toml", false, fmt.Errorf("open: %w", fs.ErrNotExist)}, Failed, "missing", "--config"},

		{"no new configuration", newConfiguration{path: "/x"}, OK, "none", ""},
		{"a new configuration", newConfiguration{"/x", []string{"/x.rpmnew"}}, Warning, "/x.rpmnew has new words", "diff -u /x /x.rpmnew"},

		{"files are root's", permissions{}, OK, "root's alone", ""},
		{"others may write", permissions{[]string{"/a", "/b"}, []string{"/a belongs to user 7", "/b x"}}, Failed, "/a belongs to user 7; /b x", "chown root /a /b && chmod go-w /a /b"},

		{"settings from QubesDB", settings{xen: true, kind: "qubesdb", gateway: gateway, gateway6: gateway6, virtual: []netip.Addr{netip.MustParseAddr("10.139.1.1")}},
			OK, "from qubesdb: gateway 10.137.0.1, for IPv6 fe80::1, virtual DNS 10.139.1.1", ""},
		{"settings from the file alone", settings{kind: "none", gateway: gateway}, OK, "from the configuration alone: gateway 10.137.0.1, for IPv6 none", ""},
		{"no gateway on Xen", settings{xen: true, kind: "xenstore"}, Failed, "neither the store (xenstore) nor vif.gateway", "vif.gateway"},
		{"no gateway elsewhere", settings{kind: "none"}, Warning, "neither the store (none)", "vif.gateway"},
		{"the store does not answer", settings{err: errBroken}, Failed, "it broke", "xenstored.service"},

		{"no Xen, no XenStore", xenStore{}, OK, "not needed", ""},
		{"XenStore answers", xenStore{xen: true}, OK, "it answers", ""},
		{"XenStore does not answer", xenStore{true, errBroken}, Failed, "it broke", "store.xenstore_path"},

		{"the kernel has all", kernelRules{rules: rules{backend: nft}}, OK, "nftables: the kernel takes", ""},
		{"no firewall opens", kernelRules{err: errBroken}, Failed, "it broke", "nftables"},
		{"the firewall is not read", kernelRules{rules{backend: nft}, errBroken}, Unknown, "it broke", ""},
		{"nf_tables lacks something", kernelRules{rules: rules{backend: nft, missing: []string{"a: b", "c: d"}}}, Failed, "a: b; c: d", "CONFIG_NF_CONNTRACK_ZONES"},
		{"iptables lacks something", kernelRules{rules: rules{backend: ipt, missing: []string{"CT"}}}, Failed, "CT", "xt_CT"},

		{"flowtables are there", flowtable{rules{backend: nft, flowtables: true}, "auto"}, OK, "has flowtables", ""},
		{"there are none", flowtable{rules{backend: nft}, "auto"}, OK, "CONFIG_NF_FLOW_TABLE", ""},
		{"they are not wanted", flowtable{rules{backend: nft, flowtables: true}, config.FlowtableNever}, OK, "switched off", ""},
		{"iptables has none", flowtable{rules{backend: ipt}, "auto"}, OK, "not with iptables", ""},

		{"conntrack is whole", conntrack{text: true}, OK, "/proc/net/nf_conntrack", ""},
		{"conntrack without text", conntrack{}, OK, "10 ms", ""},
		{"conntrack without netlink", conntrack{err: errBroken}, Failed, "it broke", "modprobe nf_conntrack_netlink"},

		{"nothing to forward", forwarding{}, OK, "no vif", ""},
		{"forwarding is on", forwarding{vifs: 3}, OK, "3 vifs", ""},
		{"forwarding is off", forwarding{vifs: 1, off: []string{"net/a", "net/b"}}, Failed, "net/a, net/b", "sysctl -w net/a=1 net/b=1"},

		{"no uplink", reversePath{}, OK, "stops nothing", ""},
		{"one strict uplink", reversePath{[]string{"eth0"}, []string{"eth0"}}, OK, "stops nothing", ""},
		{"two loose uplinks", reversePath{[]string{"eth0", "wlan0"}, nil}, OK, "stops nothing", ""},
		{"two uplinks, one strict", reversePath{[]string{"eth0", "wlan0"}, []string{"wlan0"}}, Warning, "strict on wlan0", "sysctl -w net.ipv4.conf.wlan0.rp_filter=2"},

		{"refusals are not limited", limits(nil), OK, "refused", ""},
		{"refusals are limited", limits{"net/a", "net/b"}, Warning, "net/a, net/b", "sysctl -w net/a=0 net/b=0"},

		{"the firewall is whole", whole{rules{backend: nft, loaded: true}}, OK, "whole (nftables)", ""},
		{"nothing is loaded", whole{rules{backend: ipt, differences: []string{"x"}}}, Failed, "no rules", "netvmctl firewall load"},
		{"the firewall is damaged", whole{rules{loaded: true, differences: []string{"x", "y"}}}, Failed, "x; y", "netvmctl firewall load"},

		{"our base", base{own: true, loaded: true}, OK, "netvmd's own", ""},
		{"our base is not loaded", base{own: true}, Failed, "none is loaded", "netvmctl firewall load"},
		{"Qubes' base", base{loaded: true}, OK, "Qubes", ""},
		{"no base is wanted", base{loaded: true, wanted: config.BaseNever}, Warning, "never", "auto"},

		{"all is served", dns{[]netvm.Target{to("10.139.1.1", "192.0.2.1"), to("10.139.1.2", "192.0.2.2")}}, OK, "10.139.1.1 → 192.0.2.1, 10.139.1.2 → 192.0.2.2", ""},
		{"half is served", dns{[]netvm.Target{to("10.139.1.1", "192.0.2.1"), to("fd00::1", "")}}, Warning, "fd00::1 → refused: some have no resolver of their family", "dns.servers"},
		{"nothing is served", dns{[]netvm.Target{to("10.139.1.1", "")}}, Warning, "no resolver", "netvmctl dns"},
		{"nothing is known", dns{}, Failed, "time out", "netvmctl firewall load"},

		{"Qubes translates nothing", qubesDNS{}, OK, "alone", ""},
		{"Qubes translates too", qubesDNS{4, qubesHooks{service: on, there: true, beside: []string{"/a in b"}}}, Warning, "DNS rules (4), written beside netvmd's", "Mend"},
		{"Qubes translated before", qubesDNS{4, qubesHooks{service: on, there: true}}, OK, "DNS rules (4), of before", ""},
		{"Qubes translates alone", qubesDNS{4, qubesHooks{service: off, there: true}}, OK, "netvmd is off", ""},

		{"no server", servers(nil), OK, "no program", ""},
		{"a server", servers{"dnsmasq (pid 1) serves DNS"}, Warning, "dnsmasq (pid 1) serves DNS", "127.0.0.1"},
		{"nothing listens", ports{}, OK, "no program listens", ""},
		{"what listens is closed", ports{[]string{"sshd"}, true}, OK, "sshd", ""},
		{"what listens is open", ports{[]string{"sshd"}, false}, Warning, "sshd", "firewall"},

		{"no vif", vifs{}, OK, "none", ""},
		{"vifs are sound", vifs{inspection(2, nil)}, OK, "2 vifs", ""},
		{"a vif is damaged", vifs{inspection(2, map[string][]string{"vif9.0": {"a", "b"}, "vif10.0": {"c"}}, "vif11.0")}, Failed, "vif10.0: c; vif9.0: a, b", "restart netvmd"},
		{"a vif is a stranger's", vifs{inspection(1, nil, "vif9.0", "vif9.1")}, Warning, "vif9.0, vif9.1", "script=vif-route-netvm"},

		{"the script can run", hotplug{true, true, true}, OK, "can be run", ""},
		{"the script is missing on Xen", hotplug{xen: true}, Failed, "missing", "ln -sf"},
		{"the script is missing elsewhere", hotplug{}, Warning, "no domain of Xen", "ln -sf"},
		{"the script is not executable", hotplug{there: true}, Failed, "cannot be run", "chmod 755"},
		{"no script of Qubes", qubesHotplug{}, OK, "there is none", ""},
		{"no script of Qubes in Qubes", qubesHotplug{xen: true, service: on}, OK, "there is none", ""},
		{"no script of Qubes on Xen", qubesHotplug{xen: true}, OK, "ln -s /usr/lib/netvmd/vif-route-netvm /etc/xen/scripts/vif-route-qubes", ""},
		{"Qubes' script is ours", qubesHotplug{there: true, ours: true, service: on}, OK, "vif-route-qubes is netvmd's", ""},
		{"Qubes' script is its own", qubesHotplug{there: true, service: on}, Failed, "vif-route-qubes is Qubes' own", "restart netvmd-vifs"},
		{"Qubes' script is its own where netvmd is off", qubesHotplug{there: true, service: off}, OK, "netvmd is off", ""},
		{"Qubes' script is a stranger's", qubesHotplug{xen: true, there: true}, Warning, "another program's", "script=vif-route-netvm"},
		{"no hooks of Qubes", qubesHooks{service: on}, OK, "none", ""},
		{"hooks of Qubes are taken over", qubesHooks{service: on, there: true}, OK, "taken over", ""},
		{"hooks of Qubes where netvmd is off", qubesHooks{service: off, there: true, beside: []string{"/a in b"}}, OK, "netvmd is off", ""},
		{"hooks of Qubes", qubesHooks{service: on, there: true, beside: []string{"/a in b", "/c in d"}}, Warning, "/a in b, /c in d", "Run: systemctl daemon-reload"},
		{"hooks of Qubes beside a masked drop-in", qubesHooks{service: on, there: true, beside: []string{"/a in b"}, masked: []string{"/m"}}, Warning, "/a in b", "rm /m"},
		{"hooks of Qubes beside no drop-in", qubesHooks{service: on, there: true, beside: []string{"/a in b"}, absent: []string{"/m"}}, Warning, "/a in b", "/m is missing"},
		{"hooks of Qubes below nothing", qubesHooks{service: on, there: true, beside: []string{"/a in b", "/a in c"}, unmade: []string{"/n", "/n"}}, Warning, "/n is missing", "restart netvmd-firewall"},
		{"hooks of Qubes elsewhere", qubesHooks{there: true, beside: []string{"/a in b"}}, Warning, "/a in b", "qubes-core-agent-networking"},

		{"the bus answers", bus{}, OK, "answers", ""},
		{"there is no bus", bus{errBroken}, Failed, "it broke", "systemctl start dbus"},
		{"NetworkManager runs", networkManager{running: true, source: "auto"}, OK, "it runs", ""},
		{"NetworkManager does not run", networkManager{running: false, source: "auto"}, Warning, "does not run", "start NetworkManager"},
		{"NetworkManager does not run in a chained netvm", networkManager{served: true, source: "auto"}, OK, "need not", ""},
		{"NetworkManager does not run and is needed", networkManager{running: false, source: "networkmanager"}, Failed, "dns.source", "start NetworkManager"},
		{"the Internet is reached", internet{netvm.Online, ""}, OK, "online", ""},
		{"there is no uplink", internet{netvm.Offline, ""}, OK, "offline", ""},
		{"a captive portal waits", internet{netvm.Portal, "http://example.org/"}, Warning, "captive portal", "http://example.org/"},
		{"a captive portal waits somewhere", internet{netvm.Portal, ""}, Warning, "captive portal", "any http page"},
		{"the Internet is not reached", internet{netvm.Limited, ""}, Warning, "not reached", "nmcli device show"},
		{"NetworkManager leaves vifs alone", managed(nil), OK, "no vif", ""},
		{"NetworkManager manages vifs", managed{"vif1.0", "vif2.0"}, Failed, "vif1.0, vif2.0", "30-netvm-vifs.conf"},
		{"resolved runs", resolved{running: true, stub: true}, OK, "it runs", ""},
		{"resolved does not run", resolved{source: "auto"}, OK, "nothing needs it", ""},
		{"resolved does not run and resolv.conf needs it", resolved{stub: true}, Warning, "resolv.conf", "start systemd-resolved"},
		{"resolved does not run and netvmd needs it", resolved{source: "resolved"}, Failed, "dns.source", "start systemd-resolved"},

		{"netvmd runs", daemon{version: "1", ours: "1"}, OK, "release 1 runs", ""},
		{"another netvmd runs", daemon{version: "1", ours: "2"}, Warning, "release 1 runs, and 2 is installed", "restart netvmd"},
		{"netvmd does not run", daemon{err: fmt.Errorf("x: %w", dbus.ErrNotRunning)}, Failed, "does not run", "start netvmd"},
		{"netvmd does not run in Qubes", daemon{err: fmt.Errorf("x: %w", dbus.ErrNotRunning), service: on}, Failed, "does not run", "start netvmd"},
		{"netvmd is off", daemon{err: fmt.Errorf("x: %w", dbus.ErrNotRunning), service: off}, Failed, "off in this domain", "In dom0: y"},
		{"netvmd talks nonsense", daemon{err: errBroken}, Failed, "it broke", "restart netvmd"},
		{"no problems", problems(nil), OK, "nothing", ""},
		{"problems", problems{"A. Do b.", "C."}, Warning, "A. Do b. C.", "netvmctl status"},
		{"units are enabled", units{all: []unit{{name: "a", file: "enabled"}, {name: "b", file: "alias"}}}, OK, "enabled: a b", ""},
		{"a unit is disabled", units{all: []unit{{name: "a", file: "enabled"}, {name: "b", file: "disabled"}}}, Warning, "not enabled: b:", "Run: systemctl enable --now b"},
		{"a unit is disabled in Qubes", units{service: on, all: []unit{{name: "a", file: "disabled"}}}, Warning, "not enabled: a", "in this domain's template: systemctl enable a"},
		{"a unit is enabled for now", units{all: []unit{{name: "a", file: "enabled-runtime"}}}, Warning, "until the next boot alone: a", "enable --now a"},
		{"a unit is masked", units{all: []unit{{name: "a", load: "masked", file: "masked"}}}, Warning, "masked: a", "unmask a"},
		{"a unit is masked in Qubes", units{service: on, all: []unit{{name: "a", file: "masked-runtime"}}}, Warning, "masked: a", "Run in this domain's template: systemctl unmask a"},
		{"a unit is missing", units{all: []unit{{name: "a", load: "not-found"}}}, Failed, "does not know a", "daemon-reload"},
		{"a unit failed", units{all: []unit{{name: "a", file: "enabled", active: "failed"}, {name: "b", file: "enabled", active: "failed"}}}, Failed, "failed: a b", "-u a -u b"},
		{"a unit was not started", units{all: []unit{{name: "a", file: "enabled", unmet: true}}}, Warning, "a condition did not hold: a", "start a"},
		{"a unit was not started where netvmd is off", units{service: off, all: []unit{{name: "a", file: "enabled", unmet: true}}}, OK, "netvmd is off", ""},
		{"the vifs are Qubes'", units{service: on, all: []unit{{name: "a", file: "enabled"}, {name: vifsUnit, file: "enabled", unmet: true}}}, OK, "enabled: a netvmd-vifs", ""},
		{"the vifs should be ours", units{service: on, vifs: true, all: []unit{{name: vifsUnit, file: "enabled", unmet: true}}}, Warning, "did not hold: netvmd-vifs", "start netvmd-vifs"},
		{"the policy is there", busPolicy{path: "/x.conf"}, OK, "/x.conf", ""},
		{"the policy is elsewhere", busPolicy{owned: true}, OK, "has its name", ""},
		{"the policy is missing", busPolicy{}, Failed, "refuses netvmd its name", "Install"},
		{"no polkit", polkit{}, OK, "root alone", ""},
		{"polkit without our actions", polkit{there: true}, Warning, "does not know", "policy is missing"},
		{"polkit with our actions", polkit{true, true}, OK, "polkit says", ""},
	} {
		tc.check(t)
	}
}

// check wants the facts to be judged so.
func (j judgement) check(t *testing.T) {
	t.Helper()
	got := j.facts.judge()
	if got.state != j.state || !strings.Contains(got.found, j.found) || !strings.Contains(got.remedy, j.remedy) || (j.remedy == "") != (got.remedy == "") {
		t.Errorf("%s: %+v; want %s, %q, %q", j.name, got, j.state, j.found, j.remedy)
	}
}
