package nmhook

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"netvmd/internal/netvm"
)

var comparable = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestTheFirstViewHasEverySourceInWhole(t *testing.T) {
	startBus(t)
	nmFake(t).own()
	resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}}).own()
	path := t.TempDir() + "/resolv.conf"
	writeFile(t, path, "nameserver 198.51.100.1\n")
	w := watchFile(t, path)
	got := w.next("the first")
	want := netvm.View{
		State: netvm.Online,
		Uplinks: []netvm.Uplink{{ID: "uplink eth0", Type: "802-3-ethernet", Interface: "eth0", Metered: false,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")}, Gateway: netip.MustParseAddr("192.0.2.254")}},
		NetworkManager: netvm.NetworkManagerDNS{Running: true, Entries: []netvm.DNSEntry{
			{Interface: "eth0", Priority: 100, Servers: addrs("192.0.2.1")}}},
		Resolved: netvm.ResolvedDNS{Running: true, Servers: []netvm.ResolvedServer{
			{Resolver: netvm.Resolver{Addr: netip.MustParseAddr("9.9.9.9")}}}},
		ResolvConf: netvm.ResolvConf{Path: path, Owner: netvm.ResolvConfOther, Servers: addrs("198.51.100.1")},
	}
	if d := cmp.Diff(want, got, comparable); d != "" {
		t.Error(d)
	}
}

func TestWithoutAnySourceTheFirstViewIsEmpty(t *testing.T) {
	startBus(t)
	w := watch(t)
	v := w.next("the first")
	if v.State != netvm.Offline || v.NetworkManager.Running || v.Resolved.Running || v.ResolvConf.Owner != netvm.ResolvConfAbsent || len(v.Faults) != 0 {
		t.Errorf("got %+v", v)
	}
}

func TestASilentServiceDelaysTheFirstViewNoLongerThanItsDeadline(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	speak := f.hush()
	resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}}).own()
	w := watch(t)
	v := w.until("a view without NetworkManager", hasFault("ask NetworkManager for its DNS configuration: no answer in time"))
	if len(v.Resolved.Servers) != 1 {
		t.Errorf("resolved was read long ago, but the view is %+v", v)
	}
	speak()
	w.until("NetworkManager speaks again", func(v netvm.View) bool {
		return uplinkIs("192.0.2.1")(v) && len(v.Uplinks) == 1 && len(v.Faults) == 0
	})
}

func TestADNSChangeIsHandedOutWhileTheServiceDoesNotAnswer(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	speak := f.hush()
	defer speak()
	before := time.Now()
	f.change(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.2"))
	v := w.next("the carried value")
	if !uplinkIs("192.0.2.2")(v) || v.Signals != 1 || v.Arrived.Before(before) {
		t.Errorf("got %+v", v)
	}
}

func TestASignalThatOnlyInvalidatesHasThePropertyRead(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	f.set(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.3"))
	f.invalidate(nmDNSPath, nmDNSInterface, "Configuration")
	if v := w.next("the value read"); !uplinkIs("192.0.2.3")(v) || v.Signals != 1 || v.Arrived.IsZero() {
		t.Errorf("got %+v", v)
	}
}

func TestASignalOfSomebodyElseIsIgnored(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	sendAsStranger(t, nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "203.0.113.66"))
	f.change(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.2"))
	if v := w.next("the genuine change"); !uplinkIs("192.0.2.2")(v) || v.Signals != 1 {
		t.Errorf("a stranger's signal counts: %+v", v)
	}
}

func TestAMalformedConfigurationKeepsTheLastGoodOneAndSaysSo(t *testing.T) {
	tests := map[string]struct {
		value any
		fault string
	}{
		"the property is no list of dictionaries": {"banana", `DnsManager.Configuration is not aa{sv}: "banana"`},
		"a member has another type": {[]map[string]godbus.Variant{{"priority": godbus.MakeVariant("high")}},
			`DnsManager.Configuration[0]: priority has another type: "high"`},
		"a nameserver is no address": {dnsConfig("eth0", "192.0.2.7", "not-an-address"), `nameserver of eth0: "not-an-address" is not a nameserver`},
		"an interface cannot exist":  {dnsConfig("../../etc", "192.0.2.7"), `interface "../../etc" cannot exist`},
	}
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w.t = t
			f.change(nmDNSPath, nmDNSInterface, "Configuration", test.value)
			if v := w.until("the fault", hasFault(test.fault)); !uplinkIs("192.0.2.1")(v) {
				t.Errorf("the last good value is gone: %+v", v.NetworkManager)
			}
			f.change(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.8"))
			w.until("recovered", func(v netvm.View) bool { return uplinkIs("192.0.2.8")(v) && len(v.Faults) == 0 })
			f.change(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.1"))
			w.until("as before", uplinkIs("192.0.2.1"))
		})
	}
}

func TestAPropertyThatPanicsTheLibraryIsAFault(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	f.change(acPath, nmName+".Connection.Active", "Vpn", "yes")
	v := w.until("the fault", hasFault("gonetworkmanager panicked"))
	if len(v.Uplinks) != 1 {
		t.Errorf("the last good uplinks are gone: %+v", v)
	}
	f.change(acPath, nmName+".Connection.Active", "Vpn", true)
	w.until("recovered", func(v netvm.View) bool { return len(v.Faults) == 0 && v.Uplinks[0].VPN })
}

func TestAnEmptyConfigurationCountsOnlyWhenNetworkManagerHasStarted(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	f.disown()
	w.until("away", func(v netvm.View) bool { return !v.NetworkManager.Running })
	f.set(nmPath, nmName, "Startup", true)
	f.set(nmDNSPath, nmDNSInterface, "Configuration", []map[string]godbus.Variant{})
	f.own()
	if v := w.until("back", func(v netvm.View) bool { return v.NetworkManager.Running }); !uplinkIs("192.0.2.1")(v) {
		t.Errorf("starting up, it lost its last word: %+v", v.NetworkManager)
	}
	f.change(nmDNSPath, nmDNSInterface, "Configuration", []map[string]godbus.Variant{})
	f.change(nmPath, nmName, "State", uint32(40))
	if v := w.until("a later signal", func(v netvm.View) bool { return v.State == netvm.Connecting }); !uplinkIs("192.0.2.1")(v) {
		t.Errorf("an empty configuration in a signal counts while it starts up: %+v", v.NetworkManager)
	}
	f.change(nmPath, nmName, "Startup", false)
	w.until("empty, as it has started", uplinkIs())
}

func TestAnUplinkThatLeavesWithoutARestartTakesItsResolversAlong(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	f.change(nmDNSPath, nmDNSInterface, "Configuration", []map[string]godbus.Variant{})
	w.until("empty", uplinkIs())
}

func TestANameThatFlapsEndsInTheRightState(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	f.own()
	w := watch(t)
	w.next("the first")
	for i := range 50 {
		f.disown()
		f.set(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", fmt.Sprintf("192.0.2.%d", i+2)))
		f.own()
	}
	w.until("the last value", func(v netvm.View) bool { return uplinkIs("192.0.2.51")(v) && v.NetworkManager.Running })
}

func TestTheBusDiesAndComesBack(t *testing.T) {
	bus := startBus(t)
	f := nmFake(t)
	f.own()
	r := resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}})
	r.own()
	w := watch(t)
	w.next("the first")
	bus.stop()
	v := w.until("the fault", hasFault("the system bus is away"))
	if !uplinkIs("192.0.2.1")(v) || !v.NetworkManager.Running || !v.Resolved.Running || len(v.Resolved.Servers) != 1 {
		t.Errorf("without the bus, what was known changed: %+v", v)
	}
	bus.start(t)
	f.connect()
	f.set(nmDNSPath, nmDNSInterface, "Configuration", dnsConfig("eth0", "192.0.2.2"))
	f.own()
	w.until("the new bus's word", func(v netvm.View) bool {
		return uplinkIs("192.0.2.2")(v) && v.NetworkManager.Running && !v.Resolved.Running && len(v.Faults) == 0
	})
}

