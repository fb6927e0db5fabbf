//go:build packages

package packages

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/lab/container"
)

const (
	// standInAt is where the container sees the package that stands for Qubes' own, in two versions.
	standInAt = "/opt/standin"
	// calls is where its scripts write down that they were called.
	calls = "/run/qubes-calls"
	// qubesVif is what Xen runs for each vif, as Qubes' toolstack names it.
	qubesVif = "/etc/xen/scripts/vif-route-qubes"
	// hook is what NetworkManager's dispatcher calls of Qubes, and script what that and others call.
	hook, script = "qubes-nmhook", "qubes-setup-dnat-to-ns"
)

// template is a Debian that a Qubes template is played by, with the folders that the test shows to its domains.
type template struct {
	*netvm
	standIns, services string
}

// newTemplate makes a template with the stand-in for Qubes' package and netvmd, both installed while no system runs in it.
func newTemplate(t *testing.T) *template {
	t.Helper()
	m := &template{netvm: newNetVM(t), standIns: t.TempDir(), services: t.TempDir()}
	for _, version := range []string{"1", "2"} {
		tree := filepath.Join(t.TempDir(), "tree")
		m.host("cp", "--archive", "standin", tree)
		m.host("sed", "-i", "s/^Version: .*/Version: "+version+"/", filepath.Join(tree, "DEBIAN/control"))
		// Each version has other scripts, so that the old ones are really replaced.
		for _, file := range []string{"etc/NetworkManager/dispatcher.d/" + hook, "usr/lib/qubes/" + script, "etc/xen/scripts/vif-route-qubes"} {
			m.host("sed", "-i", "$a # Version "+version, filepath.Join(tree, file))
		}
		m.host("dpkg-deb", "--root-owner-group", "--build", tree, filepath.Join(m.standIns, version+".deb"))
	}
	return m
}

