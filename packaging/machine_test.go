package packaging_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"netvmd/internal/lab/container"
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
	// dir is the test's: usr lies over the container's own /usr, etc has folders of its /etc, and shared is /var/shared, with
	// resolv.conf and what the units write.
	dir   string
	binds []container.Bind // more of what the container has of this machine
}

// boot starts the container with what make install installs, enabled by its own preset as in a template, and a unit each
// that netvmd restarts and reloads. Before that, the tests' own arrangements are made.
func boot(t *testing.T, arrange ...func(*machine)) *machine {
	t.Helper()
	installedRoot(t) // before the clock runs
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp(scratch, "machine") // not the test's own, as an overlay's path may have no comma
	m := &machine{t: t, ctx: ctx, dir: dir}
	m.must(err)
	m.unit(dependant, "[Service]\nExecStartPre=/bin/sh -c 'echo start >>/var/shared/starts'\nExecStart=/bin/sleep infinity\n")
	m.unit(reloaded, "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/sh -c 'echo reload >>/var/shared/reloads'\n")
	m.write("shared/.keep", "")
	m.resolvers("192.0.2.1")
	m.configure("")
	for _, one := range arrange {
		one(m)
	}
	m.nspawn()
	return m
}

// units is where the container's units are, below the test's folder.
const units = "usr/lib/systemd/system/"

// unit adds a unit that is started at boot.
func (m *machine) unit(name, text string) {
	m.t.Helper()
	m.write(units+name, text)
	m.link("../"+name, units+"multi-user.target.wants/"+name)
}

// shortWatchdog has systemd lose its patience with netvmd so soon that a test can wait for it.
func shortWatchdog(m *machine) {
	m.write(units+"netvmd.service.d/test.conf", "[Service]\nWatchdogSec=2s\n")
}

// configure writes netvmd.toml with more lines for its [dns] table.
func (m *machine) configure(dns string) {
	m.t.Helper()
	m.write("etc/netvmd/netvmd.toml", fmt.Sprintf("[dns]\nsource = \"resolv.conf\"\nresolv_conf = \"/var/shared/resolv.conf\"\n%s\n"+
		"[hooks]\ntry_restart_units = [%q, \"absent.service\"]\ntry_reload_units = [%q]\n", dns, dependant, reloaded))
}

// resolvers replaces the resolv.conf that netvmd follows.
func (m *machine) resolvers(address string) {
	m.t.Helper()
	m.write("shared/resolv.conf.new", "nameserver "+address+"\n")
	m.must(os.Rename(filepath.Join(m.dir, "shared/resolv.conf.new"), filepath.Join(m.dir, "shared/resolv.conf")))
}

// etc are the folders below /etc that a container has of the test's folder.
var etc = []string{"NetworkManager", "netvmd", "qubes", "xen"}

func (m *machine) nspawn() {
	m.t.Helper()
	options := container.Options{
		Usr:   []string{installedRoot(m.t).path("usr"), filepath.Join(m.dir, "usr")},
		Binds: append(m.binds, container.Bind{From: filepath.Join(m.dir, "shared"), To: "/var/shared"}),
	}
	for _, dir := range etc {
		from := filepath.Join(m.dir, "etc", dir)
		m.must(os.MkdirAll(from, 0o755))
		options.Binds = append(options.Binds, container.Bind{From: from, To: "/etc/" + dir})
	}
	var err error
	m.Machine, err = container.Boot(m.ctx, options)
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
	path := m.place(name)
	m.must(os.WriteFile(path, []byte(text), 0o644))
}

// script writes a program for /bin/sh.
func (m *machine) script(name, text string) {
	m.t.Helper()
	m.write(name, "#!/bin/sh\n"+text)
	m.must(os.Chmod(filepath.Join(m.dir, name), 0o755))
}

func (m *machine) link(target, name string) {
	m.t.Helper()
	m.must(os.Symlink(target, m.place(name)))
}

// place is the path of a file of the test, whose folder there is.
func (m *machine) place(name string) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	return path
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

// shell runs a command in the container, as root, wants it to succeed, and returns what it printed.
func (m *machine) shell(command string) string {
	m.t.Helper()
	out, err := m.run("bash", "-c", command)
	if err != nil {
		m.t.Fatalf("%s: %v", command, err)
	}
	return out
}

// awaitLog waits until netvmd has logged something that matches.
func (m *machine) awaitLog(pattern string) {
	m.t.Helper()
	// In a pipe journalctl would only end with the next line.
	m.shell("grep --quiet --max-count=1 '" + pattern + "' <(journalctl --unit=" + unit + " --output=cat --lines=all --follow)")
}

// followsDevices has systemd in the container follow network devices, by its own udev. It does so when /sys can be written,
// as the events of network devices are the container's own; those of other devices are the host's.
func (m *machine) followsDevices() {
	m.t.Helper()
	m.shell("mount -o remount,rw /sys && systemctl start systemd-udevd.service && systemctl daemon-reexec")
}

// services is a connection with the container's systemd.
type services struct {
	*machine
	conn    *systemd.Conn
	updates chan *systemd.PropertiesUpdate
	failed  chan error
}

func (m *machine) services() *services {
	m.t.Helper()
	conn, err := systemd.NewSystemConnectionContext(m.ctx)
	m.must(err)
	m.t.Cleanup(conn.Close)
	s := &services{m, conn, make(chan *systemd.PropertiesUpdate, 1000), make(chan error, 1)}
	conn.SetPropertiesSubscriber(s.updates, s.failed) // before Subscribe, or the library races
	m.must(conn.Subscribe())
	return s
}

// in is the same connection, for a part of the test.
func (s *services) in(t *testing.T) *services {
	m := *s.machine
	m.t = t
	return &services{&m, s.conn, s.updates, s.failed}
}

// property is a unit's property.
func (s *services) property(of, name string) any {
	s.t.Helper()
	p, err := s.conn.GetAllPropertiesContext(s.ctx, of)
	s.must(err)
	return p[name]
}

// is tells whether a unit is in a state, such as active.
func (s *services) is(name, state string) bool { return s.property(name, "ActiveState") == state }

// entered is when a unit became active, in µs since the boot; 0 = never.
func (s *services) entered(name string) uint64 {
	return s.property(name, "ActiveEnterTimestampMonotonic").(uint64)
}

// await waits until a unit's properties satisfy holds.
func (s *services) await(name, what string, holds func() bool) {
	s.t.Helper()
	for !holds() {
		select {
		case <-s.updates:
		case err := <-s.failed:
			s.t.Fatal(err)
		case <-s.ctx.Done():
			s.t.Fatalf("%s: %s: not in time", name, what)
		}
	}
}
