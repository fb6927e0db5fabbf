package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// patience bounds what a test waits for. It is only reached by a failing test.
const patience = 30 * time.Second

func withPatience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

const (
	mac1 = "00:16:3e:5e:6c:0b"
	mac2 = "00:16:3e:5e:6c:0c"
)

func hardware(t *testing.T, mac string) net.HardwareAddr {
	t.Helper()
	out, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// plugIn makes a network card whose other end, peer, nobody listens at.
func plugIn(t *testing.T, name, mac string) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hardware(t, mac), TxQLen: 1000}, PeerName: "p" + name}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unplug(t, name) })
	peer, err := netlink.LinkByName("p" + name)
	if err == nil {
		err = netlink.LinkSetGroup(peer, vifGroup) // the netvm's end, which is no card of this domain
	}
	if err != nil {
		t.Fatal(err)
	}
}

// unplug takes a card away, if it is there.
func unplug(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		t.Error(err)
	}
}

// shell runs a command and returns what it printed.
func shell(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// dumpNet is all that an uplink could change in the kernel, as text; the kernel's own link-local addresses come late.
func dumpNet(t *testing.T) string {
	t.Helper()
	return shell(t, `ip -o link show eth0 | sed -E 's/@[a-z0-9]+//; s/ state [A-Z]+ / /; s/NO-CARRIER,|,LOWER_UP|,M-DOWN//g; s/qdisc [a-z]+ //'
		ip -o address show dev eth0 | grep -v 'inet6 fe80:' || true
		ip -4 route show table all | sed -E 's/ linkdown| dead//g' | sort
		ip -6 route show table all | grep -Ev '^fe80:|^local fe80:|^multicast ff00|^anycast' | sed -E 's/ linkdown| dead//g' | sort || true
		ip neighbour show nud permanent | sort
		cat /proc/sys/net/ipv6/conf/eth0/accept_ra; cat /proc/sys/net/ipv4/neigh/default/gc_thresh* 2>/dev/null || true`)
}

// setup is one with its own folder and files.
func setup(t *testing.T) *Setup {
	t.Helper()
	dir := t.TempDir()
	s := New(dir, filepath.Join(dir, "resolv.conf"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.Protected = filepath.Join(dir, "protected-files.d")
	return s
}

func spec(t *testing.T) Spec {
	t.Helper()
	return Spec{
		Interface: "eth0", MAC: hardware(t, mac1),
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.137.0.11/32"), netip.MustParsePrefix("fd09:24ef:4179::a89:b/128")},
		Gateway:   netip.MustParseAddr("10.137.0.6"), Gateway6: netip.MustParseAddr("fe80::fcff:ffff:feff:ffff"),
		Resolvers: addrs("10.139.1.1", "10.139.1.2"), DefaultRoute: true, DNS: true,
	}
}

func mustLink(t *testing.T, s *Setup, spec Spec) []string {
	t.Helper()
	changes, err := s.Link(withPatience(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func mustUnlink(t *testing.T, s *Setup) []string {
	t.Helper()
	changes, err := s.Unlink(withPatience(t), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func sameText(t *testing.T, what, is, want string) {
	t.Helper()
	if is != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, is, want)
	}
}

// mustBeForgotten wants no record to be left.
func mustBeForgotten(t *testing.T, s *Setup) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestTheRoutingTableIsOneDefaultRoute(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	before := dumpNet(t)
	changes := mustLink(t, s, spec(t))
	want := []string{
		"put into group 1", "set sysctl net/ipv6/conf/eth0/accept_ra to 0",
		"added the address 10.137.0.11/32", "added the address fd09:24ef:4179::a89:b/128",
		"set the neighbour 10.137.0.6 to fe:ff:ff:ff:ff:ff", "set the neighbour 10.139.1.1 to fe:ff:ff:ff:ff:ff",
		"set the neighbour 10.139.1.2 to fe:ff:ff:ff:ff:ff", "set the neighbour fe80::fcff:ffff:feff:ffff to fe:ff:ff:ff:ff:ff",
		"set up", "added the route default on the link", "added the route default (IPv6) via fe80::fcff:ffff:feff:ffff",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("the changes are %q", changes)
	}
	table := strings.Split(strings.TrimSpace(shell(t, "route -n")), "\n")
	if len(table) != 3 || strings.Join(strings.Fields(table[2]), " ") != "0.0.0.0 0.0.0.0 0.0.0.0 U 0 0 0 eth0" {
		t.Errorf("the routing table is %q", table)
	}
	sameText(t, "the IPv6 default route", shell(t, "ip -6 route show default | sed -E 's/ linkdown| pref.*//g'"),
		"default via fe80::fcff:ffff:feff:ffff dev eth0 metric 1024 onlink\n")
	up := dumpNet(t)
	if again := mustLink(t, s, spec(t)); len(again) > 0 {
		t.Errorf("again, it changes %q", again)
	}
	sameText(t, "again", dumpNet(t), up)
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
	mustBeForgotten(t, s)
	if again := mustUnlink(t, s); len(again) > 0 {
		t.Errorf("reverted again, it changes %q", again)
	}
}

func TestWithoutADefaultRouteTheGatewayAndTheNameserversAreReached(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	closed := spec(t)
	closed.DefaultRoute = false
	closed.Resolvers = append(closed.Resolvers, addrs("fd09:24ef:4179::a8b:101")...)
	mustLink(t, s, spec(t))
	mustLink(t, s, closed)
	sameText(t, "the routes", shell(t, "ip route show | sed -E 's/ linkdown//; s/ *$//'"),
		"10.137.0.6 dev eth0 scope link\n10.139.1.1 dev eth0 scope link\n10.139.1.2 dev eth0 scope link\n")
	sameText(t, "the IPv6 routes", shell(t, "ip -6 route show | grep -v '^fe80:\\|^fd09:24ef:4179::a89:b ' | sed -E 's/ linkdown| pref.*//g'"),
		"fd09:24ef:4179::a8b:101 dev eth0 metric 1024\n")
}

func TestAnOrdinaryNetworkKeepsItsRouteAndAsksForNeighbours(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	bridged := spec(t)
	bridged.Addresses, bridged.Network = []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}, true
	bridged.Gateway, bridged.Gateway6 = netip.MustParseAddr("192.0.2.1"), netip.Addr{}
	before := dumpNet(t)
	mustLink(t, s, bridged)
	sameText(t, "the routes", shell(t, "ip route show | sed -E 's/ linkdown//; s/ *$//'"),
		"default via 192.0.2.1 dev eth0 onlink\n192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.9\n")
	if n := shell(t, "ip neighbour show nud permanent"); n != "" {
		t.Errorf("there are neighbours: %s", n)
	}
	if again := mustLink(t, s, bridged); len(again) > 0 {
		t.Errorf("again, it changes %q", again)
	}
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
}

func TestDriftIsMended(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	mustLink(t, s, spec(t))
	up := dumpNet(t)
	for name, damage := range map[string]string{
		"the link is down":                    "ip link set eth0 down",
		"the group is another":                "ip link set eth0 group 7",
		"the address is gone":                 "ip address del 10.137.0.11/32 dev eth0",
		"the address has a network's length":  "ip address flush dev eth0 && ip address add 10.137.0.11/16 dev eth0",
		"the IPv6 address is gone":            "ip address del fd09:24ef:4179::a89:b/128 dev eth0",
		"a neighbour is gone":                 "ip neighbour del 10.139.1.1 dev eth0",
		"a neighbour is somebody else":        "ip neighbour replace 10.137.0.6 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
		"a neighbour is not permanent":        "ip neighbour replace 10.137.0.6 lladdr fe:ff:ff:ff:ff:ff dev eth0 nud reachable",
		"the default route is gone":           "ip route del default",
		"the default route has a gateway":     "ip route replace default via 10.137.0.6 dev eth0 onlink",
		"there is another default route":      "ip route add default via 10.137.0.6 dev eth0 onlink metric 100",
		"the IPv6 default route has no way":   "ip -6 route replace default dev eth0 metric 1024",
		"router advertisements are believed":  "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra",
		"IPv6 is switched off":                "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6",
		"all of it is gone, and the link too": "ip link set eth0 down; ip address flush dev eth0; ip link set eth0 group 0",
	} {
		t.Run(name, func(t *testing.T) {
			shell(t, damage)
			if changes := mustLink(t, s, spec(t)); len(changes) == 0 {
				t.Error("nothing is changed")
			}
			sameText(t, "after it was mended", dumpNet(t), up)
		})
	}
}

func TestOtherKeysTakeTheOldOnesAway(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	before := dumpNet(t)
	mustLink(t, s, spec(t))
	other := spec(t)
	other.Addresses = []netip.Prefix{netip.MustParsePrefix("10.137.0.99/32")}
	other.Gateway, other.Gateway6 = netip.MustParseAddr("10.137.0.7"), netip.Addr{}
	other.Resolvers = addrs("10.139.1.1", "10.139.1.3")
	mustLink(t, s, other)
	is := dumpNet(t)
	for _, gone := range []string{"10.137.0.11", "10.137.0.6", "10.139.1.2", "fd09:", "fe80::fcff"} {
		if strings.Contains(is, gone) {
			t.Errorf("%s is still there:\n%s", gone, is)
		}
	}
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
}

func TestWhatWasThereBeforeStays(t *testing.T) {
	plugIn(t, "eth0", mac1)
	shell(t, "ip link set eth0 group 9; ip address add 192.0.2.7/32 dev eth0")
	s := setup(t)
	before := dumpNet(t)
	mustLink(t, s, spec(t))
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
}

func TestAnotherDeviceOfTheNameIsAFreshOne(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	mustLink(t, s, spec(t))
	unplug(t, "eth0")
	plugIn(t, "eth0", mac1)
	shell(t, "ip link set eth0 group 9")
	before := dumpNet(t)
	mustLink(t, s, spec(t))
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
	mustBeForgotten(t, s)
}

func TestUnlinkNeedsNoDevice(t *testing.T) {
	plugIn(t, "eth0", mac1)
	s := setup(t)
	mustLink(t, s, spec(t))
	unplug(t, "eth0")
	mustUnlink(t, s)
	mustBeForgotten(t, s)
}

func TestIPv6IsSwitchedOnWhereTheStoreHasIt(t *testing.T) {
	plugIn(t, "eth0", mac1)
	shell(t, "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
	s := setup(t)
	before := dumpNet(t)
	mustLink(t, s, spec(t))
	if again := mustLink(t, s, spec(t)); len(again) > 0 {
		t.Errorf("again, it changes %q", again)
	}
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t)+shell(t, "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"), before+"1\n")
}

// standInLimits lays other files over the kernel's limits of neighbours, which network namespaces like the test's do not have.
func standInLimits(t *testing.T) {
	t.Helper()
	const above = "/proc/sys/net/ipv4/neigh"
	dir := t.TempDir()
	shell(t, "mkdir "+dir+"/default; cd "+dir+"/default; echo 128 >gc_thresh1; echo 512 >gc_thresh2; echo 1024 >gc_thresh3")
	shell(t, "mount --bind "+dir+" "+above)
	t.Cleanup(func() { shell(t, "umount "+above) })
}

func limits(t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Fields(shell(t, "grep -h . /proc/sys/net/ipv4/neigh/default/gc_thresh*")), " ")
}

func TestTheLimitsOfNeighboursAreRaisedUntilTheLastUplinkGoes(t *testing.T) {
	for _, order := range [][]string{{"eth0", "eth1"}, {"eth1", "eth0"}} {
		t.Run(order[0]+" goes first", func(t *testing.T) {
			standInLimits(t)
			plugIn(t, "eth0", mac1)
			plugIn(t, "eth1", mac2)
			s := setup(t)
			other := spec(t)
			other.Interface, other.MAC, other.DefaultRoute = "eth1", hardware(t, mac2), false
			other.Addresses = []netip.Prefix{netip.MustParsePrefix("10.137.0.12/32")}
			for _, spec := range []Spec{spec(t), other} {
				mustLink(t, s, spec)
				sameText(t, "with "+spec.Interface, limits(t), "2048 8192 16384")
			}
			for i, name := range order {
				if _, err := s.Unlink(withPatience(t), name); err != nil {
					t.Fatal(err)
				}
				sameText(t, "without "+name, limits(t), []string{"2048 8192 16384", "128 512 1024"}[i])
			}
			mustBeForgotten(t, s)
		})
	}
}

func TestADefaultRouteOfAnotherDeviceIsNotReplaced(t *testing.T) {
	plugIn(t, "eth0", mac1)
	plugIn(t, "eth1", mac2)
	shell(t, "ip address add 192.0.2.7/24 dev eth1; ip link set eth1 up; ip route add default via 192.0.2.1")
	s := setup(t)
	before := dumpNet(t)
	_, err := s.Link(withPatience(t), spec(t))
	if err == nil || !strings.Contains(err.Error(), "eth0: add the route default on the link: another device has such a route already") {
		t.Errorf("got %v", err)
	}
	mustUnlink(t, s)
	sameText(t, "after Unlink", dumpNet(t), before)
}

func TestALinkOfAnotherMACIsLeftAlone(t *testing.T) {
	plugIn(t, "eth0", mac2)
	s := setup(t)
	before := dumpNet(t)
	_, err := s.Link(withPatience(t), spec(t))
	if err == nil || err.Error() != "eth0: its MAC is "+mac2+" now, and was "+mac1 {
		t.Errorf("got %v", err)
	}
	sameText(t, "the kernel", dumpNet(t), before)
	mustBeForgotten(t, s)
}

func TestNamesThatCannotBeInterfaces(t *testing.T) {
	s := setup(t)
	for _, name := range []string{"", "..", "a/b", "../x", strings.Repeat("x", unix.IFNAMSIZ), "a b", "a:1", "a\x00"} {
		if _, err := s.Unlink(withPatience(t), name); err == nil || !strings.Contains(err.Error(), "no name of a network interface") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