// host runs a program on this machine.
func (m *template) host(args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start boots a domain of the template, with these services on.
func (m *template) start(services ...string) {
	m.t.Helper()
	m.must(os.RemoveAll(m.services))
	m.must(os.Mkdir(m.services, 0o755))
	for _, s := range services {
		m.must(os.WriteFile(filepath.Join(m.services, s), nil, 0o644))
	}
	m.boot(lab.Options{QubesDB: map[string]string{"/qubes-netvm-gateway": gateway}},
		container.Bind{From: m.standIns, To: standInAt, ReadOnly: true}, container.Bind{From: m.services, To: "/opt/services", ReadOnly: true})
}

// step is netvm's, for what is told of a domain.
func (m *template) step(name string, f func(m *template)) {
	m.t.Helper()
	m.netvm.step(name, func(n *netvm) {
		of := *m
		of.netvm = n
		f(&of)
	})
}

// called waits until a line stands among the calls of Qubes' scripts, and returns all of them up to there.
func (m *template) called(line string) []string {
	m.t.Helper()
	cmd := exec.CommandContext(m.ctx, "tail", "--lines=+1", "--follow", m.NetVM.Machine.Path(calls))
	out, err := cmd.StdoutPipe()
	m.must(err)
	m.must(cmd.Start())
	defer func() {
		m.must(cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}()
	var before []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		before = append(before, lines.Text())
		if lines.Text() == line {
			return before
		}
	}
	m.t.Fatalf("nobody called %q; there were %q", line, before)
	return nil
}

// hears tells which of Qubes' scripts were called until the dispatcher was through with an event.
func (m *template) hears(event string) string { return strings.Join(m.called("zz-last "+event), "\n") }

// forget empties the list of calls.
func (m *template) forget() { m.sh(": >" + calls) }

// TestOnQubes tells of a template and of domains that were made from it, with a stand-in for Qubes' own package.
func TestOnQubes(t *testing.T) {
	m := newTemplate(t)
	m.step("installed in a template, in which no system runs, it says nothing and enables its units", func(m *template) {
		m.host("dpkg", "--root="+m.system.Dir, "--install", m.standIns+"/1.deb")
		files := strings.Fields(strings.ReplaceAll(debs(older), packagesAt, packagesFolder))
		said := m.host(append([]string{"dpkg", "--root=" + m.system.Dir, "--install"}, files...)...)
		for _, line := range strings.Split(strings.TrimSpace(said), "\n") {
			if !strings.HasPrefix(line, "Selecting ") && !strings.HasPrefix(line, "(Reading ") && !strings.HasPrefix(line, "Preparing ") &&
				!strings.HasPrefix(line, "Unpacking ") && !strings.HasPrefix(line, "Setting up ") && !strings.HasPrefix(line, "Processing ") {
				m.t.Errorf("it said %q", line)
			}
		}
		enabled := m.host("systemctl", "--root="+m.system.Dir, "is-enabled", "netvmd.service", "netvmd-firewall.service", "netvmd-vifs.service")
		if enabled != "enabled\nenabled\nenabled\n" {
			m.t.Errorf("enabled: %q", enabled)
		}
	})
	m.step("a domain without the service is as Qubes has it", func(m *template) {
		m.start()
		m.says("systemctl is-active netvmd.service netvmd-firewall.service netvmd-vifs.service", "inactive\ninactive\ninactive")
		m.says("systemctl --failed --no-legend --plain", "")
		m.has("the calls", m.hears("home0 up"), hook+" up", script, "network-proxy-setup.sh")
		m.says("nft list tables", "table ip qubes\ntable ip6 qubes")
		m.has("Qubes' rules", m.sh("nft list chain ip qubes dnat-dns"), "dnat to "+m.Home.Resolvers[0].String())
		m.has("what dom0 is told", m.sh("run-parts --regex=. /etc/qubes/post-install.d"), "supported-service.netvmd=1", "supported-service.netvm-uplink=1")
	})
	m.step("in a domain with the service all starts by itself, and serves an AppVM", func(m *template) {
		m.shutDown()
		m.start("netvmd")
		m.says("systemctl is-active netvmd.service netvmd-firewall.service netvmd-vifs.service", "active\nactive\nactive")
		m.says("systemctl --failed --no-legend --plain", "")
		m.Work.Card.Script = qubesVif
		m.must(m.Work.Attach(m.ctx))
		m.served(m.Home.Resolvers[0], m.Home.Resolvers[1])
	})
	m.step("it has taken over from Qubes' hook and script, and from no other", func(m *template) { m.hasTakenOver() })
	m.whileAtWork()
	m.isGivenBack()
}

// hasTakenOver wants that an uplink that comes up leads to no call of Qubes' hook and script.
func (m *template) hasTakenOver() {
	m.t.Helper()
	m.forget()
	m.sh("nmcli device disconnect home0 && nmcli device connect home0")
	for _, call := range strings.Split(m.hears("home0 up"), "\n") {
		if strings.HasPrefix(call, hook) || call == script {
			m.t.Errorf("%s was called", call)
		}
	}
	m.served(m.Home.Resolvers[0], m.Home.Resolvers[1])
}

// whileAtWork tells of upgrades in a domain with the service.
func (m *template) whileAtWork() {
	m.step("an upgrade loses no query and no connection here either", func(m *template) {
		l := m.load()
		m.apt("install " + debs(newer))
		m.served(m.Home.Resolvers[0], m.Home.Resolvers[1])
		l.unharmed(m.Home.Resolvers[0], m.Home.Resolvers[1])
		m.runs("0.9.2")
	})
	// A file that something is mounted on cannot be replaced, rename(2).
	m.step("Qubes' own package can be upgraded when its hotplug script is uncovered meanwhile", func(m *template) {
		l := m.load()
		m.sh("systemctl stop netvmd-vifs.service && dpkg --install " + standInAt + "/2.deb && systemctl start netvmd-vifs.service")
		m.served(m.Home.Resolvers[0], m.Home.Resolvers[1])
		l.unharmed(m.Home.Resolvers[0], m.Home.Resolvers[1])
		m.has("the new script", m.sh("cat /usr/lib/qubes/"+script), "# Version 2")
		m.says("cmp "+qubesVif+" /usr/lib/netvmd/vif-route-netvm", "")
		m.must(m.Work.Detach(m.ctx))
		m.must(m.Work.Attach(m.ctx))
	})
	m.step("after which Qubes' hook is still taken over from, when the dispatcher has started anew", func(m *template) {
		m.sh("systemctl stop NetworkManager-dispatcher.service") // as it does by itself, 10 s after its last event
		m.hasTakenOver()
	})
}

// isGivenBack tells of the package's removal from a domain with the service.
func (m *template) isGivenBack() {
	m.step("removed, it hands the AppVM over to Qubes' own rules, and loses no query", func(m *template) {
		m.forget()
		l := m.load()
		m.apt("remove netvmd")
		m.answered(m.Home.Resolvers[0], m.Home.Resolvers[1])
		l.unharmed(m.Home.Resolvers[0], m.Home.Resolvers[1])
		m.called(script)
		m.says("nft list tables", "table ip qubes\ntable ip6 qubes")
		m.has("vif-route-qubes", m.sh("cat "+qubesVif), "# Version")
	})
	m.step("and Qubes' hook is called again", func(m *template) {
		m.forget()
		m.must(m.Office.Plug())
		m.must(m.Home.Unplug())
		m.has("the calls", m.hears("office0 up"), hook+" up", script)
	})
}
