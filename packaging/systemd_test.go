// Package packaging_test runs netvmd as the service that the files here make of it: under a real systemd with a real
// system bus, booted by systemd-nspawn from this machine's own /usr.
package packaging_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"netvmd/dbus"
	"netvmd/internal/lab/container"
	"netvmd/internal/netvm"
)

// patience bounds the whole test; every wait in it is for an event.
const patience = 2 * time.Minute

const (
	unit      = "netvmd.service"
	firewall  = "netvmd-firewall.service"
	dependant = "proxy.service"
	reloaded  = "firewall.service"
)

// machine is a container with systemd as its first process.
type machine struct {
	*container.Machine
	t   *testing.T
	ctx context.Context
	dir string // of the test: netvmd's configuration, resolv.conf and what the units write
}

// boot starts the container with netvmd.service installed, and a unit each that netvmd restarts and reloads.
func boot(t *testing.T) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	m := &machine{t: t, ctx: ctx, dir: t.TempDir()}
	build := exec.Command("go", "build", "-o", filepath.Join(m.dir, "bin")+"/", "../cmd/netvmd", "../cmd/netvmctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	for _, u := range []string{unit, firewall} {
		text, err := os.ReadFile("systemd/" + u)
		m.must(err)
		m.write("units/"+u, string(text))
	}
	m.write("units/netvmd-firewall.service.d/test.conf", "[Service]\nExecStart=\nExecStart=/opt/bin/netvmctl firewall load\n")
	m.write("units/sysinit.target.wants/.keep", "")
	m.must(os.Symlink("../"+firewall, filepath.Join(m.dir, "units/sysinit.target.wants", firewall)))
	// What differs from the installed units: where the programs are, and a watchdog that a test can wait for.
	m.write("units/netvmd.service.d/test.conf", "[Service]\nExecStart=\nExecStart=/opt/bin/netvmd\nWatchdogSec=2s\n")
	m.write("units/"+dependant, "[Service]\nExecStartPre=/bin/sh -c 'echo start >>/var/shared/starts'\nExecStart=/bin/sleep infinity\n")
	m.write("units/"+reloaded, "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo reload >>/var/shared/reloads'\n")
	m.write("units/multi-user.target.wants/.keep", "")
	for _, u := range []string{unit, dependant, reloaded} {
		m.must(os.Symlink("../"+u, filepath.Join(m.dir, "units/multi-user.target.wants", u)))
	}
	m.write("shared/.keep", "")
	m.resolvers("192.0.2.1")
	m.configure("")
	m.nspawn()
	return m
}

// configure writes netvmd.toml with more lines for its [dns] table.
func (m *machine) configure(dns string) {
	m.t.Helper()
	m.write("netvmd/netvmd.toml", fmt.Sprintf("[dns]\nsource = \"resolv.conf\"\nresolv_conf = \"/var/shared/resolv.conf\"\n%s\n"+
		"[hooks]\ntry_restart_units = [%q, \"absent.service\"]\ntry_reload_units = [%q]\n", dns, dependant, reloaded))
}

// resolvers replaces the resolv.conf that netvmd follows.
func (m *machine) resolvers(address string) {
	m.t.Helper()
	m.write("shared/resolv.conf.new", "nameserver "+address+"\n")
	m.must(os.Rename(filepath.Join(m.dir, "shared/resolv.conf.new"), filepath.Join(m.dir, "shared/resolv.conf")))
}

func (m *machine) nspawn() {
	m.t.Helper()
	ours := func(dir, at string) container.Bind {
		path, err := filepath.Abs(dir)
		m.must(err)
		return container.Bind{From: path, To: at, ReadOnly: true}
	}
	bind := func(dir, at string) container.Bind { return container.Bind{From: filepath.Join(m.dir, dir), To: at} }
	var err error
	m.Machine, err = container.Boot(m.ctx, container.Options{Binds: []container.Bind{
		ours("dbus-1", "/etc/dbus-1/system.d"), ours("NetworkManager", "/etc/NetworkManager/conf.d"), ours("examples", "/opt/examples"),
		bind("bin", "/opt/bin"), bind("bin", "/usr/local/bin"), bind("units", "/etc/systemd/system"), bind("netvmd", "/etc/netvmd"), bind("shared", "/var/shared"),
	}})
	if err != nil {
		m.t.Fatalf("this test needs root and systemd-nspawn (package systemd-container): %v", err)
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("the container's journal:\n%s", m.Journal(m.ctx))
		}
		m.must(m.Close())
	})
	m.t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", m.Bus())
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	m.must(os.WriteFile(path, []byte(text), 0o644))
}

