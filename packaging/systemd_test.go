// Package packaging_test runs netvmd as the service that the files here make of it: under a real systemd with a real
// system bus, booted by systemd-nspawn from this machine's own /usr with what make install installs laid over it.
package packaging_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"netvmd/dbus"
	"netvmd/internal/netvm"
)

// service is netvmd.service in a container, and what the bus tells of it.
type service struct {
	*services
	events <-chan dbus.Event
}

// awaitStatus waits until netvmd says what is wanted.
func (s *service) awaitStatus(what string, holds func(netvm.Status) bool) {
	s.t.Helper()
	for e := range s.events {
		if e.Running && holds(e.Status) {
			return
		}
	}
	s.t.Fatalf("%s: not in time", what)
}

// leads waits until AppVM DNS goes to that address.
func (s *service) leads(address string) {
	s.t.Helper()
	s.awaitStatus("targets lead to "+address, func(status netvm.Status) bool {
		return len(status.DNSTargets) == 2 && status.DNSTargets[0].Resolver.Addr.String() == address
	})
}

// pid is the daemon's; 0 = it does not run.
func (s *service) pid() uint32 { return s.property(unit, "MainPID").(uint32) }

// active waits until netvmd.service is.
func (s *service) active() {
	s.t.Helper()
	s.await(unit, "active", func() bool { return s.is(unit, "active") })
}

// replaced sends the daemon a signal and waits for another one in its place.
func (s *service) replaced(signal string) {
	s.t.Helper()
	before := s.pid()
	s.shell("systemctl kill --kill-whom=main --signal=" + signal + " " + unit)
	s.await(unit, "replaced", func() bool { return s.pid() != before && s.is(unit, "active") })
}

func TestServiceUnderSystemd(t *testing.T) {
	m := boot(t, shortWatchdog)
	s := service{m.services(), dbus.Watch(m.ctx)}
	for _, tc := range []struct {
		name  string
		check func(*service)
	}{
		{"it is active once AppVM DNS is in place", (*service).beginsWithDNS},
		{"the firewall was loaded before there was a network", (*service).loadsFirst},
		{"reload reads the configuration again", (*service).reloads},
		{"dependants are told, and never so often that systemd gives them up", (*service).tellsDependants},
		{"it is started again however often it is killed, and takes over", (*service).survives},
		{"a daemon that hangs is replaced by the watchdog", (*service).isWatched},
		{"a persistent override is kept inside the sandbox", (*service).keepsOverrides},
		{"a vif is mended inside the sandbox", (*service).mendsVifs},
		{"who changed our rules is known inside the sandbox", (*service).namesCulprits},
		{"stop leaves the kernel's rules", (*service).leavesRules},
		{"a call starts it where it is enabled", (*service).isActivated},
		{"and is refused at once where it is not", (*service).refusesActivation},
		{"only root may be netvmd on the bus", (*service).isRoots},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.check(&service{s.in(t), s.events}) })
	}
}

func (s *service) beginsWithDNS() {
	s.active()
	s.leads("192.0.2.1")
}

func (s *service) loadsFirst() {
	if !s.is(firewall, "active") {
		s.t.Fatalf("%s is %v", firewall, s.property(firewall, "ActiveState"))
	}
	if at, network := s.entered(firewall), s.entered("network-pre.target"); network < at || s.entered(unit) < at {
		s.t.Errorf("loaded at %d µs, network-pre.target was reached at %d µs, netvmd at %d µs", at, network, s.entered(unit))
	}
	s.shell("netvmctl firewall check")
}

func (s *service) reloads() {
	s.configure(`servers = ["192.0.2.99"]`)
	s.shell("systemctl reload " + unit)
	s.leads("192.0.2.99")
	s.configure("")
	s.shell("systemctl reload " + unit)
	s.leads("192.0.2.1")
}

func (s *service) tellsDependants() {
	for i := range 40 {
		s.resolvers(fmt.Sprintf("192.0.2.%d", 100+i))
		s.leads(fmt.Sprintf("192.0.2.%d", 100+i))
	}
	last := uint64(time.Now().UnixMicro())
	s.await(dependant, "restarted after the last change", func() bool {
		since, _ := s.property(dependant, "ActiveEnterTimestamp").(uint64)
		return since > last && s.is(dependant, "active")
	})
	if n := s.lines("starts"); n < 3 || n > 5 {
		s.t.Errorf("%s was started %d times for 43 changes; systemd bears 5 in 10 s", dependant, n)
	}
	s.await(reloaded, "reloaded", func() bool { return s.lines("reloads") > 0 })
	if n := s.lines("reloads"); n > 5 {
		s.t.Errorf("%s was reloaded %d times", reloaded, n)
	}
}

