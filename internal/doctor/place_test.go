package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/dom0"
	"netvmd/internal/lab"
)

func TestWhatIsSaidOfDom0AndOfServedDomains(t *testing.T) {
	for _, tc := range []judgement{
		{"an IOMMU is used", iommu{[]string{"pv", "hvm", "hvm_directio"}}, OK, "its own domain's memory alone", ""},
		{"an IOMMU is used without HVM", iommu{[]string{"pv", "pv_directio"}}, OK, "its own domain's memory alone", ""},
		{"no IOMMU is used", iommu{[]string{"pv", "hvm"}}, Failed, "none (virt_caps: pv hvm)", "VT-d or AMD-Vi"},
		{"there is no card", pciCards(nil), OK, "sees none", ""},
		{"the netvm has the card", pciCards{{"0000:00:19.0", "pciback"}, {"0000:03:00.0", "xen-pciback"}}, OK, "0000:00:19.0, 0000:03:00.0", ""},
		{"dom0 has a card", pciCards{{"0000:00:19.0", "e1000e"}, {"0000:03:00.0", "pciback"}}, Failed, "have 0000:00:19.0 (e1000e)", "qvm-pci attach"},
		{"nobody has a card", pciCards{{"0000:00:19.0", ""}}, Warning, "no domain has 0000:00:19.0", "netvm"},
		{"dom0 has no interface", interfaces{}, OK, "none", ""},
		{"dom0 has one of its own", interfaces{others: []string{"eth0", "virbr0"}, vifs: []string{"vif3.0"}}, Failed, "eth0, virbr0", "qvm-pci attach"},
		{"dom0 serves domains", interfaces{vifs: []string{"vif3.0"}}, Warning, "vif3.0", "backend="},
		{"dom0 has that of the tool", interfaces{visitor: "eth0"}, OK, "eth0 alone, of qvm-dom0", ""},
		{"dom0 is off the network", visit{}, OK, "off it", ""},
		{"dom0 is on the network", visit{Situation: dom0.Situation{Up: true, Netvm: "sys-net", Paused: 3}}, Warning, "through sys-net, and 3 domains", "netvm down"},
		{"the tool was killed early", visit{Situation: dom0.Situation{Up: true, Paused: 3}}, Warning, "not ended, and 3 domains", "netvm down"},
		{"dom0 was on the network before a reboot", visit{Situation: dom0.Situation{Stale: true}}, Warning, "before the last boot", "netvm down"},
		{"the journal makes no sense", visit{err: errBroken}, Failed, "it broke", "netvm down"},
		{"no netvm serves this domain", links{none: true}, OK, "no other netvm", ""},
		{"the interface is as it should be", links{all: []link{{name: "eth0"}}}, OK, "eth0: as the toolstack says", ""},
		{"the interface is not", links{all: []link{{"eth0", []string{"a", "b"}}, {"eth1", []string{"c"}}}}, Failed, "eth0 is not as the toolstack says, it lacks: a, b; eth1",
			"Run: systemctl restart netvm-uplink@eth0 && systemctl restart netvm-uplink@eth1"},
		{"the interface is Qubes' own", links{all: []link{{"eth0", []string{"a"}}}, off: true, turnOn: "In dom0: y"}, Warning, "netvm-uplink is off", "In dom0: y"},
	} {
		tc.check(t)
	}
}

func TestDom0sFactsAreRead(t *testing.T) {
	b, ctx := bare(t), deadline(t)
	cards, err := readPCICards(ctx, b.machine)
	mustBe(t, "a machine without PCI", cards, err, pciCards(nil))
	for address, driver := range map[string]string{"0000:00:02.0": "i915", "0000:00:19.0": "e1000e", "0000:03:00.0": "pciback", "0000:04:00.0": ""} {
		class := "0x028000\n"
		if driver == "i915" {
			class = "0x030000\n"
		}
		b.write(pciDevices+"/"+address+"/class", class)
		if driver != "" {
			must(t, os.Symlink("../../../bus/pci/drivers/"+driver, b.path(pciDevices+"/"+address+"/driver")))
		}
	}
	cards, err = readPCICards(ctx, b.machine)
	mustBe(t, "four devices", cards, err, pciCards{{"0000:00:19.0", "e1000e"}, {"0000:03:00.0", "pciback"}, {"0000:04:00.0", ""}})

	for name, mac := range map[string]string{"lo": "00:00:00:00:00:00", "vif3.0": "fe:ff:ff:ff:ff:ff", "eth0": dom0.MAC, "enp3s0": "52:54:00:12:34:56"} {
		b.write(netDevices+"/"+name+"/address", mac+"\n")
	}
	is, err := readInterfaces(ctx, b.machine)
	mustBe(t, "four interfaces", is, err, interfaces{others: []string{"enp3s0"}, vifs: []string{"vif3.0"}, visitor: "eth0"})

	v, err := readVisit(ctx, b.machine)
	mustBe(t, "no journal", v, err, visit{})
	const boot = "9f3b2b0e-6d2b-4c55-9d0b-1c53d0e6a001"
	b.write("/proc/sys/kernel/random/boot_id", boot+"\n")
	b.write(dom0.JournalPath(b.conf.StateDir), `{"begin":{"boot":"`+boot+`","version":"1"}}
{"pause":{"domid":3,"name":"work","uuid":"`+boot+`"}}
`)
	v, err = readVisit(ctx, b.machine)
	mustBe(t, "a journal", v, err, visit{Situation: dom0.Situation{Up: true, Paused: 1}})
	b.write(dom0.JournalPath(b.conf.StateDir), "?\n")
	if v, err = readVisit(ctx, b.machine); err != nil || v.err == nil {
		t.Errorf("a journal that makes no sense: %+v, %v", v, err)
	}
}