func TestResolvedIsReadAgainAfterItsSignalAndAfterSleep(t *testing.T) {
	startBus(t)
	r := resolvedFake(t, resolvedEntry{0, 2, []byte{9, 9, 9, 9}})
	r.own()
	login := fake(t, loginName)
	login.own()
	w := watch(t)
	w.next("the first")
	is := func(text string) func(netvm.View) bool {
		return func(v netvm.View) bool {
			return len(v.Resolved.Servers) == 1 && v.Resolved.Servers[0].Resolver.Addr.String() == text
		}
	}
	r.change(resolvedPath, resolvedIface, "DNS", []resolvedEntry{{0, 10, netip.MustParseAddr("2001:db8::1").AsSlice()}})
	w.until("changed", is("2001:db8::1"))
	r.change(resolvedPath, resolvedIface, "CacheStatistics", uint32(7))
	r.set(resolvedPath, resolvedIface, "DNS", []resolvedEntry{{0, 2, []byte{8, 8, 4, 4}}})
	login.emit(loginPath, loginIface+".PrepareForSleep", true)
	login.emit(loginPath, loginIface+".PrepareForSleep", false)
	if v := w.until("read after sleep", is("8.8.4.4")); v.Signals != 1 {
		t.Errorf("answers %d signals, want only the one of waking up", v.Signals)
	}
	r.change(resolvedPath, resolvedIface, "DNS", []resolvedEntry{{0, 2, []byte{8, 8, 4}}})
	if v := w.until("malformed", hasFault("systemd-resolved's DNS[0]: 3 bytes are no address of family 2")); !is("8.8.4.4")(v) {
		t.Errorf("the last good value is gone: %+v", v.Resolved)
	}
}

func TestTheAccessPointInUseIsFollowed(t *testing.T) {
	startBus(t)
	f := nmFake(t)
	const mine = nmPath + "/AccessPoint/1"
	f.set(mine, accessPoint, "Ssid", []byte("caf\xe9"))
	f.set(mine, accessPoint, "Strength", byte(60))
	f.set(acPath, nmName+".Connection.Active", "Type", wifiType)
	f.set(acPath, nmName+".Connection.Active", "SpecificObject", mine)
	f.own()
	w := watch(t)
	v := w.until("Wi-Fi", func(v netvm.View) bool { return len(v.Uplinks) == 1 })
	if v.Uplinks[0].SSID != "caf\uFFFD" || v.Uplinks[0].Strength != 60 {
		t.Errorf("got %+v", v.Uplinks[0])
	}
	f.change(mine, accessPoint, "Strength", byte(30))
	w.until("weaker", func(v netvm.View) bool { return v.Uplinks[0].Strength == 30 })
}