// lines counts the lines of a file that the units write.
func (m *machine) lines(name string) int {
	text, err := os.ReadFile(filepath.Join(m.dir, "shared", name))
	if err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// run runs a program in the container.
func (m *machine) run(args ...string) (string, error) { return m.Run(m.ctx, args...) }

func (m *machine) property(conn *systemd.Conn, of, name string) any {
	m.t.Helper()
	p, err := conn.GetAllPropertiesContext(m.ctx, of)
	m.must(err)
	return p[name]
}

func TestServiceUnderSystemd(t *testing.T) {
	m := boot(t)
	events := dbus.Watch(m.ctx)
	await := func(what string, holds func(netvm.Status) bool) {
		t.Helper()
		for e := range events {
			if e.Running && holds(e.Status) {
				return
			}
		}
		t.Fatalf("%s: not in time", what)
	}
	leads := func(address string) {
		t.Helper()
		await("targets lead to "+address, func(s netvm.Status) bool {
			return len(s.DNSTargets) == 2 && s.DNSTargets[0].Resolver.Addr.String() == address
		})
	}
	conn, err := systemd.NewSystemConnectionContext(m.ctx)
	m.must(err)
	defer conn.Close()
	updates, failed := make(chan *systemd.PropertiesUpdate, 1000), make(chan error, 1)
	conn.SetPropertiesSubscriber(updates, failed) // before Subscribe, or the library races
	m.must(conn.Subscribe())
	// unitIs waits until a unit's properties satisfy holds.
	unitIs := func(name, what string, holds func() bool) {
		t.Helper()
		for !holds() {
			select {
			case <-updates:
			case err := <-failed:
				t.Fatal(err)
			case <-m.ctx.Done():
				t.Fatalf("%s: %s: not in time", name, what)
			}
		}
	}
	state := func(want string) func() bool {
		return func() bool { return m.property(conn, unit, "ActiveState") == want }
	}
	pid := func() uint32 { return m.property(conn, unit, "MainPID").(uint32) }

	t.Run("it is active once AppVM DNS is in place", func(*testing.T) {
		unitIs(unit, "active", state("active"))
		leads("192.0.2.1")
	})
	t.Run("the firewall was loaded before there was a network", func(t *testing.T) {
		if got := m.property(conn, firewall, "ActiveState"); got != "active" {
			t.Fatalf("%s is %v", firewall, got)
		}
		entered := func(of string) uint64 { return m.property(conn, of, "ActiveEnterTimestampMonotonic").(uint64) }
		if at, network := entered(firewall), entered("network-pre.target"); network < at || entered(unit) < at {
			t.Errorf("loaded at %d µs, network-pre.target was reached at %d µs, netvmd at %d µs", at, network, entered(unit))
		}
		if out, err := m.run("/opt/bin/netvmctl", "firewall", "check"); err != nil {
			t.Errorf("netvmctl firewall check: %v: %s", err, out)
		}
	})
	t.Run("reload reads the configuration again", func(*testing.T) {
		m.configure(`servers = ["192.0.2.99"]`)
		out, err := m.run("systemctl", "reload", unit)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		leads("192.0.2.99")
		m.configure("")
		_, err = m.run("systemctl", "reload", unit)
		m.must(err)
		leads("192.0.2.1")
	})
	t.Run("dependants are told, and never so often that systemd gives them up", func(t *testing.T) {
		for i := range 40 {
			m.resolvers(fmt.Sprintf("192.0.2.%d", 100+i))
			leads(fmt.Sprintf("192.0.2.%d", 100+i))
		}
		last := uint64(time.Now().UnixMicro())
		unitIs(dependant, "restarted after the last change", func() bool {
			since, _ := m.property(conn, dependant, "ActiveEnterTimestamp").(uint64)
			return since > last && m.property(conn, dependant, "ActiveState") == "active"
		})
		if n := m.lines("starts"); n < 3 || n > 5 {
			t.Errorf("%s was started %d times for 43 changes; systemd bears 5 in 10 s", dependant, n)
		}
		unitIs(reloaded, "reloaded", func() bool { return m.lines("reloads") > 0 })
		if n := m.lines("reloads"); n > 5 {
			t.Errorf("%s was reloaded %d times", reloaded, n)
		}
	})
	t.Run("a crash is followed by a start that takes over", func(*testing.T) {
		before := pid()
		_, err := m.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
		m.must(err)
		leads("192.0.2.139")
		unitIs(unit, "active again", func() bool { return state("active")() && pid() != before })
	})
	t.Run("a daemon that hangs is replaced by the watchdog", func(*testing.T) {
		before := pid()
		_, err := m.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", unit)
		m.must(err)
		unitIs(unit, "replaced", func() bool { return pid() != before && state("active")() })
		leads("192.0.2.139")
	})
	t.Run("a persistent override is kept inside the sandbox", func(t *testing.T) {
		call := func(method string, args ...string) {
			t.Helper()
			out, err := m.run(append([]string{"busctl", "call", dbus.Name, string(dbus.Path), dbus.Interface, method}, args...)...)
			if err != nil {
				t.Fatalf("%s: %v: %s", method, err, out)
			}
		}
		call("SetDnsOverride", "asb", "1", "192.0.2.200", "true")
		leads("192.0.2.200")
		before := pid()
		_, err := m.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGKILL", unit)
		m.must(err)
		unitIs(unit, "active again", func() bool { return state("active")() && pid() != before })
		leads("192.0.2.200")
		if out, err := m.run("stat", "-c", "%a %u", "/var/lib/netvmd/override.json"); err != nil || out != "644 0\n" {
			t.Errorf("%v: %q", err, out)
		}
		call("ClearDnsOverride")
		leads("192.0.2.139")
	})
	t.Run("a vif is mended inside the sandbox", func(t *testing.T) {
		m.write("shared/vif7.0.json", `{"name":"vif7.0","domid":7,"addresses":["10.137.0.7","fd00::7"],"visible_address":"",
			"visible_gateway":"","mac":"00:16:3e:5e:6c:07","gateway":"10.137.0.6","gateway6":"fd00::6","metric":32745,"state":"up",
			"since":"2026-01-02T03:04:05Z"}`)
		out, err := m.run("sh", "-c", "ip link add vif7.0 type veth peer name card7 && mv /var/shared/vif7.0.json /run/netvmd/vifs/")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		await("vif7.0 is up", func(s netvm.Status) bool { return len(s.Vifs) == 1 && s.Vifs[0].State == netvm.VifUp })
		if out, err := m.run("ip", "route", "show", "dev", "vif7.0"); err != nil || !strings.Contains(out, "10.137.0.7 scope link metric 32745") {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := m.run("/opt/bin/netvmctl", "firewall", "check"); err != nil {
			t.Errorf("netvmctl firewall check: %v: %s", err, out)
		}
	})
	t.Run("stop leaves the kernel's rules", func(t *testing.T) {
		_, err := m.run("systemctl", "stop", unit)
		m.must(err)
		out, err := m.run("nft", "list", "map", "ip", "netvmd", "dns-targets")
		if err != nil || !strings.Contains(out, "10.139.1.1 : 192.0.2.139") {
			t.Errorf("%v: %s", err, out)
		}
		for e := range events {
			if !e.Running {
				return
			}
		}
		t.Error("a stopped daemon answers")
	})
	t.Run("only root may be netvmd on the bus", func(t *testing.T) {
		out, err := m.run("setpriv", "--reuid=65534", "--clear-groups", "busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
			"org.freedesktop.DBus", "RequestName", "su", dbus.Name, "0")
		if err == nil || !strings.Contains(out, "denied") {
			t.Errorf("a stranger may own %s: %v %s", dbus.Name, err, out)
		}
	})
}