func TestXlInfoIsRead(t *testing.T) {
	got, err := parseXlInfo("host                   : dom0\nhw_caps                : bfebfbff\nvirt_caps              : pv hvm hvm_directio hap\nxen_major : 4\n")
	mustBe(t, "Xen 4.17", got, err, iommu{[]string{"pv", "hvm", "hvm_directio", "hap"}})
	if _, err := parseXlInfo("host : dom0\n"); err == nil {
		t.Error("no virt_caps, and no error")
	}
}

// The place decides which checks there are.
func TestEachPlaceHasItsChecks(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	run(t, "ip link add eth7 address 00:16:3e:5e:6c:07 type veth peer name peer7")
	t.Cleanup(func() { run(t, "ip link delete eth7") })
	socket := filepath.Join(t.TempDir(), "xenstore")
	store, err := lab.StartXenStore(socket)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	for _, tc := range []struct {
		name    string
		make    func(b *bench)
		in, out []string // checks that are there, and that are not
	}{
		{"a machine without a toolstack", func(*bench) {}, []string{"service-flag", "firewall", "uplink"}, []string{"iommu"}},
		{"dom0", func(b *bench) { b.write("/proc/xen/capabilities", "control_d\n") }, []string{"iommu", "via-netvm", "configuration"}, []string{"firewall", "uplink"}},
		{"dom0 that is the netvm too", func(b *bench) {
			b.write("/proc/xen/capabilities", "control_d\n")
			b.write("/usr/lib/systemd/system/netvmd.service", "")
		}, []string{"iommu", "configuration", "firewall"}, []string{"service-flag"}},
		{"a domain that a netvm serves", func(*bench) {
			store.Set("qubes_ip", "10.137.0.7")
			store.Set("qubes_gateway", "10.137.0.6")
			store.Set("device/vif/0/mac", "00:16:3e:5e:6c:07")
		}, []string{"configuration", "uplink"}, []string{"firewall", "service-flag", "iommu"}},
		{"a chained netvm", func(b *bench) { b.write("/usr/lib/systemd/system/netvmd.service", "") },
			[]string{"service-flag", "uplink", "firewall"}, []string{"iommu"}},
		{"a domain whose toolstack says what makes no sense", func(*bench) { store.Delete("qubes_gateway") }, []string{"uplink"}, []string{"firewall"}},
	} {
		b := bare(t)
		b.conf.Store.Kind, b.conf.Store.XenStorePath = "xenstore", socket
		tc.make(b)
		var ids []string
		for _, c := range b.checks(deadline(t)) {
			ids = append(ids, c.id)
		}
		for _, id := range tc.in {
			if !slices.Contains(ids, id) {
				t.Errorf("%s: no check %s: %s", tc.name, id, ids)
			}
		}
		for _, id := range tc.out {
			if slices.Contains(ids, id) {
				t.Errorf("%s: the check %s: %s", tc.name, id, ids)
			}
		}
	}

	b := bare(t)
	b.conf.Store.Kind, b.conf.Store.XenStorePath = "xenstore", socket
	l, err := readLinks(deadline(t), b.machine)
	if err != nil || l.judge().state != Failed || !strings.Contains(l.judge().found, "qubes_gateway is missing") {
		t.Errorf("without a gateway: %+v, %v", l, err)
	}
	store.Set("qubes_gateway", "10.137.0.6")
	l, err = readLinks(deadline(t), b.machine)
	if err != nil || len(l.all) != 1 || l.all[0].name != "eth7" || !strings.Contains(strings.Join(l.all[0].missing, "; "), "10.137.0.7/32") {
		t.Errorf("an interface that nobody has set up: %+v, %v", l, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