// survives kills it more often, and faster, than systemd bears of a unit that does not say otherwise: 5 times in 10 s.
func (s *service) survives() {
	for range 10 {
		s.replaced("SIGKILL")
	}
	s.leads("192.0.2.139")
}

func (s *service) isWatched() {
	s.replaced("SIGSTOP")
	s.leads("192.0.2.139")
}

func (s *service) keepsOverrides() {
	s.call("SetDnsOverride", "asb 1 192.0.2.200 true")
	s.leads("192.0.2.200")
	s.replaced("SIGKILL")
	s.leads("192.0.2.200")
	if got := s.shell("stat -c '%a %u' /var/lib/netvmd/override.json"); got != "644 0\n" {
		s.t.Errorf("the override is kept with the mode and owner %q", got)
	}
	s.call("ClearDnsOverride", "")
	s.leads("192.0.2.139")
}

// call calls netvmd over the bus.
func (s *service) call(method, arguments string) {
	s.t.Helper()
	s.shell(fmt.Sprintf("busctl call %s %s %s %s %s", dbus.Name, dbus.Path, dbus.Interface, method, arguments))
}

func (s *service) mendsVifs() {
	s.write("shared/vif7.0.json", `{"name":"vif7.0","domid":7,"addresses":["10.137.0.7","fd00::7"],"visible_address":"",
		"visible_gateway":"","mac":"00:16:3e:5e:6c:07","gateway":"10.137.0.6","gateway6":"fd00::6","metric":32745,"state":"up",
		"since":"2026-01-02T03:04:05Z"}`)
	s.shell("ip link add vif7.0 type veth peer name card7 && mv /var/shared/vif7.0.json /run/netvmd/vifs/")
	s.awaitStatus("vif7.0 is up", func(status netvm.Status) bool { return len(status.Vifs) == 1 && status.Vifs[0].State == netvm.VifUp })
	if got := s.shell("ip route show dev vif7.0"); !strings.Contains(got, "10.137.0.7 scope link metric 32745") {
		s.t.Error(got)
	}
	s.shell("netvmctl firewall check")
}

func (s *service) namesCulprits() {
	s.shell("nft flush map ip netvmd dns-targets")
	s.awaitLog(`changed_by="nft (pid `)
	s.call("SetDnsOverride", "asb 1 192.0.2.201 true")
	s.awaitLog("busctl (pid ")
	s.call("ClearDnsOverride", "")
	s.leads("192.0.2.139")
}

func (s *service) leavesRules() {
	s.shell("systemctl stop " + unit)
	if got := s.shell("nft list map ip netvmd dns-targets"); !strings.Contains(got, "10.139.1.1 : 192.0.2.139") {
		s.t.Error(got)
	}
	for e := range s.events {
		if !e.Running {
			return
		}
	}
	s.t.Error("a stopped daemon answers")
}

func (s *service) isActivated() {
	s.call("Refresh", "")
	s.active()
}

func (s *service) refusesActivation() {
	s.shell("systemctl disable --now " + unit)
	out, err := s.run("timeout", "5", "busctl", "call", dbus.Name, string(dbus.Path), dbus.Interface, "Refresh")
	if err == nil || !strings.Contains(out, "dbus-org.qubes_os.NetVM1.service") {
		s.t.Errorf("a caller was told %v: %s", err, out)
	}
	if !s.is(unit, "inactive") {
		s.t.Errorf("%s is %v", unit, s.property(unit, "ActiveState"))
	}
}

func (s *service) isRoots() {
	out, err := s.run("setpriv", "--reuid=65534", "--clear-groups", "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
		"org.freedesktop.DBus", "RequestName", "su", dbus.Name, "0")
	if err == nil || !strings.Contains(out, "denied") {
		s.t.Errorf("a stranger may own %s: %v %s", dbus.Name, err, out)
	}
}
