package vif

import (
	"encoding/binary"
	"net/netip"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// everyKindOfRoute is for `ip -batch`.
const everyKindOfRoute = `
link set lo up
link add v0 type veth peer name v1
link set v0 up
link set v1 up
addr add 10.0.0.1/24 dev v0
route add default via 10.0.0.9 metric 100
route add unreachable default metric 4278198272
route add 10.1.0.0/16 via 10.0.0.2
route add 10.9.9.9 dev v0 metric 32748
route add 10.9.9.9 dev v1 metric 32747
route add blackhole 10.2.0.0/16
route add unreachable 10.3.0.0/16
route add prohibit 10.4.4.4/32 metric 5
route add throw 10.5.0.0/16
route add 10.6.0.0/16 nexthop via 10.0.0.3 nexthop via 10.0.0.4
route add 10.7.0.0/16 via 10.0.0.2 metric 4294967295
route add local 10.8.0.1 dev v0 table main
route add 10.10.0.0/16 via inet6 fe80::2 dev v0
route add 10.13.0.0/16 dev v1 mtu 1400 window 5000 rtt 30ms
route add multicast 239.0.0.0/8 dev v0
route add broadcast 10.15.0.255 dev v0 table main
route add 10.14.0.0/16 dev v1 table 77
`

// enterNamespace gives the test's goroutine a network namespace of its own.
func enterNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread dies with the test's goroutine, and its namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("these tests need root, to make a network namespace: %v", err)
	}
}

func TestRoutesAreTheRowsOfRoute(t *testing.T) {
	for _, tc := range []struct {
		name, batch string
		rows        int
	}{
		{"an empty table has none", "link set lo up\n", 0},
		{"a host without a default route", "link set lo up\nlink add v0 type veth peer name v1\nlink set v0 up\naddr add 10.0.0.1/24 dev v0\n", 1},
		{"every kind of route", everyKindOfRoute, 15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			enterNamespace(t)
			batch := exec.Command("ip", "-batch", "-")
			batch.Stdin = strings.NewReader(tc.batch)
			if out, err := batch.CombinedOutput(); err != nil {
				t.Fatalf("ip -batch: %v: %s", err, out)
			}
			out, err := exec.Command("route", "-n").CombinedOutput()
			if err != nil {
				t.Fatalf("route -n (package net-tools is needed): %v: %s", err, out)
			}
			got, err := Routes()
			if err != nil {
				t.Fatal(err)
			}
			if want := readRoute(t, string(out)); len(want) != tc.rows || !slices.Equal(got, want) {
				t.Errorf("%d routes:\n%+v\nroute -n has %d, want %d:\n%s", len(got), got, len(want), tc.rows, out)
			}
		})
	}
}

func TestAKernelWhoseTablesWereNeverUsedHasNoRoutes(t *testing.T) {
	enterNamespace(t) // there the file is empty, head and all
	if got, err := Routes(); err != nil || len(got) > 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// readRoute reads what `route -n` prints below its two lines of heads.
func readRoute(t *testing.T, text string) []netvm.Route {
	t.Helper()
	address := func(s string) netip.Addr {
		return netip.MustParseAddr(strings.Replace(s, "-", "0.0.0.0", 1))
	}
	number := func(s string) uint32 {
		if s == "-" {
			return 0
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
	var out []netvm.Route
	for _, line := range strings.Split(strings.TrimSpace(text), "\n")[2:] {
		f := strings.Fields(line)
		out = append(out, netvm.Route{
			Destination: address(f[0]), Gateway: address(f[1]), Genmask: address(f[2]), Flags: f[3],
			Metric: number(f[4]), Ref: number(f[5]), Use: number(f[6]), Interface: f[7],
		})
	}
	return out
}

const routesText = routesHead + "\tMTU\tWindow\tIRTT   \n"

func TestRowsOfOtherKernelsAreRead(t *testing.T) {
	digits := func(a string) string { return hexOf(netip.MustParseAddr(a)) }
	any4 := digits("0.0.0.0")
	got, err := parseRoutes(routesText +
		"eth0\t" + any4 + "\t" + digits("192.0.2.1") + "\t003B\t2\t7\t-5\t" + any4 + "\t0\t0\t0   \n" +
		"down0\t" + any4 + "\t" + any4 + "\t0000\t0\t0\t0\t" + any4 + "\t0\t0\t0\n" +
		"\xff\u00a00\t" + digits("198.51.100.0") + "\t" + any4 + "\t1050001\t0\t0\t0\t" + digits("255.255.255.0") + "\t0\t0\t0\n")
	zero := netip.IPv4Unspecified()
	want := []netvm.Route{
		{Destination: zero, Gateway: netip.MustParseAddr("192.0.2.1"), Genmask: zero, Flags: "UGRDM", Ref: 2, Use: 7, Metric: 4294967291, Interface: "eth0"},
		{Destination: netip.MustParseAddr("198.51.100.0"), Gateway: zero, Genmask: netip.MustParseAddr("255.255.255.0"), Flags: "UdAC", Interface: "?\u00a00"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}

func hexOf(a netip.Addr) string {
	b := a.As4()
	return strings.ToUpper(strconv.FormatUint(1<<32+uint64(binary.NativeEndian.Uint32(b[:])), 16)[1:])
}

func TestWhatIsNoTableOfRoutesIsAnErrorThatNamesTheLine(t *testing.T) {
	good := "eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
	for _, tc := range []struct{ name, text, want string }{
		{"another head", "Inter-|   Receive\n", `line 1: "Inter-|   Receive" is no head`},
		{"a row of one word", routesText + good + "eth0\n", `line 3: "eth0" is no route`},
		{"a row without a device", routesText + "\t0\t0\t0\t0\t0\t0\t0\n", "line 2: "},
		{"flags that are none", routesText + strings.Replace(good, "0001", "000x", 1), `parsing "000x"`},
		{"a metric that is none", routesText + strings.Replace(good, "\t0\t0\t0\t0", "\t0\t0\t99999999999\t0", 1), "value out of range"},
		{"an address of three bytes", routesText + strings.Replace(good, "00000000", "000000", 1), `"000000" is no address`},
	} {
		got, err := parseRoutes(tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
			t.Errorf("%s: %v, %v; want %q", tc.name, got, err, tc.want)
		}
	}
}

func FuzzRoutes(f *testing.F) {
	f.Add(routesText + "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n*\t0404040A\t00000000\t0205\t0\t0\t5\tFFFFFFFF\t0\t0\t0\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		routes, err := parseRoutes(text)
		if err != nil {
			if routes != nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("%d routes beside the error %q", len(routes), err)
			}
			return
		}
		for _, r := range routes {
			if !r.Destination.Is4() || !r.Gateway.Is4() || !r.Genmask.Is4() || r.Interface == "" || strings.Trim(r.Flags, "U!GHRDMdAC") != "" {
				t.Errorf("%+v", r)
			}
		}
	})
}
